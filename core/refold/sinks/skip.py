"""Letting go of rows that a sink of grain `events` has not delivered, because a person asks for it.

The sink reads on from a later place of its stream, and rows before it that its receiver refused are dropped. What is
let go is counted first, in a snapshot, under the sink's lease, so that nobody delivers meanwhile. One short transaction
then moves the cursor, if that is still where it was, and gives the lease back. Killed before its commit, nothing has
happened but that the lease has yet to end.

A cursor knows transactions, not positions. So it moves over every transaction that wrote before the position, and those
of its rows that lie behind the position are named by messages, as rows are that a heal changes: these are delivered.
Rows before the position that messages name already are let go with the others.
"""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import psycopg
from psycopg import sql

from refold.errors import BuildError, InputError
from refold.model.sink import state as steps
from refold.model.stream.cursor import Cursor, Key, Snapshot, passed_over
from refold.model.stream.parameters import cursor_parameters
from refold.model.stream.slices import POSITION_BITS, position_slice
from refold.postgres.failpoints import failpoint
from refold.postgres.rows import one_row
from refold.postgres.snapshot import snapshot
from refold.sinks import stream
from refold.store import outbox, sinks, undelivered
from refold.store.builds.build import Build, find, lock
from refold.store.builds.compiled import stream_of
from refold.store.log.integrity import missing
from refold.store.sinks import Fenced, Sink

TRIES = 5
"""Times that the rows are counted again because the sink was delivered meanwhile."""


@dataclass(frozen=True, slots=True)
class Row:
    """A row that is let go.

    Args:
        position: position of its event in the log.
        event_id: the event; None if the log does not have it any more.
        recorded_at: when the log took it, UTC.
    """

    position: int
    event_id: str | None = None
    recorded_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Skip:
    """What a sink lets go.

    Args:
        sink: its name.
        position: the first position that it does not let go; None: all that its stream has by now.
        rows: rows that it has not delivered, and will not.
        first: the first of them.
        last: the last of them.
        refused: rows before the position that its receiver refused, by number.
        segments: archived segments that a purge does not keep for this sink any more.
        build_id: the build whose rows it delivers.
        cursor: what it has delivered.
        gone: the transactions that it passes over.
        named: the keys of those rows among them that messages name, behind the sink's cursor.
        others: rows of these transactions that it delivers nevertheless: slice, key and coordinates.
        slices: the slices of the rows that it lets go.
    """

    sink: str
    position: int | None
    rows: int
    first: Row | None
    last: Row | None
    refused: tuple[int, ...]
    segments: tuple[str, ...]
    build_id: int
    cursor: Cursor
    gone: Snapshot
    named: frozenset[str] = frozenset()
    others: tuple[tuple[int, str, Key], ...] = ()
    slices: tuple[int, ...] = ()

    @property
    def moved(self) -> Cursor:
        """Return the cursor afterwards."""
        return passed_over(self.cursor, self.gone)

    @property
    def nothing(self) -> bool:
        """Return whether the sink stays as it is."""
        return not self.rows and not self.refused and self.moved == self.cursor

    def as_dict(self) -> dict[str, Any]:
        """Return what a person may want to know, for JSON."""
        return {
            "sink": self.sink,
            "position": self.position,
            "rows": self.rows,
            **{
                name: None
                if one is None
                else {"position": one.position, "event_id": one.event_id, "recorded_at": one.recorded_at}
                for name, one in (("first", self.first), ("last", self.last))
            },
            "refused": len(self.refused),
            "segments": list(self.segments),
        }


def look(conn: psycopg.Connection, sink: Sink, to: int | datetime | None) -> Skip:
    """Return what a sink would let go; changes nothing.

    Args:
        conn: acts as refold_worker, in autocommit mode.
        sink: the sink.
        to: the first position that it does not let go; or a time, which stands for the position of the first event that
            the log took then or later; None: all that its stream has by now.

    Raises:
        InputError: the sink has no place in a stream, or the position is not in the log.
    """
    if sink.grain != "events":
        raise InputError(
            f"{sink.name} delivers the newest rows of {sink.projection}, and no purge waits for it",
            remedy='Only a sink with grain = "events" has a place in a stream.',
        )
    position = _position(conn, to)
    txid = None if position is None else _newest_before(conn, position)
    state, _ = sinks.state(conn, sink.sink_id)
    build = _build(conn, sink, state)
    # Of all else its stream has no row yet, or not every one.
    gone = build.cursor.whole if txid is None else build.cursor.whole.capped(txid + 1)
    return _counted(conn, sink, position, gone, build.build_id)


