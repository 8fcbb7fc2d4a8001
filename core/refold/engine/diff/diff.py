"""The difference between the live build of a metric and another build of it.

One snapshot shows both builds, their cursors and the log. A slice whose kept checksums agree is not read. So rows count
as refold wrote them: a row that was changed by hand in such a slice is found by an audit, and not here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import psycopg

from refold.engine.diff.result import ColumnDiff, Diff, Rows, Sample, Slices
from refold.engine.diff.sides import Compared, compared
from refold.errors import BuildError
from refold.model.diff.query import AFTER, BEFORE, Comparison, parameters
from refold.model.diff.shape import Shape, Shown, shape_of, sums_tell
from refold.model.sql_text import literal, where
from refold.model.stream.slices import EVERY_SLICE, NO_DAY, Range, multirange, runs, slice_day
from refold.postgres.rows import one_row
from refold.postgres.session import plan_freely
from refold.store.builds.build import Build, find, live_builds
from refold.store.builds.compiled import Compiler
from refold.store.builds.dead_letters import excluded_event_ids
from refold.store.builds.lookup import known
from refold.store.log.log_snapshot import log_snapshot

SAMPLES = 20
"""Rows of each kind that a difference shows by default."""

_KEPT = """
WITH sums AS (
    SELECT slice, coalesce(sum(rows) FILTER (WHERE build_id = %(before)s), 0)::bigint AS before_rows,
           coalesce(sum(hash) FILTER (WHERE build_id = %(before)s), 0) AS before_hash,
           coalesce(sum(rows) FILTER (WHERE build_id = %(after)s), 0)::bigint AS after_rows,
           coalesce(sum(hash) FILTER (WHERE build_id = %(after)s), 0) AS after_hash
    FROM (
        SELECT build_id, relation, slice, rows, hash FROM refold.checksums
        UNION ALL SELECT build_id, relation, slice, rows, hash FROM refold.checksum_changes
    ) AS kept
    WHERE build_id IN (%(before)s, %(after)s) AND relation = 0 AND slice <@ %(ranges)s::int4multirange
    GROUP BY slice
), judged AS (
    SELECT slice, before_rows, (before_rows, before_hash) = (after_rows, after_hash) AS agree FROM sums
    WHERE before_rows > 0 OR after_rows > 0 OR before_hash <> after_hash
)
SELECT count(*) FILTER (WHERE agree), coalesce(sum(before_rows) FILTER (WHERE agree), 0)::bigint,
       array_agg(slice ORDER BY slice) FILTER (WHERE NOT agree)
