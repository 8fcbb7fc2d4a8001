"""Which slices a metric keeps: what a person may ask for, and what it means for a build.

Old rows can be told from new ones only if the key has a day. The rows of a stream stay: each is an event, and whoever
reads the stream reads them again when it is rebuilt, healed, or recomputes a key.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

import psycopg

from refold.errors import DefinitionError, InputError
from refold.model.projection.definition import Definition
from refold.model.sql_text import literal
from refold.model.stream.slices import Slicing, slice_day
from refold.model.upkeep.retained import time_slicing
from refold.postgres.rows import one_row
from refold.store import retentions
from refold.store.builds.build import EVENT_GRAIN, Build, live, live_builds, readers_of
from refold.store.builds.checksums import before
from refold.store.builds.compiled import Compiler
from refold.store.builds.lookup import known
from refold.store.retentions import WANTED_FROM, Retention

A_DAY = "Add a day to its key, such as (ts AT TIME ZONE 'UTC')::date AS day."


@dataclass(frozen=True, slots=True)
class Wish:
    """How long a person wants the rows of a metric to be kept; all, if both are None.

    Args:
        keep: an SQL interval of at least a day.
        keep_from: the first day.
    """

    keep: str | None = None
    keep_from: date | None = None

    @property
    def all(self) -> bool:
        """Return whether all rows are to be kept."""
        return self.keep is None and self.keep_from is None


@dataclass(frozen=True, slots=True)
class Keeping:
    """What a metric keeps.

    Args:
        metric: the projection.
        wanted: how long its rows are to be kept; None: for ever.
        kept_from: the first day whose rows its live build keeps; None: it keeps all.
        wanted_from: the first day that it is to keep, as of now; None: all.
    """

    metric: str
    wanted: Retention | None
    kept_from: str | None
    wanted_from: date | None = None


@dataclass(frozen=True, slots=True)
class Overdue:
    """Rows that should have gone more than a day ago.

    Args:
        metric: the projection.
        wanted: how long its rows are to be kept.
        kept_from: the first day whose rows its live build keeps; None: it keeps all.
        slices: slices that are due.
        rows: rows that are due, of the table that analysts see.
    """

    metric: str
    wanted: Retention
    kept_from: str | None
    slices: int
    rows: int


@dataclass(frozen=True, slots=True)
class Leaving:
    """What goes if a wish is granted.

    Args:
        metric: the projection.
        first: the number of the first slice that is kept.
        kept_from: the day of this slice.
        slices: slices that go.
        rows: rows that go, of the table that analysts see.
        first_day: the oldest of these slices; None without any.
        last_day: the newest.
    """

    metric: str
    first: int
    kept_from: str
    slices: int
    rows: int
    first_day: str | None
    last_day: str | None


def keeping(conn: psycopg.Connection) -> list[Keeping]:
    """Return the metrics of which not all rows are kept, or not all are to be kept; `conn` acts as a reader."""
    wanted = {one.projection: one for one in retentions.every(conn)}
    live = conn.execute(
        "SELECT projection, retained_from FROM refold.builds_now WHERE state = 'live' AND retained_from IS NOT NULL"
    ).fetchall()
    found = {str(name): slice_day(int(number)) for name, number in live}
    days: dict[str, date] = dict(
        conn.execute(f"SELECT r.projection, ({WANTED_FROM})::date FROM refold.retentions AS r".encode()).fetchall()
    )
    return [
        Keeping(name, wanted.get(name), found.get(name), days.get(name))
        for name in sorted(wanted.keys() | found.keys())
    ]


def overdue(conn: psycopg.Connection, compiler: Compiler) -> list[Overdue]:
    """Return the live metrics with rows that have been due for more than a day: workers let them go each ten minutes.

    Args:
        conn: acts as one of `READERS` that may read definitions.
        compiler: makes the SQL of builds.
    """
    found = []
    for wanted in retentions.every(conn):
        build = live(conn, wanted.projection)
        (young,) = one_row(conn, "SELECT %s > clock_timestamp() - interval '1 day'", (wanted.set_at,))
        if young or build is None or not build.loaded or build.upkeep in EVENT_GRAIN:
            continue
        slicing = time_slicing(compiler.of(conn, build).plan)
        if slicing is None:
            continue
        wish = Wish(wanted.keep, wanted.keep_from)
        if before(conn, build.build_id, _first(conn, slicing, wish, ago="1 day")):
            due = before(conn, build.build_id, _first(conn, slicing, wish))
            kept = None if build.retained_from is None else slice_day(build.retained_from)
            found.append(Overdue(wanted.projection, wanted, kept, len(due), sum(rows for _, rows, _ in due)))
    return found


def leaving(conn: psycopg.Connection, compiler: Compiler, name: str, wish: Wish) -> Leaving:
    """Return what goes from the live build of a metric if a wish is granted.

    Args:
        conn: acts as one of `READERS` that may read definitions.
        compiler: makes the SQL of builds.
        name: the metric.
        wish: for how long its rows are to be kept.

    Raises:
        BuildError: the metric is not live.
        InputError: its rows cannot go, the day lies ahead, or rows would have to be kept that are gone.
    """
    build = known(name, {one.projection: one for one in live_builds(conn)})
    slicing = _slicing(conn, compiler, build)
    first = _first(conn, slicing, wish)
    if first > _first(conn, slicing, Wish(keep="0 days")):
        raise InputError(f"{wish.keep_from} lies ahead", remedy="Give a day that has begun, in UTC.")
    if build.retained_from is not None and first < build.retained_from:
        raise InputError(
            f"{name} keeps its rows from {slice_day(build.retained_from)} on; those since {slice_day(first)} are gone",
            remedy=f"The log or the archive has their events: run `refold retain {name} --forever`, then"
            f" `refold rebuild {name}`, then this command again.",
        )
    going = before(conn, build.build_id, first)
    return Leaving(
        name,
        first,
        slice_day(first),
        len(going),
        sum(rows for _, rows, _ in going),
        slicing.name(going[0][0]) if going else None,
        slicing.name(going[-1][0]) if going else None,
    )


def keep_all(conn: psycopg.Connection, name: str, *, dry_run: bool = False) -> str | None:
    """Keep all rows of a metric from the next rebuild on; return the first day that it has now, None if it has all.

    Args:
        conn: acts as refold_worker.
        name: the metric; it need not be live any more.
        dry_run: change nothing.

    Raises:
        BuildError: there is no such metric, and nothing was said of it.
    """
    if retentions.find(conn, name) is None:
        known(name, {one.projection: one for one in live_builds(conn)})
    elif not dry_run:
        retentions.forget(conn, name)
    build = live(conn, name)
    return None if build is None or build.retained_from is None else slice_day(build.retained_from)


def begins_at(conn: psycopg.Connection, definition: Definition) -> int | None:
    """Return the first slice that a new build of a projection keeps; None for all.

    Args:
        conn: acts as refold_worker.
        definition: the definition of the build.

    Raises:
        DefinitionError: the rows of the metric are not kept for ever, and the definition has no slices that could go.
    """
    wanted = retentions.find(conn, definition.name)
    if wanted is None:
        return None
    slicing = None if definition.transform is not None else time_slicing(definition.plan)
    if slicing is None:
        raise DefinitionError(
            f"rows of {definition.name} are not kept for ever ({wanted.words}), and with this key old rows cannot be"
            " told from new ones",
            path=definition.path,
            remedy=f"{A_DAY} Or run `refold retain {definition.name} --forever` first.",
        )
    return first_of(conn, slicing, wanted)


def first_of(conn: psycopg.Connection, slicing: Slicing, retention: Retention) -> int:
    """Return the first slice that a metric is to keep now.

    Args:
        conn: a connection.
        slicing: how its build is divided.
        retention: how long its rows are to be kept.
    """
    return _first(conn, slicing, Wish(retention.keep, retention.keep_from))


def _first(conn: psycopg.Connection, slicing: Slicing, wish: Wish, *, ago: str = "0") -> int:
    """Return the slice of the first day that is kept: of a week or month in which it is, all of it stays.

    Args:
        conn: a connection.
        slicing: how the build is divided.
        wish: how long its rows are to be kept.
        ago: as of so long ago, an SQL interval.
    """
    row = one_row(
        conn,
        f"SELECT {literal(slicing.event)} FROM (\n"
        "    SELECT coalesce(%(from)s::date::timestamp,\n"
        "        ((clock_timestamp() - %(ago)s::interval) AT TIME ZONE 'UTC')::date - %(keep)s::interval)"
        " AT TIME ZONE 'UTC' AS ts\n"
        ") AS cutoff".encode(),
        {"from": wish.keep_from, "keep": wish.keep, "ago": ago},
    )
    return int(row[0])


def _slicing(conn: psycopg.Connection, compiler: Compiler, build: Build) -> Slicing:
    name = build.projection
    if build.upkeep in EVENT_GRAIN:
        readers = sorted({one.projection for one in readers_of(conn, build.build_id)})
        told = f"; {', '.join(readers)} {'reads' if len(readers) == 1 else 'read'} them again" if readers else ""
        raise InputError(
            f"{name} has a row for each event, and these rows stay{told}",
            remedy="Retain a metric that has a day in its key instead.",
        )
    slicing = time_slicing(compiler.of(conn, build).plan)
    if slicing is None:
        raise InputError(
            f"the key of {name} has no day, so that old rows cannot be told from new ones",
            remedy=f"{A_DAY} Then deploy it, and run this command again.",
        )
    return slicing
