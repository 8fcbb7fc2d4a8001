"""Where an event is: every row of every metric that it is in, and why it is in no row of the others."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Any, Literal

import psycopg
from psycopg.rows import class_row

from refold.engine.archive.find import find_event
from refold.engine.reconcile.audit import parameters_of
from refold.errors import BuildError, InputError
from refold.inspect.lineage.cost import Bound, estimate, refuse_costly
from refold.inspect.lineage.row_key import RowKey, types_of
from refold.inspect.lineage.snapshot import ANOTHER_VIEW, reading
from refold.model.projection.plan import LOG, Plan
from refold.model.sql_text import ident, literal
from refold.model.stream.cursor import RESTORED, Key
from refold.model.stream.page_sql import LOG_TABLE
from refold.model.stream.slices import slice_day
from refold.model.upkeep.retained import time_slicing
from refold.postgres.rows import exact, one_row
from refold.store import sinks
from refold.store.builds import dead_letters
from refold.store.builds.build import EVENT_GRAIN, Build, live_builds
from refold.store.builds.compiled import Compiler, stream_of
from refold.store.builds.graph import by_depth

REFUSALS = 20
"""Most records of rejected input that are returned, newest first."""

State = Literal["in rows", "left out", "dead letter", "not applied", "stream", "unknown"]
"""What a metric made of an event: rows; nothing, because its query or function leaves the event out; a dead letter;
nothing yet; nothing, because its stream has no row of the event; or it cannot be told here."""


@dataclass(frozen=True, slots=True)
class LoggedEvent:
    """An event of the log, with its coordinates."""

    txid: int
    position: int
    event_id: str
    user_id: str | None
    action: str
    ts: datetime
    metadata: Any
    version: int
    recorded_at: datetime


@dataclass(frozen=True, slots=True)
class RowOf:
    """A row that an event is in.

    Args:
        key: its key, as texts, as `refold why` takes it.
        shown: whether analysts see a row with this key.
    """

    key: dict[str, str | None]
    shown: bool


@dataclass(frozen=True, slots=True)
class InMetric:
    """What a live metric made of the event.

    Args:
        metric: the projection.
        upkeep: how it is kept.
        stream: what it reads.
        state: what it made of the event; of several rows of the stream, the first that applies.
        rows: the rows that the event is in.
        because: why it is in none, or why it cannot be told.
    """

    metric: str
    upkeep: str
    stream: str
    state: State
    rows: tuple[RowOf, ...] = ()
    because: str | None = None


@dataclass(frozen=True, slots=True)
class Letter:
    """A dead letter of the event.

    Args:
        event_id: the id of the row in the metric's stream.
        state: `waiting`, `released` or `dropped`.
    """

    dead_letter_id: int
    metric: str
    event_id: str
    state: dead_letters.State
    attempts: int
    error: str
    reason: str | None


@dataclass(frozen=True, slots=True)
class Refusal:
    """Rejected input that names the event's id.

    Args:
        answer: `conflict`: the id was in the log with other content; or `invalid`.
        times: how often the same input came.
    """

    source: str
    line: int
    answer: str
    reason: str
    times: int
    first_seen: datetime
    last_seen: datetime
    raw: str


@dataclass(frozen=True, slots=True)
class InSink:
    """A sink of a metric that the event is in.

    Args:
        given: whether the receiver was given the rows of the event; None if the sink delivers rows by their keys, which
            tell of no event.
    """

    sink: str
    metric: str
    grain: str
    given: bool | None


@dataclass(frozen=True, slots=True)
class Purged:
    """What is known of an event that was purged from the log.

    Args:
        looked: whether the archive was read for it.
        file: the file that has it; None: none has, or only a look at all files would tell.
        erased: whether it was erased: nothing but the hash of its id is kept, unless the archive has it without the
            person.
    """

    looked: bool = False
    file: str | None = None
    erased: bool = False


@dataclass(frozen=True, slots=True)
class Found:
    """Where an event is.

    Args:
        event_id: its id.
        event: the event; None if the log does not have it, and it was not found in the archive.
        registered: whether the ledger knows the id: then an event that is not in the log was lost, or purged.
        metrics: the live metrics, streams first.
        dead_letters: its dead letters, of builds that are kept.
        refused: rejected input with its id. Of duplicates refold keeps the number and not the ids.
        sinks: sinks of the metrics that it is in.
        purged: if it was purged from the log, what is known of it.
    """

    event_id: str
    event: LoggedEvent | None
    registered: bool
    metrics: tuple[InMetric, ...]
    dead_letters: tuple[Letter, ...]
    refused: tuple[Refusal, ...]
    sinks: tuple[InSink, ...]
    purged: Purged | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return the answer as a dict for JSON."""
        return asdict(self)


