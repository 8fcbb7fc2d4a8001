"""Query plans: what a page, a poll and a load read does not depend on how long the log is.

On a log of many segments, with the settings of a worker (generic plans), beside a long transaction that every
cursor has to remember. Each plan is that of the statement which the product itself has just run.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count

import psycopg
import pytest

from refold import Log, SourceEvent, append
from refold.engine.apply.load import load_step
from refold.engine.apply.page import apply_next_page, apply_page
from refold.engine.deployment.create import make_builds, new_deployment
from refold.engine.deployment.deploy import rebuild
from refold.postgres.connect import connect
from refold.postgres.session import PAGES
from refold.service.worker.loop import Worker
from refold.service.worker.pending import builds_with_work
from refold.store.builds.build import Build, live, lock
from refold.store.builds.compiled import Compiler
from refold.store.schema.cluster import inspect_cluster
from tests.conftest import ServerUnderTest
from tests.support.explained import Node, Plan, explained, rows_read
from tests.support.law import MONDAY, PROJECT, database, project

SEGMENT, SEGMENTS = 1_500, 8
SHORT, LONG = 1_000, 10_000
"""Events in the log at the first and at the second measurement."""
PAGE = 50
ON_THE_LOG = ("everything", "totals", "visitors", "seen", "clicks", "tagged", "items", "sessions", "everybody")
ON_STREAMS = ("doubles", "numbers", "medians", "notable", "letters", "funnels", "bought")
LOG = "events_0"
"""How the names of the log's segments begin."""


@dataclass(frozen=True)
class Measured:
    """What was run at one length of the log.

    Args:
        pages: by projection.
        tables: of each projection.
        opened: how many transactions were open when the cursor of each was taken.
        poll: a worker's look when there is nothing to do.
        freshness: the view of that name.
        check: what every command asks at its start, and a worker now and then.
    """

    pages: dict[str, list[Plan]]
    tables: dict[str, str]
    opened: dict[str, int]
    poll: list[Plan]
    freshness: list[Plan]
    check: list[Plan]


@dataclass
class Station:
    """A log that grows, and a worker's connection."""

    url: str
    conn: psycopg.Connection
    compiler: Compiler = field(default_factory=lambda: Compiler(PROJECT))
    numbers: Iterator[int] = field(default_factory=count)

    def measure(self, length: int) -> Measured:
        """Lets the log grow to a length, and runs everything once."""
        self.append(length - next(self.numbers))
        Worker(self.url, PROJECT).run(drain=True)
        with explained(self.conn) as poll:
            assert builds_with_work(self.conn) == []
        with explained(self.conn) as freshness:
            self.conn.execute("SELECT * FROM metrics.freshness").fetchall()
        with explained(self.conn) as check:
            inspect_cluster(self.conn)
        self.append(PAGE + 10)
        pages = {name: self.page(name) for name in ON_THE_LOG}
        for name in ("clicks", "items"):
            apply_next_page(self.conn, self.compiler.of(self.conn, self.build(name)), 1000)
        pages |= {name: self.page(name) for name in ON_STREAMS}
        tables = {name: self.build(name).table_name for name in project()}
        opened = {name: len(self.build(name).cursor.done.xip) for name in project()}
        return Measured(pages, tables, opened, poll, freshness, check)

    def append(self, number: int) -> None:
        """Appends events with users and numbers that there were not before: a page has nothing old to redo."""
        numbers = [next(self.numbers) for _ in range(number)]
        events = [
            SourceEvent(id=f"e{n}", user_id=f"u{n}", action="view", ts=MONDAY, metadata={"items": ["a", "b"], "n": n})
            for n in numbers
        ]
        with Log(self.url) as log:
            log.append(events)

    def build(self, name: str) -> Build:
        found = live(self.conn, name)
        assert found is not None
        return found

    def page(self, name: str) -> list[Plan]:
        """A page of a build, which is then rolled back."""
        compiled = self.compiler.of(self.conn, self.build(name))
        with explained(self.conn) as plans, self.conn.transaction(force_rollback=True):
            build = lock(self.conn, compiled.build_id)
            assert build is not None
            assert apply_page(self.conn, compiled, build, PAGE).events == PAGE
        return plans


@pytest.fixture(scope="module")
def station(server: ServerUnderTest) -> Iterator[Station]:
    with (
        database(server, segment_size=SEGMENT, segments=SEGMENTS) as url,
        connect(url, "refold_worker", autocommit=True, settings=PAGES) as conn,
        connect(url, "refold_producer") as long,
    ):
        append(long, [SourceEvent(id="long", action="view", ts=MONDAY)])
        yield Station(url, conn)
        long.rollback()


@pytest.fixture(scope="module")
def measured(station: Station) -> tuple[Measured, Measured]:
    return station.measure(SHORT), station.measure(LONG)


def scans(plans: list[Plan], relation: str) -> list[Node]:
    """What read a relation, and found something to read or at least looked."""
    return [node for plan in plans for node in plan.nodes(relation) if node["Actual Loops"]]