FROM judged
"""


def diff(
    conn: psycopg.Connection, compiler: Compiler, name: str, *, number: int | None = None, samples: int = SAMPLES
) -> Diff:
    """Return how the live build of a metric and another build of it differ.

    Args:
        conn: acts as one of `EVIDENCE`, in autocommit mode.
        compiler: makes the SQL of builds.
        name: the metric.
        number: the number of the other build; None for the build that waits to go live.
        samples: most rows of each kind to return.

    Raises:
        BuildError: the metric is not live, there is no such build, or it is still loading.
    """
    with differing(conn, compiler, name, number) as pair:
        return pair.diff(samples)


@dataclass(frozen=True, slots=True)
class Pair:
    """Two builds in a snapshot.

    Args:
        conn: the snapshot.
        before: the live build.
        after: the other build.
        parameters: the cursors of both, see `refold.model.diff.query.parameters`.
    """

    conn: psycopg.Connection
    before: Compared
    after: Compared
    parameters: dict[str, str]

    def diff(self, samples: int, *, skip: bool = True) -> Diff:
        """Return how the builds differ.

        Args:
            samples: most rows of each kind to return.
            skip: whether to pass over slices whose checksums agree.
        """
        shape = shape_of(self.before.shown, self.after.shown)
        if not shape.comparable:
            rows = Rows(added=self._rows(self.after.shown), removed=self._rows(self.before.shown))
            return self._made(shape, rows, Slices())
        slices = Slices()
        ranges = self._kept_by_both()
        if skip and sums_tell(self.before.shown, self.after.shown):
            equal, unread, wrong = one_row(
                self.conn,
                _KEPT,
                {
                    "before": self.before.build.build_id,
                    "after": self.after.build.build_id,
                    "ranges": multirange(ranges),
                },
            )
            slices = Slices(int(equal), int(unread), len(wrong or ()))
            if not wrong:
                return self._made(shape, Rows(), slices)
            ranges = runs(wrong)
        return self._compared(shape, slices, ranges, samples)

    @property
    def kept_from(self) -> int | None:
        """Return the first slice that both builds keep; None if they keep the same slices."""
        firsts = [one.build.retained_from for one in (self.before, self.after)]
        if firsts[0] == firsts[1] or not all(one.shown.slicing.of_time for one in (self.before, self.after)):
            return None
        return max(one for one in firsts if one is not None)

    def _kept_by_both(self) -> Sequence[Range]:
        """Return the slices that both builds keep: what one has let go is no difference."""
        first = self.kept_from
        return EVERY_SLICE if first is None else ((NO_DAY, NO_DAY), (first, None))

    def _compared(self, shape: Shape, slices: Slices, ranges: Sequence[Range], samples: int) -> Diff:
        statements = Comparison(self.before.shown, self.after.shown, ranges)
        *kinds, first, last, differ, sums, most = one_row(self.conn, statements.counts().encode(), self.parameters)
        rows = Rows(*map(int, kinds))
        columns = tuple(
            ColumnDiff(one.name, int(number), total, greatest)
            for (one, _), number, total, greatest in zip(statements.columns, differ, sums, most, strict=True)
            if number
        )
        if first is not None:
            slicing = self.before.shown.slicing
            slices = replace(
                slices,
                first=slicing.name(first),
                last=slicing.name(last),
                first_number=int(first),
                by_day=slicing.kind == "day",
            )
        return self._made(shape, rows, slices, columns, self._samples(statements, rows, samples))

    def _samples(self, statements: Comparison, rows: Rows, samples: int) -> tuple[Sample, ...]:
        if not samples or not rows.differing + rows.in_flight:
            return ()
        found = self.conn.execute(statements.samples().encode(), {**self.parameters, "samples": samples}).fetchall()
        keys = [column.name for column in self.before.shown.key]
        names = [[column.name for column in one.shown.columns] for one in (self.before, self.after)]
        return tuple(
            Sample(
                kind,
                dict(zip(keys, key, strict=True)),
                None if before is None else dict(zip(names[0], before, strict=True)),
                None if after is None else dict(zip(names[1], after, strict=True)),
            )
            for kind, key, before, after in found
        )

    def _made(
        self,
        shape: Shape,
        rows: Rows,
        slices: Slices,
        columns: tuple[ColumnDiff, ...] = (),
        samples: tuple[Sample, ...] = (),
    ) -> Diff:
        name = self.before.build.projection
        kept_from = None if self.kept_from is None else slice_day(self.kept_from)
        return Diff(name, self.before.side, self.after.side, shape, rows, slices, columns, samples, kept_from)

    def _rows(self, shown: Shown) -> int:
        having = None if shown.having is None else f"({literal(shown.having)})"
        return int(one_row(self.conn, f"SELECT count(*) FROM {shown.table}{where(having)}".encode(), {})[0])


@contextmanager
def differing(conn: psycopg.Connection, compiler: Compiler, name: str, number: int | None = None) -> Iterator[Pair]:
    """Open a snapshot with the live build of a metric and another build of it; arguments and errors as for `diff`."""
    try:
        with log_snapshot(conn):
            plan_freely(conn)
            before = known(name, {one.projection: one for one in live_builds(conn)})
            after = _other(conn, before, number)
            found: dict[str, str] = {}
            for side, build in ((BEFORE, before), (AFTER, after)):
                found |= parameters(side, build.cursor, excluded_event_ids(conn, build))
            yield Pair(conn, compared(conn, compiler, before), compared(conn, compiler, after), found)
    except psycopg.errors.UndefinedTable as error:
        raise BuildError(
            f"a build of {name} was dropped while it was compared", remedy="Run the command again."
        ) from error


def _other(conn: psycopg.Connection, before: Build, number: int | None) -> Build:
    builds = find(conn, "b.projection = %s AND b.state <> 'dropped'", before.projection)
    others = [one for one in builds if one.build_id != before.build_id]
    listed = ", ".join(f"{one.number} ({one.state})" for one in others) or "none"
    if number is None:
        waiting = [one for one in others if one.state == "building"]
        if not waiting:
            raise BuildError(
                f"no build of {before.projection} waits to go live",
                remedy=f"`refold deploy --no-promote` makes one. --build N compares another build: {listed}.",
            )
        after = waiting[-1]
    else:
        chosen = [one for one in others if one.number == number]
        if not chosen:
            raise BuildError(f"{before.projection} has no other build {number}", remedy=f"There are: {listed}.")
        (after,) = chosen
    if not after.loaded:
        raise BuildError(
            f"{after.table_name} is still loading", remedy="`refold status` shows its progress. Run the command later."
        )
    return after
