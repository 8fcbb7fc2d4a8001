"""A transform that is not a function of its event alone is found and named (fault 19); honest ones never are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest

from refold import append
from refold.engine.reconcile.reconcile import reconcile
from refold.service.duties.purity import run
from refold.store.builds.compiled import Compiler
from refold.store.incidents import Incident
from tests.support.law import PROJECT
from tests.support.live import SHOP, drain, make_live
from tests.support.making import events

Connection = psycopg.Connection[Any]

HEAD = """
import itertools, pathlib, random, time
from decimal import Decimal
from pydantic import BaseModel
from refold import Event, transform

class Row(BaseModel):
    event_id: str
    action: str
    at: {kind}

seen = itertools.count()
before = [-9]

@transform()
def stamped(event: Event) -> Row | None:
    {body}
"""
ROW = "return Row(event_id=event.event_id, action=event.action, at={at})"
HONEST = ROW.format(at="len(event.event_id)")


def project(folder: Path, body: str, kind: str = "float | None") -> Path:
    (folder / "stamped.py").write_text(HEAD.format(kind=kind, body=body))
    return folder


def offer(producers: Callable[..., Connection], prefix: str = "e", count: int = 5) -> None:
    with producers() as producer:
        append(producer, events(count, prefix))


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        (ROW.format(at="time.time()"), ["at"]),
        (ROW.format(at="None if next(seen) % 2 else 1"), ["at"]),
        # Whether it comes right after its neighbour: the same each time in the same order.
        ("was, before[0] = before[0], int(event.event_id[1:]); " + ROW.format(at="was == before[0] - 1"), ["at"]),
        (ROW.format(at="random.random()"), ["at"]),
        (ROW.format(at="next(seen) // 100"), []),
        (ROW.format(at="next(seen)"), ["at"]),
        ("return None if next(seen) % 2 else " + HONEST.removeprefix("return "), ["(the row itself)"]),
    ],
)
def test_an_impure_transform_is_named(
    database_url: str,
    producers: Callable[..., Connection],
    worker: Connection,
    incidents: Callable[[str], list[Incident]],
    tmp_path: Path,
    body: str,
    fields: list[str],
) -> None:
    folder = project(tmp_path, body)
    tables = make_live(database_url, folder)
    offer(producers)
    drain(database_url, folder)
    run(worker, Compiler(folder))
    if not fields:
        # The same for a hundred events: nobody could tell yet.
        assert incidents("impure_transform") == []
        return
    [incident] = incidents("impure_transform")
    assert f"refold_builds.{incident.subject}" == tables["stamped"]
    assert incident.evidence["projection"] == "stamped"
    assert incident.evidence["fields"] == fields
    assert set(incident.evidence["events"]) <= {f"e{number}" for number in range(5)}
    assert incident.evidence["against"] == ["again"]

    # Corrected and deployed, it is over.
    project(folder, HONEST)
    make_live(database_url, folder)
    run(worker, Compiler(folder))
    [incident] = incidents("impure_transform")
    assert (incident.resolved_by, incident.outcome) == ("purity", {"because": "the build is no longer kept up to date"})


@pytest.mark.slow
@pytest.mark.parametrize("folder", [SHOP, PROJECT], ids=lambda folder: folder.name)
def test_honest_ones_are_never_flagged(
    database_url: str,
    producers: Callable[..., Connection],
    worker: Connection,
    incidents: Callable[[str], list[Incident]],
    folder: Path,
) -> None:
    """Lists, readers of readers, rows that are left out."""
    make_live(database_url, folder)
    for number in range(3):
        offer(producers, f"{number}-", 30)
        drain(database_url, folder)
        run(worker, Compiler(folder))
    assert incidents("impure_transform") == []


@pytest.mark.parametrize(
    ("kind", "at"),
    [("float", "float('nan')"), ("Decimal", "Decimal('1.' + '0' * (next(seen) % 7))"), ("dict", "{'b': 1, 'a': [2]}")],
)
def test_values_are_compared_not_texts(
    database_url: str,
    producers: Callable[..., Connection],
    worker: Connection,
    incidents: Callable[[str], list[Incident]],
    tmp_path: Path,
    kind: str,
    at: str,
) -> None:
    folder = project(tmp_path, ROW.format(at=at), kind)
    make_live(database_url, folder)
    offer(producers)
    drain(database_url, folder)
    run(worker, Compiler(folder))
    assert incidents("impure_transform") == []


def test_a_row_changed_by_hand_is_drift_and_no_fault_of_the_function(
    database_url: str,
    producers: Callable[..., Connection],
    worker: Connection,
    admin: Connection,
    incidents: Callable[[str], list[Incident]],
    tmp_path: Path,
) -> None:
    folder = project(tmp_path, HONEST)
    tables = make_live(database_url, folder)
    offer(producers)
    drain(database_url, folder)
    for _ in range(2):
        admin.execute(f"UPDATE {tables['stamped']} SET at = -1".encode())
        run(worker, Compiler(folder))
        assert incidents("impure_transform") == []
        reconcile(worker, folder)
        run(worker, Compiler(folder))
        assert incidents("impure_transform") == []


def test_what_differs_again_after_it_was_healed(
    database_url: str,
    producers: Callable[..., Connection],
    worker: Connection,
    incidents: Callable[[str], list[Incident]],
    tmp_path: Path,
) -> None:
    """It agrees with itself within a moment, as one that looks at the date does: here, at a file."""
    other = tmp_path / "elsewhere"
    other.write_text("1")
    folder = tmp_path / "projections"
    folder.mkdir()
    project(folder, ROW.format(at=f"float(pathlib.Path({str(other)!r}).read_text())"))
    make_live(database_url, folder)
    offer(producers)
    drain(database_url, folder)
    for text in ("2", "3"):
        other.write_text(text)
        run(worker, Compiler(folder))
        if text == "2":
            assert incidents("impure_transform") == []
            reconcile(worker, folder)
    [incident] = incidents("impure_transform")
    assert (incident.evidence["against"], incident.evidence["fields"]) == (["healed before"], ["at"])


def test_events_that_it_cannot_process_and_code_that_is_elsewhere(
    database_url: str,
    producers: Callable[..., Connection],
    worker: Connection,
    incidents: Callable[[str], list[Incident]],
    tmp_path: Path,
) -> None:
    flag = tmp_path / "broken"
    folder = tmp_path / "projections"
    folder.mkdir()
    project(folder, f"import os; assert event.event_id != 'e1' or not os.path.exists({str(flag)!r}); {HONEST}")
    make_live(database_url, folder)
    offer(producers)
    drain(database_url, folder)
    flag.touch()
    run(worker, Compiler(folder))
    run(worker, Compiler(None))
    assert incidents("impure_transform") == []