@pytest.mark.parametrize("name", ON_THE_LOG)
def test_a_page_of_the_log_is_read_by_its_index(measured: tuple[Measured, Measured], name: str) -> None:
    for plans in (one.pages[name] for one in measured):
        read = scans(plans, LOG)
        assert len(read) > SEGMENTS / 2
        assert not [node for node in read if node["Node Type"] == "Seq Scan"]
        # Two branches, each with the page as its limit; recompute reads the events of its keys once more.
        assert sum(map(rows_read, read)) <= 4 * PAGE
        # Without a parameter in it, the plan was made for these values, and the next ones may get another.
        assert any("$" in node.get("Index Cond", "") for node in read)


@pytest.mark.parametrize("name", ON_STREAMS)
def test_a_page_of_a_stream_is_read_by_its_index(measured: tuple[Measured, Measured], name: str) -> None:
    for one in measured:
        read = scans(one.pages[name], one.tables[project()[name].plan.stream])
        assert read
        assert not [node for node in read if node["Node Type"] == "Seq Scan"]
        assert sum(map(rows_read, read)) <= 6 * PAGE


@pytest.mark.parametrize("name", [*ON_THE_LOG, *ON_STREAMS])
def test_a_page_costs_the_same_on_a_longer_log(measured: tuple[Measured, Measured], name: str) -> None:
    short, long = (sum(plan.buffers for plan in one.pages[name]) for one in measured)
    # Each transaction that was open when the cursor was taken is looked up: one here, more on a server that is shared.
    looks = max(1, measured[1].opened[name])
    # An index that is not empty is one level deeper, in each segment and for each branch of the page; now and then a
    # statement looks through a small table that others have filled.
    assert long <= (2 * short + 6 * SEGMENTS) * looks


def test_an_idle_poll_costs_the_same_on_a_longer_log(measured: tuple[Measured, Measured]) -> None:
    short, long = (sum(plan.buffers for plan in one.poll) for one in measured)
    looks = max(1, *measured[1].opened.values())  # as for a page
    assert long <= (1.5 * short + 6 * SEGMENTS * len(ON_THE_LOG)) * looks
    for one in measured:
        read = scans(one.poll, LOG)
        assert read
        assert not [node for node in read if node["Node Type"] == "Seq Scan"]
        # The newest event of each segment behind the last mark: is there any that the cursors have not read?
        assert max(map(rows_read, read)) <= 1


def test_the_check_of_the_coordinates_reads_one_event_of_each_segment(measured: tuple[Measured, Measured]) -> None:
    for one in measured:
        read = scans(one.check, LOG)
        assert read
        assert sum(rows_read(node) for node in read) <= SEGMENTS + 2


def test_freshness_costs_the_same_on_a_longer_log(measured: tuple[Measured, Measured]) -> None:
    for one in measured:
        read = scans(one.freshness, LOG)
        assert read
        assert not [node for node in read if node["Node Type"] == "Seq Scan"]
        assert sum(map(rows_read, read)) == 0


ROWS_READ = """
    SELECT coalesce(sum(seq_tup_read + coalesce(idx_tup_fetch, 0)), 0)::bigint
    FROM pg_stat_xact_all_tables
    WHERE schemaname IN ('refold', 'refold_builds') AND relname LIKE %s
"""


@pytest.mark.parametrize("name", list(project()))
@pytest.mark.usefixtures("measured")
def test_a_first_load_reads_its_stream_once_and_once_for_the_figure_of_it(station: Station, name: str) -> None:
    definition, conn = project()[name], station.conn
    stream = LOG if definition.upstream is None else station.build(definition.upstream).table_name
    source = "refold.events" if definition.upstream is None else f"refold_builds.{stream}"
    with conn.transaction(force_rollback=True):
        length = conn.execute(f"SELECT count(*) FROM {source}".encode()).fetchone()
        deployment = new_deployment(conn, "rebuild", promote=False)
        [build] = make_builds(conn, [definition], deployment, resumed={})
        before = conn.execute(ROWS_READ, (stream + "%",)).fetchone()
        compiled = Compiler(PROJECT).of(conn, build)
        while load_step(conn, compiled):
            pass
        after = conn.execute(ROWS_READ, (stream + "%",)).fetchone()
    assert length and before and after
    # Of the log the figure reads what is not sealed, which here is all. A transform's load goes in steps, and the last
    # one looks twice whether there is more.
    most = 2 * length[0] if definition.transform is None else 2.2 * length[0]
    assert 2 * length[0] <= after[0] - before[0] <= most


def test_readers_of_a_rebuilt_stream_find_their_index_on_it(station: Station) -> None:
    rebuild(station.conn, PROJECT, ["clicks"], lambda progress: None)
    Worker(station.url, PROJECT).run(drain=True)
    station.append(PAGE + 10)
    apply_next_page(station.conn, station.compiler.of(station.conn, station.build("clicks")), 1000)
    plans = station.page("medians")
    read = scans(plans, station.build("clicks").table_name)
    assert [node["Index Name"] for node in read if node.get("Index Name", "").startswith("key_")]
