"""`refold deadletters` as an operator meets it: what happened first, content as JSON, what is over told as over."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from .conftest import Refold

SIZES = """
from pydantic import BaseModel

from refold import Event, transform


class Size(BaseModel):
    event_id: str
    n: int


@transform(reads="events")
def sizes(event: Event) -> Size:
    return Size(event_id=event.event_id, n=event.metadata["n"])
"""


@pytest.fixture
def poisoned(refold: Refold, metric: Callable[[str, str], Path], record: Callable[..., None]) -> Refold:
    """A metric that has set one event aside."""
    metric("tens", "SELECT action, sum(10 / (metadata->>'by')::integer) AS tens FROM events GROUP BY action")
    refold("deploy")
    record("view=ann", metadata={"by": 2})
    record("view=bob", metadata={"by": 0})
    refold("worker", "--drain")
    return refold


def test_show_begins_with_what_happened_and_ends_with_what_to_do(poisoned: Refold) -> None:
    lines = poisoned("deadletters", "show", "1").out.splitlines()
    assert lines[0] == "tens could not process event 2: division by zero"
    assert lines[-1] == "After you fix the cause: refold deadletters retry 1"
    start = lines.index("the event") + 1
    event = json.loads("\n".join(lines[start : lines.index("}") + 1]))
    assert (event["event_id"], event["metadata"]) == ("2", {"by": 0})


def test_one_that_was_dropped_is_not_unknown(poisoned: Refold) -> None:
    assert poisoned("deadletters", "drop", "1", "--reason", "a test").status == 0
    for command in (["retry", "1"], ["drop", "1", "--reason", "again"]):
        done = poisoned("deadletters", *command)
        assert done.status == 2
        assert "no longer waiting: 1 is dropped" in done.err
    unknown = poisoned("deadletters", "retry", "99")
    assert (unknown.status, "no such dead letter: 99" in unknown.err) == (2, True)
    assert "retry" not in poisoned("deadletters", "show", "1").out


def test_a_wrong_field_is_named_in_one_line(refold: Refold, record: Callable[..., None]) -> None:
    Path("projections").mkdir()
    Path("projections/sizes.py").write_text(SIZES)
    assert refold("deploy").status == 0
    record("view=ann", metadata={"n": "ten"})
    refold("worker", "--drain")
    [letter] = refold("deadletters", "list", "--json").json
    assert (
        letter["error"] == "ValidationError: n: Input should be a valid integer, unable to parse string as an integer"
    )


def test_no_retry_is_suggested_for_a_superseded_build(poisoned: Refold) -> None:
    assert poisoned("rebuild", "tens").status == 0
    assert poisoned("deadletters", "retry", "1").status == 2
    last = poisoned("deadletters", "show", "1").out.splitlines()[-1]
    assert last.startswith("Nothing to retry: its build tens__") and "superseded" in last
