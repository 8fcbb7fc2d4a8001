"""The loop of a worker: what it takes for a frozen process."""

from __future__ import annotations

from refold.service.worker.loop import Worker
from tests.support.scratch import Scratch

SLOW = """
import threading
from pydantic import BaseModel
from refold import Event, transform

class Row(BaseModel):
    a: str

@transform()
def slow(event: Event) -> Row:
    threading.Event().wait(0.02)
    return Row(a=event.action)
"""


def test_a_slow_function_is_not_taken_for_a_frozen_worker(scratch: Scratch) -> None:
    scratch.deploy(slow=SLOW)
    scratch.append(50)
    Worker(scratch.url, scratch.folder, frozen_after=0.5).run(drain=True)
    assert len(scratch.rows("slow")) == 50