def skip(
    conn: psycopg.Connection,
    sink: Sink,
    seen: Skip,
    reason: str,
    done: Callable[[Skip], None] = lambda skip: None,
) -> Skip:
    """Let rows go; return what was let go.

    Args:
        conn: acts as refold_worker, in autocommit mode.
        sink: the sink.
        seen: what `look` returned: nothing is let go that it does not count.
        reason: why; recorded with the rows that the receiver refused.
        done: called in the transaction that lets them go.

    Raises:
        BuildError: the sink was switched to another build, dropped, or is delivered too fast to count its rows.
    """
    me = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
    try:
        return _skip(conn, sink, seen, reason, done, me)
    except BaseException:
        with suppress(Fenced, psycopg.Error), conn.transaction():
            sinks.step(conn, sink.sink_id, lambda now, at: steps.let_go(now) if now.holder == me else None)
        raise


def _skip(conn: psycopg.Connection, sink: Sink, seen: Skip, reason: str, done: Callable[[Skip], None], me: str) -> Skip:
    for _ in range(TRIES):
        with conn.transaction():
            _step(conn, sink, lambda now, at: steps.taken(now, at, me))
        failpoint("skip_leased")
        found = _counted(conn, sink, seen.position, seen.gone, seen.build_id)
        # What the receiver refused since was not seen.
        found = replace(found, refused=tuple(one for one in found.refused if one in seen.refused))
        failpoint("skip_looked")
        with conn.transaction():
            moved = _let_go(conn, sink, found, reason)
            if moved:
                done(found)
                failpoint("skip_recorded")
        if moved:
            failpoint("skip_committed")
            return found
    raise BuildError(
        f"{sink.name} is delivered faster than its rows are counted",
        remedy=f"Nothing has happened. Pause it first: `refold sinks pause {sink.name}`.",
    )


def _let_go(conn: psycopg.Connection, sink: Sink, found: Skip, reason: str) -> bool:
    """Move the cursor, and drop refused rows, in the caller's transaction; return False if the cursor is elsewhere."""
    # No page, heal or release sends messages meanwhile.
    build = lock(conn, found.build_id, wait=True)
    if build is None:
        raise _switched(sink)
    if not sinks.lock(conn, sink.sink_id):
        raise BuildError(f"the sink {sink.name} was dropped meanwhile", remedy="Nothing has happened.")
    state, _ = sinks.state(conn, sink.sink_id)
    if state.build_id != found.build_id:
        raise _switched(sink)
    if state.cursor != found.cursor:
        return False
    # Messages name rows behind the cursor. Those that it passes over now came by no page, and no message names them.
    waits = outbox.read(conn, sink.sink_id, state.passed, ["event_id"], outbox.EVERY)
    kept = stream.passed(conn, build, found.cursor, waits.keys) if waits.messages else []
    keys = {key: slice_ for slice_, key in kept if key not in found.named} | {
        key: slice_ for slice_, key, _ in found.others
    }
    sinks.add(conn, steps.skipped(state, found.moved))
    outbox.delete(conn, sink.sink_id, waits.messages)
    if keys:
        outbox.send(conn, sink.sink_id, ["event_id"], _given(keys))
    failpoint("skip_moved")
    if state.following:
        sinks.doubt(conn, sink.sink_id, found.slices)
    undelivered.drop_some(conn, found.refused, reason)
    return True


def _given(keys: Mapping[str, int]) -> sql.Composable:
    return sql.SQL(
        "SELECT k.slice, k.key::jsonb AS key FROM unnest({}::integer[], {}::text[]) AS k (slice, key)"
    ).format(sql.Literal(list(keys.values())), sql.Literal(list(keys)))


