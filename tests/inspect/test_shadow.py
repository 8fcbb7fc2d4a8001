"""A transform's changed function over a sample of events, beside the rows of the live build."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from refold import append
from refold.errors import BuildError
from refold.inspect.shadow import Shadow, shadow
from refold.postgres.connect import connect
from tests.support.scratch import Scratch

GRADED = '''
from decimal import Decimal
from pydantic import BaseModel
from refold import Event, transform

class Grade(BaseModel):
    action: str
    weight: {kind}
    share: Decimal{more}

@transform()
def graded(event: Event) -> Grade | None:
    """A grade of an event."""
    number = event.metadata["n"]
    {rule}
    return Grade(action=event.action, weight={weight}, share=Decimal({share}){given})
'''
FIRST: dict[str, str] = {
    "kind": "int", "more": "", "rule": "", "weight": "number", "share": "\"1.50\"", "given": "",
}  # fmt: skip


def ready(scratch: Scratch) -> None:
    with psycopg.connect(scratch.url) as conn:
        events = [
            {"id": f"{n:03}", "action": "rare" if n == 50 else "often", "ts": n, "metadata": {"n": n % 10}}
            for n in range(100)
        ]
        append(conn, events)
    scratch.deploy(graded=GRADED.format(**FIRST))


def look(scratch: Scratch, events: int = 1000, **changed: str) -> Shadow:
    scratch.write(graded=GRADED.format(**(FIRST | changed)))
    with connect(scratch.url, "refold_inspector", autocommit=True) as conn:
        return shadow(conn, scratch.folder, "graded", events=events)


def test_what_a_changed_function_would_make(scratch: Scratch) -> None:
    ready(scratch)
    same = look(scratch, share='"1.5"')
    assert same.same and same.rows == {"identical": 100} and same.events == 100
    assert same.function_us is not None and same.function_us > 0
    found = look(scratch, weight="number + (number == 7)", rule="if number == 3: return None")
    assert found.rows == {"identical": 80, "modified": 10, "removed": 10} and found.fields == {"weight": 10}
    modified = [one for one in found.samples if one.kind == "modified"]
    assert len(modified) == 5 and all((one.before, one.after) == ({"weight": "7"}, {"weight": "8"}) for one in modified)
    found = look(scratch, rule="1 / (number - 4)")
    assert found.rows == {"identical": 90, "raised": 10} and not found.same
    assert "ZeroDivisionError" in str(found.samples[0].error)
    found = look(scratch, kind="str", weight="str(number)", more="\n    extra: int = 1")
    assert found.new_fields == ("extra",) and found.rows == {"identical": 100} and not found.same


def test_the_sample_has_old_and_new_events_of_each_action(scratch: Scratch) -> None:
    ready(scratch)
    found = look(scratch, events=8, weight="number + 100")
    assert found.events == 5 and found.rows == {"modified": 5}
    assert {one.row_id for one in found.samples} == {"000", "001", "050", "098", "099"}
    tables: list[Any] = scratch.worker.execute("SELECT count(*) FROM refold.builds").fetchall()
    assert tables == [(1,)]


def test_what_is_no_transform(scratch: Scratch) -> None:
    scratch.deploy(counts="SELECT action, count(*) AS n FROM events GROUP BY action")
    with (
        connect(scratch.url, "refold_inspector", autocommit=True) as conn,
        pytest.raises(BuildError, match="is not a transform"),
    ):
        shadow(conn, scratch.folder, "counts")