def where(
    conn: psycopg.Connection,
    compiler: Compiler,
    event_id: str,
    *,
    bound: Bound = Bound(),  # noqa: B008 - frozen
    archive: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Found:
    """Return where an event is.

    Args:
        conn: acts as one of `EVIDENCE`, in autocommit mode.
        compiler: makes the SQL of builds.
        event_id: the id of the event in the log.
        bound: what it may cost; only an event whose position the ledger does not know costs much.
        archive: read the archive for an event that was purged: file after file, unless the ledger knows its position.
        progress: called with the number of files that were read, and of all.

    Raises:
        InputError: neither the log, the ledger nor rejected input has the id.
        Costly: it would cost more than the bound.
        Unreadable: the archive does not have purged events as it was proved to.
    """
    purged, row = _purged(conn, event_id, archive, progress)
    with reading(conn, bound.timeout_s):
        if purged is None:
            registered, event = _event(conn, event_id, bound)
        else:
            registered, event = True, None if row is None else _thawed(conn, row)
        refused = _refused(conn, event_id)
        if event is None and not registered and not refused:
            raise InputError(
                f"there is no event {event_id!r}",
                remedy="An event in a transaction that is not committed yet cannot be seen; `refold status` names such"
                " transactions.",
            )
        if event is None:
            return Found(event_id, None, registered, (), (), refused, (), purged)
        metrics, letters = _Where(conn, compiler, event, row).answer()
        return Found(event_id, event, registered, metrics, letters, refused, _sinks(conn, event, metrics), purged)


_THAWED = """(
    SELECT %(e_txid)s::text::xid8 AS txid, %(e_position)s::bigint AS position,
           %(e_event_id)s::text COLLATE "C" AS event_id, %(e_user_id)s::text COLLATE "C" AS user_id,
           %(e_action)s::text COLLATE "C" AS action, %(e_ts)s::timestamptz AS ts, %(e_metadata)s::jsonb AS metadata,
           %(e_version)s::integer AS version, %(e_recorded_at)s::timestamptz AS recorded_at
) AS thawed"""
"""A row of the archive as a relation with the columns of the log."""
_EVENT = "txid::text::bigint AS txid, position, event_id, user_id, action, ts, metadata, version, recorded_at"


def _purged(
    conn: psycopg.Connection, event_id: str, archive: bool, progress: Callable[[int, int], None]
) -> tuple[Purged | None, dict[str, Any] | None]:
    """Return what is known of an event if it was purged, and its row if the archive was read and has it."""
    position, floor, digest = one_row(
        conn,
        "SELECT (SELECT position FROM refold.event_ids WHERE event_id = %(id)s), refold.log_floor(),"
        " (SELECT digest FROM refold.archived_ids(ARRAY[%(id)s::text]))",
        {"id": event_id},
    )
    if (digest is None and position is None) or (position is not None and not 1 <= position < floor):
        return None, None
    erased = digest == 0
    if erased and not archive:
        return Purged(erased=True), None
    if not archive:
        return Purged(file=_file_of(conn, position)), None
    found = find_event(conn, event_id, position, progress=progress)
    if found is None:
        return Purged(looked=True, erased=erased), None
    # After a recovery all events of the log have one txid.
    txid = RESTORED if found.archive.rewritten else found.row["txid"]
    row = {f"e_{name}": value for name, value in (found.row | {"txid": str(txid)}).items()}
    return Purged(looked=True, file=found.archive.location, erased=erased), row


def _file_of(conn: psycopg.Connection, position: int | None) -> str | None:
    """Return the file of the archive that has a position."""
    row = conn.execute(
        "SELECT location FROM refold.archives WHERE state = 'purged' AND lower_position <= %(at)s"
        " AND upper_position > %(at)s",
        {"at": position},
    ).fetchone()
    return None if row is None else str(row[0])


def _thawed(conn: psycopg.Connection, row: dict[str, Any]) -> LoggedEvent:
    with conn.cursor(row_factory=class_row(LoggedEvent)) as cursor:
        found = exact(cursor).execute(f"SELECT {_EVENT} FROM {_THAWED}".encode(), row).fetchone()
    assert found is not None
    return found


def _event(conn: psycopg.Connection, event_id: str, bound: Bound) -> tuple[bool, LoggedEvent | None]:
    row = conn.execute("SELECT position FROM refold.event_ids WHERE event_id = %s", (event_id,)).fetchone()
    position = 0 if row is None else int(row[0])
    # The log has no index on ids. What is not in the ledger is in the log only after damage.
    at = "position = %(position)s::bigint AND " if position else ""
    query = f'SELECT {_EVENT} FROM {LOG_TABLE} WHERE {at}event_id = %(event_id)s::text COLLATE "C"'
    parameters = {"position": str(position), "event_id": event_id}
    if row is None:
        return False, None
    refuse_costly(estimate(conn, [query], parameters, LOG_TABLE), bound)
    with conn.cursor(row_factory=class_row(LoggedEvent)) as cursor:
        return True, exact(cursor).execute(query.encode(), parameters).fetchone()


def _refused(conn: psycopg.Connection, event_id: str) -> tuple[Refusal, ...]:
    with conn.cursor(row_factory=class_row(Refusal)) as cursor:
        found = cursor.execute(
            """
            SELECT source, line, answer, reason, times, first_seen, last_seen, raw FROM refold.rejected
            WHERE strpos(raw, %(id)s::text) > 0
              AND raw ~ ('(^|[^[:alnum:]_.:-])' || regexp_replace(%(id)s::text, '([^[:alnum:]])', '\\\\\\1', 'g')
                         || '($|[^[:alnum:]_.:-])')
            ORDER BY last_seen DESC, rejected_id DESC LIMIT %(limit)s
            """,
            {"id": event_id, "limit": REFUSALS},
        ).fetchall()
    return tuple(found)


def _sinks(conn: psycopg.Connection, event: LoggedEvent, metrics: Sequence[InMetric]) -> tuple[InSink, ...]:
    held = {one.metric for one in metrics if one.rows}
    states = sinks.states(conn)
    found = []
    for sink in sinks.every(conn, definitions=False):
        if sink.projection in held:
            state = states.get(sink.sink_id)
            cursor = None if state is None else state.cursor
            given = None
            if sink.grain == "events":
                given = cursor is not None and cursor.applied(Key(event.txid, event.position, 0))
            found.append(InSink(sink.name, sink.projection, sink.grain, given))
    return tuple(found)


class _Where:
    def __init__(
        self, conn: psycopg.Connection, compiler: Compiler, event: LoggedEvent, purged: dict[str, Any] | None
    ) -> None:
        self.conn = conn
        self.compiler = compiler
        self.at = {"at_txid": str(event.txid), "at_position": str(event.position), **(purged or {})}
        self.log = LOG_TABLE if purged is None else _THAWED
        self.builds = by_depth(conn, live_builds(conn))
        self.known = {build.build_id: build for build in self.builds}
        self.letters = dead_letters.find(
            conn,
            "d.txid = %s::text::xid8 AND d.position = %s AND b.state IN ('building', 'live')",
            str(event.txid),
            event.position,
        )

    def answer(self) -> tuple[tuple[InMetric, ...], tuple[Letter, ...]]:
        found: dict[int, InMetric] = {}
        for build in self.builds:
            found[build.build_id] = self._in_metric(build, found)
        letters = (
            Letter(one.dead_letter_id, one.projection, one.event_id, one.state, one.attempts, one.error, one.reason)
            for one in self.letters
        )
        return tuple(found.values()), tuple(letters)

    def _in_metric(self, build: Build, before: Mapping[int, InMetric]) -> InMetric:
        upstream = None if build.upstream_id is None else self.known[build.upstream_id]
        nothing = InMetric(build.projection, build.upkeep, LOG if upstream is None else upstream.projection, "left out")
        try:
            plan = None if build.language == "python" else self.compiler.of(self.conn, build).plan
        except BuildError as error:
            return replace(nothing, state="unknown", because=str(error))
        states, keys = self._of_stream(build, upstream, plan)
        rows = self._of_events(build) if build.upkeep in EVENT_GRAIN else [self._row(build, key) for key in keys]
        if rows:
            return replace(nothing, state="in rows", rows=tuple(rows))
        if not states and upstream is not None:
            above = before[upstream.build_id]
            return replace(nothing, state="stream", because=f"{above.metric}: {above.because or above.state}")
        return self._without_rows(build, nothing, states)

    def _without_rows(self, build: Build, nothing: InMetric, states: set[str]) -> InMetric:
        if "dead" in states:
            errors = [one.error for one in self.letters if one.build_id == build.build_id and one.state != "released"]
            return replace(nothing, state="dead letter", because="; ".join(errors) or None)
        if "unread" in states:
            return replace(nothing, state="not applied", because="the cursor of the metric has not reached it")
        if "gone" in states and build.retained_from is not None:
            return replace(nothing, because=f"its metric keeps rows from {slice_day(build.retained_from)} on")
        what = "function makes no row of it" if build.language == "python" else "query leaves it out"
        return replace(nothing, because=f"its {what}")

    def _of_stream(
        self, build: Build, upstream: Build | None, plan: Plan | None
    ) -> tuple[set[str], list[dict[str, str | None]]]:
        """Return what the cursor says of the stream's rows of the event, and the keys that they belong to."""
        stream = stream_of(upstream)
        parts = () if plan is None or plan.event_grain else plan.key
        keys = ", ".join(f"({literal(part.sql)})::text" for part in parts)
        own = "true" if plan is None or plan.where is None else literal(plan.where)
        query = (
            f"SELECT DISTINCT state__, CASE WHEN state__ = 'in' THEN ARRAY[{keys}]::text[] END\n"
            f"FROM (\n    SELECT *, CASE WHEN {stream.applied()}\n"
            f"        THEN CASE WHEN ({own}) THEN 'in' WHEN {self._gone(build, plan)} THEN 'gone' ELSE 'left out' END\n"
            "        WHEN event_id = ANY (%(dead)s::text[]) THEN 'dead' ELSE 'unread' END AS state__\n"
            f"    FROM {self.log if upstream is None else stream.table}"
            " WHERE txid = %(at_txid)s::xid8 AND position = %(at_position)s::bigint\n"
            "    OFFSET 0\n) AS e"
        )
        rows = self.conn.execute(query.encode(), {**parameters_of(self.conn, build), **self.at}).fetchall()
        names = [part.name for part in parts]
        found = [dict(zip(names, values, strict=True)) for state, values in rows if state == "in"]
        return {str(state) for state, _ in rows}, found

    @staticmethod
    def _gone(build: Build, plan: Plan | None) -> str:
        """Return the condition that a row of the stream is of a slice that a build does not keep."""
        slicing = None if plan is None or build.retained_from is None else time_slicing(plan)
        return "false" if slicing is None else f"NOT {literal(slicing.retained(str(build.retained_from)))}"

    def _of_events(self, build: Build) -> list[RowOf]:
        rows = self.conn.execute(
            f"SELECT event_id FROM refold_builds.{ident(build.table_name)}"
            " WHERE txid = %(at_txid)s::xid8 AND position = %(at_position)s::bigint ORDER BY ordinal".encode(),
            self.at,
        ).fetchall()
        return [RowOf({"event_id": str(event_id)}, shown=True) for (event_id,) in rows]

    def _row(self, build: Build, key: Mapping[str, str | None]) -> RowOf:
        names = tuple(key)
        row_key = RowKey(names, tuple(types_of(self.conn, build, names)), tuple(key.values()))
        query = f"SELECT EXISTS (SELECT FROM metrics.{ident(build.projection)} WHERE {row_key.of_key()})"
        try:
            with self.conn.transaction():
                return RowOf(dict(key), bool(one_row(self.conn, query.encode(), row_key.parameters)[0]))
        except ANOTHER_VIEW:
            return RowOf(dict(key), shown=False)