def _counted(conn: psycopg.Connection, sink: Sink, position: int | None, gone: Snapshot, build_id: int) -> Skip:
    """Count the rows that a sink would let go, in one snapshot."""
    with snapshot(conn):
        state, _ = sinks.state(conn, sink.sink_id)
        build = _build(conn, sink, state)
        if build.build_id != build_id:
            raise _switched(sink)
        assert state.cursor is not None
        rows = stream_of(build)
        waiting = (
            f"SELECT txid, position, ordinal, event_id FROM {rows.table}"
            f" WHERE txid >= %(from)s::xid8 AND NOT {rows.passed()}"
            " AND pg_visible_in_snapshot(txid, %(gone)s::pg_snapshot)"
        )
        parameters = cursor_parameters(state.cursor) | {
            "from": str(state.cursor.done.xmin),
            "gone": str(gone),
            "at": position,
        }
        named = _in_messages(conn, sink, state, build, position)
        number, first, last, slices = one_row(
            conn,
            (
                f"SELECT count(*), min(position), max(position), array_agg(DISTINCT {position_slice()})"
                f" FROM ({waiting} AND (%(at)s::bigint IS NULL OR position < %(at)s::bigint)) AS waiting"
            ).encode(),
            parameters,
        )
        others = conn.execute(
            (
                f"SELECT {position_slice()}, {stream.KEY}, txid::text::bigint, position, ordinal"
                f" FROM ({waiting} AND position >= %(at)s::bigint) AS waiting"
            ).encode(),
            parameters,
        ).fetchall()
        waits = undelivered.positions(conn, sink.sink_id)
        refused = [number for number, at in waits.items() if position is None or at is None or at < position]
        ends = [at for at in (first, last) if at is not None] + [at.position for _, at in named.values()]
        found = Skip(
            sink.name,
            position,
            int(number) + len(named),
            Row(min(ends)) if ends else None,
            Row(max(ends)) if ends else None,
            tuple(refused),
            (),
            build.build_id,
            state.cursor,
            gone,
            frozenset(named),
            tuple((int(slice_), key, Key(*at)) for slice_, key, *at in others),
            tuple({*(slices or ()), *(slice_ for slice_, _ in named.values())}),
        )
        found = replace(found, segments=_released(conn, found, waits))
    return replace(found, first=_named(conn, found.first), last=_named(conn, found.last))


def _in_messages(
    conn: psycopg.Connection, sink: Sink, state: steps.SinkState, build: Build, position: int | None
) -> dict[str, tuple[int, Key]]:
    """Return the rows before a position that messages name and the cursor has passed, by key: slice and coordinates."""
    assert state.cursor is not None
    waits = outbox.read(conn, sink.sink_id, state.passed, ["event_id"], outbox.EVERY)
    at = stream.coordinates(conn, build, [key for _, key in waits.keys]) if waits.messages else {}
    return {
        key: (slice_, at[key])
        for slice_, key in waits.keys
        if key in at and state.cursor.applied(at[key]) and (position is None or at[key].position < position)
    }


def _released(conn: psycopg.Connection, found: Skip, refused: Mapping[int, int | None]) -> tuple[str, ...]:
    """Return the archived segments that a purge keeps for the sink, and would not keep afterwards.

    Args:
        conn: the transaction in which all else was counted.
        found: what the sink lets go.
        refused: the positions of rows that its receiver refuses, by number.
    """
    kept = [at for number, at in refused.items() if at is not None and number not in found.refused]
    dropped = [at for number in found.refused if (at := refused.get(number)) is not None]
    before, after = found.cursor.done.xmin, found.moved.done.xmin
    rows = conn.execute(
        "SELECT lower_position, upper_position, coalesce(upto::text::bigint, 0) FROM refold.archives"
        " WHERE state = 'verified' ORDER BY lower_position"
    ).fetchall()

    def any_in(positions: list[int], lower: int, upper: int) -> bool:
        return any(lower <= at < upper for at in positions)

    return tuple(
        missing(lower)
        for lower, upper, upto in rows
        if (upto >= before or any_in(dropped, lower, upper)) and upto < after and not any_in(kept, lower, upper)
    )


