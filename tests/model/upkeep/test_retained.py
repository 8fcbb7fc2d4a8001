"""A build that keeps the newest of its slices: no statement over the stream forgets the condition."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from refold.model.projection.definition import Definition, load_directory
from refold.model.stream.page_sql import LOG_STREAM, Stream
from refold.model.stream.slices import NO_DAY, slice_day
from refold.model.upkeep.generate import generate
from refold.model.upkeep.retained import retained, time_slicing
from refold.model.upkeep.statements import Statements
from tests.support.live import PROJECTS

CONDITION = "(SELECT r__.retained_from FROM refold.builds AS r__ WHERE r__.build_id = 7)"
BY_TIME = {
    "by_day": "1 day",
    "users": "1 day",
    "hours": "1 day",
    "months": "1 month",
    "usual": "1 day",
    "levels": "1 day",
}


@pytest.fixture(scope="module")
def definitions() -> dict[str, Definition]:
    return load_directory(PROJECTS / "retained")


def over_the_stream(made: Statements) -> Iterator[tuple[str, str]]:
    """The statements that make rows of the stream's rows, each by its name."""
    yield "page", made.page
    yield "backlog", made.backlog
    for name in ("load", "load_next", "load_apart", "probe", "probe_keys"):
        # The first statement of each reads the stream; the others go on with what it made.
        yield from ((name, one) for one in getattr(made, name)[:1])
    for number, relation in enumerate(made.relations):
        yield f"relation {number}", relation.expected("true", "true")
        yield f"insert {number}", relation.insert()
    if made.folded is not None:
        yield "folded", made.folded("arriving")
    if made.base is not None:
        yield "fold", made.base.fold("refold.events")


@pytest.mark.parametrize("name", BY_TIME)
@pytest.mark.parametrize("based", [False, True])
def test_no_statement_forgets_it(definitions: dict[str, Definition], name: str, based: bool) -> None:
    plan = definitions[name].plan
    stream = LOG_STREAM if plan.stream == "events" else Stream("refold_builds.clicks__1", ordinal=True)
    without = dict(over_the_stream(generate(plan, stream, "x__1", based=based)))
    made = dict(over_the_stream(generate(retained(plan, 7), stream, "x__1", based=based)))
    assert made.keys() == without.keys() and len(made) >= 6
    assert {one for one, text in made.items() if CONDITION not in text} == set()
    assert {one for one, text in without.items() if "retained_from" in text} == set()


def test_what_has_times(definitions: dict[str, Definition]) -> None:
    found = {name: time_slicing(one.plan) for name, one in definitions.items()}
    assert {name: one.unit for name, one in found.items() if one is not None} == BY_TIME


def test_a_query_that_reads_its_stream_twice(definitions: dict[str, Definition]) -> None:
    plan = replace(definitions["usual"].plan, query=("SELECT 1 FROM ", " AS a JOIN ", " AS b USING (ts)"), where="a")
    twice = plan.restricted("c")
    assert "(s)".join(twice.query) == (
        "SELECT 1 FROM (SELECT * FROM (s) AS all__ WHERE c) AS a"
        " JOIN (SELECT * FROM (s) AS all__ WHERE c) AS b USING (ts)"
    )
    assert twice.where == "CASE WHEN (a) THEN c END"
    assert plan.restricted("c").restricted("d").where == "CASE WHEN (CASE WHEN (a) THEN c END) THEN d END"


def test_days_of_slices() -> None:
    assert (slice_day(0), slice_day(20_000), slice_day(NO_DAY)) == ("1970-01-01", "2024-10-04", "no day")
