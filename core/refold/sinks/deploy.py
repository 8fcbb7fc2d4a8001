"""Deploying sinks: from files to rows of `refold.sinks`, queues, and a first state; and dropping them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

import psycopg

from refold.errors import BuildError, RefoldError
from refold.model.projection.definition import Definition
from refold.model.sink.sink_file import SinkFile
from refold.model.sink.state import SinkState, at_cursor, switched
from refold.model.stream.cursor import EMPTY, Cursor
from refold.postgres.rows import one_row
from refold.sinks.kinds.registry import reads_back
from refold.sinks.read import refuse_unfit, source
from refold.store import outbox, sinks
from refold.store.builds.build import live, live_builds, lock
from refold.store.builds.compiled import Compiler
from refold.store.sinks import Sink, epoch_at
from refold.suggest import did_you_mean

HELD_S = 2
"""Seconds to wait for a session that holds the queue of a sink that is dropped."""

Action = Literal["new", "changed", "unchanged", "without file"]


@dataclass(frozen=True, slots=True)
class SinkChange:
    """A line of the plan for sinks.

    Args:
        name: the sink.
        action: `new` and `changed` come from the file; `without file` is left alone.
        because: the reason, in a few words.
        file: the file, if there is one.
        recorded: the sink as it was deployed last, if it was.
    """

    name: str
    action: Action
    because: str
    file: SinkFile | None = None
    recorded: Sink | None = None

    @property
    def makes(self) -> bool:
        """Return whether a deploy changes the database for it."""
        return self.action in ("new", "changed")


def plan(conn: psycopg.Connection, files: Sequence[SinkFile], named: Collection[str]) -> list[SinkChange]:
    """Return what a deploy of these sinks would change.

    Args:
        conn: may read refold's tables.
        files: the sinks whose files are right.
        named: all names that have a file.
    """
    recorded = {one.name: one for one in sinks.every(conn)}
    found = [_change(file, recorded.get(file.name)) for file in files]
    return found + [
        SinkChange(name, "without file", "no file defines it: `refold sinks drop` removes it", recorded=one)
        for name, one in recorded.items()
        if name not in named
    ]


def _change(file: SinkFile, recorded: Sink | None) -> SinkChange:
    to = f"{file.grain} of {file.projection} → {file.kind}"
    if recorded is None:
        return SinkChange(file.name, "new", to, file)
    if recorded.definition != file.source:
        again = "delivery goes on" if recorded.once else "workers compare all slices with the receiver again"
        return SinkChange(file.name, "changed", f"{to}; its file changed, and {again}", file, recorded)
    return SinkChange(file.name, "unchanged", to, file, recorded)


def refused(
    conn: psycopg.Connection, files: Sequence[SinkFile], compiler: Compiler, coming: Mapping[str, Definition | None]
) -> list[RefoldError]:
    """Return the errors for which sinks cannot deliver their metrics.

    Args:
        conn: acts as refold_worker.
        files: the sinks.
        compiler: makes the SQL of the builds.
        coming: the metrics that the same deploy builds; None for one with mistakes.
    """
    builds = {build.projection: build for build in live_builds(conn)}
    recorded = {sink.name: sink for sink in sinks.every(conn)}
    found: list[RefoldError] = []
    for file in files:
        if file.name in recorded and recorded[file.name].grain != file.grain:
            found.append(
                file.wrong(
                    "grain",
                    f"{file.name} delivers {recorded[file.name].grain}, and the grain of a sink stays",
                    f"First run `refold sinks drop {file.name}`, or give the file another name.",
                )
            )
        build = builds.get(file.projection)
        definition = coming.get(file.projection)
        if build is None and definition is not None:
            try:
                refuse_unfit(definition.plan, file.grain)
            except BuildError as error:
                found.append(file.wrong("projection", str(error), error.remedy))
        if build is None:
            if file.projection not in coming:
                known = [*builds, *coming]
                found.append(
                    file.wrong(
                        "projection",
                        f"there is no metric {file.projection!r}.{did_you_mean(file.projection, known)}",
                        "`refold status` shows the metrics.",
                    )
                )
            continue
        try:
            source(conn, file.name, file.grain, build, compiler.of(conn, build))
        except BuildError as error:
            found.append(file.wrong("projection", str(error), error.remedy))
    return found


def deploy(conn: psycopg.Connection, change: SinkChange) -> None:
    """Make a sink as its file says, in one transaction.

    A sink that is new or changed gives its receiver every slice that it has not confirmed, under a new epoch. A new one
    of grain `events` gives the rows in the order of their stream; a changed one that gives rows once goes on.

    Args:
        conn: acts as refold_worker, in autocommit mode.
        change: the change, of the plan.
    """
    file = change.file
    assert file is not None
    stream = file.grain == "events"
    once = stream and not reads_back(file.kind)
    with conn.transaction():
        build = live(conn, file.projection)
        if change.recorded is None:
            sink_id, now = one_row(
                conn,
                "INSERT INTO refold.sinks (name, projection, grain, kind, definition, once)"
                " VALUES (%s, %s, %s, %s, %s, %s) RETURNING sink_id, clock_timestamp()",
                (file.name, file.projection, file.grain, file.kind, file.source, once),
            )
            outbox.create(conn, sink_id)
            first = SinkState(sink_id, 1, "active", False, None if build is None else build.build_id, epoch_at(now))
            sinks.add(conn, at_cursor(first, Cursor(EMPTY)) if stream else first)
            return
        sink_id = change.recorded.sink_id
        _let_pages_end(conn, sink_id)
        sinks.lock(conn, sink_id)
        sinks.detach(conn, sink_id)
        outbox.purge(conn, sink_id)
        conn.execute(
            "UPDATE refold.sinks SET projection = %s, kind = %s, definition = %s, once = %s, changed_at = now(),"
            " changed_by = session_user WHERE sink_id = %s",
            (file.projection, file.kind, file.source, once, sink_id),
        )
        another = (change.recorded.projection, change.recorded.kind) != (file.projection, file.kind)

        def changed(now: SinkState, at: datetime) -> SinkState:
            new = switched(now, None if build is None else build.build_id, epoch_at(at), once=once)
            return at_cursor(new, Cursor(EMPTY)) if once and another else new

        sinks.step(conn, sink_id, changed)
        sinks.forget_checksums(conn, sink_id)


def drop(conn: psycopg.Connection, sink: Sink) -> None:
    """Remove a sink and its queue; what the receiver has stays there.

    Args:
        conn: acts as refold_worker, in autocommit mode.
        sink: the sink.

    Raises:
        BuildError: a session holds the queue, such as a backup. Nothing is changed then.
    """
    try:
        with conn.transaction():
            _let_pages_end(conn, sink.sink_id)
            sinks.detach(conn, sink.sink_id)
            sinks.lock(conn, sink.sink_id)
            # Pages of the metric wait meanwhile.
            conn.execute(f"SET LOCAL lock_timeout = '{HELD_S}s'")
            outbox.drop(conn, sink.sink_id)
            conn.execute("DELETE FROM refold.sinks WHERE sink_id = %s", (sink.sink_id,))
    except psycopg.errors.LockNotAvailable as error:
        raise BuildError(
            f"a session has held the queue of {sink.name} for {HELD_S} s: perhaps a backup",
            remedy="Run the command again when it has ended. `refold sinks pause` stops deliveries until then.",
        ) from error


def collapse(conn: psycopg.Connection, sink_id: int) -> None:
    """Drop the messages of a sink, and let it compare slices instead.

    Args:
        conn: acts as refold_worker, in autocommit mode.
        sink_id: the sink.
    """
    with conn.transaction():
        _let_pages_end(conn, sink_id)
        # A deliverer locks the sink before it deletes messages, so this must come before they are dropped.
        sinks.lock(conn, sink_id)
        sinks.detach(conn, sink_id)
        outbox.purge(conn, sink_id)
        sinks.collapse_all(conn, [sink_id])


def _let_pages_end(conn: psycopg.Connection, sink_id: int) -> None:
    """Lock the builds that send keys to a sink: their pages are committed, and no other writes to its queue."""
    rows = conn.execute(
        "SELECT build_id FROM refold.builds WHERE %s = ANY (sinks) ORDER BY build_id", (sink_id,)
    ).fetchall()
    for (build_id,) in rows:
        lock(conn, build_id, wait=True)