def _named(conn: psycopg.Connection, row: Row | None) -> Row | None:
    """Return a row with what the log says of its event."""
    if row is None:
        return None
    found = conn.execute(
        "SELECT event_id, recorded_at FROM refold.events WHERE position = %s", (row.position,)
    ).fetchone()
    return row if found is None else Row(row.position, *found)


def _build(conn: psycopg.Connection, sink: Sink, state: steps.SinkState) -> Build:
    """Return the live build of a sink that reads its stream.

    Raises:
        InputError: it reads none now.
    """
    found = [] if state.build_id is None else find(conn, "b.build_id = %s AND b.state = 'live'", state.build_id)
    if not found:
        raise InputError(
            f"{sink.name} delivers nothing, because no build of {sink.projection} is live, and no purge waits for it"
        )
    if state.cursor is None:
        raise InputError(
            f"{sink.name} compares slices, and so no purge waits for rows of it that come",
            remedy=f"`refold sinks undelivered {sink.name} --drop` lets go of rows that its receiver refused.",
        )
    return found[0]


def _switched(sink: Sink) -> BuildError:
    return BuildError(
        f"{sink.name} has another build of {sink.projection} to deliver by now",
        remedy="Nothing has happened. Run the command again.",
    )


def _step(conn: psycopg.Connection, sink: Sink, to: sinks.Step) -> None:
    try:
        sinks.step(conn, sink.sink_id, to)
    except Fenced as error:
        raise BuildError(f"the sink {sink.name} was dropped meanwhile", remedy="Nothing has happened.") from error


def _position(conn: psycopg.Connection, to: int | datetime | None) -> int | None:
    """Return the first position that stays.

    Raises:
        InputError: the log does not have it, or not any more.
    """
    if to is None:
        return None
    floor, last, now = one_row(
        conn,
        "SELECT refold.log_floor(), s.last_value + s.is_called::integer, clock_timestamp()"
        " FROM refold.events_position AS s",
    )
    if isinstance(to, int):
        if not floor <= to <= last:
            raise InputError(
                f"position {to:,} is not in the log, whose positions go from {floor:,} to {last:,}",
                remedy="`refold archive purge --dry-run` names the position that a segment needs.",
            )
        return to
    if to > now:
        raise InputError(f"{to:%Y-%m-%d %H:%M:%S %Z} is yet to come", remedy="`--to now` lets go of all that waits.")
    # Everything in a slice was taken before it was sealed.
    (begin,) = one_row(
        conn,
        """
        SELECT coalesce((SELECT min(s.slice) FROM refold.sealed_slices AS s
                         WHERE s.sealed_at IS NULL OR s.sealed_at >= %s),
                        (SELECT max(s.slice) + 1 FROM refold.sealed_slices AS s), 0)::bigint
        """,
        (to,),
    )
    begin <<= POSITION_BITS
    if begin < floor and floor > 1:
        raise InputError(
            f"the log begins at position {floor:,}, which it took later than {to:%Y-%m-%d %H:%M:%S %Z}",
            remedy=f"Give a later time, or a position from {floor:,} on.",
        )
    first = conn.execute(
        "SELECT position FROM refold.events WHERE position >= %s AND recorded_at >= %s ORDER BY position LIMIT 1",
        (begin, to),
    ).fetchone()
    return int(last if first is None else first[0])


def _newest_before(conn: psycopg.Connection, position: int) -> int:
    """Return the greatest id of the transactions that wrote before a position, as far as they have ended."""
    (found,) = one_row(
        conn,
        """
        SELECT greatest(
            (SELECT max(s.upto::text::bigint) FROM refold.sealed_slices AS s
             WHERE s.sealed_at IS NOT NULL AND s.slice < %(edge)s),
            (SELECT max(a.upto::text::bigint) FROM refold.archives AS a
             WHERE a.state = 'verified' AND a.upper_position <= %(position)s),
            (SELECT max(e.txid::text::bigint) FROM refold.events AS e
             WHERE e.position < %(position)s AND e.position >= least(%(edge)s, (
                 SELECT min(s.slice) FROM refold.sealed_slices AS s WHERE s.sealed_at IS NULL))::bigint << %(bits)s),
            0)
        """,
        {"position": position, "edge": position >> POSITION_BITS, "bits": POSITION_BITS},
    )
    return int(found)
