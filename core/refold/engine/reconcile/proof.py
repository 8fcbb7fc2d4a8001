"""Proof of the log before a heal takes its word against what was written.

A row that somebody has changed is healed to what it was, and its checksum, which nobody has touched, says so: then the
log need not be asked. Where a heal would make something else of it than what refold wrote there, or calls for another
checksum of what was read, either refold was wrong or the log is damaged; and from a damaged log the last right copy of
a number would be healed away. So no checksum gives way before the slices of the log that stand behind it are what was
written there.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import psycopg

from refold.model.stream.page_sql import LOG_TABLE
from refold.model.stream.slices import LAST, Range
from refold.store.builds.compiled import CompiledBuild
from refold.store.log.damage import refuse_known
from refold.store.log.integrity import LogDamaged, look, portions, whole


class LogProof:
    """What of the log has been proved in one run: a slice is looked at once."""

    def __init__(self) -> None:
        self._all = False
        self._proved: set[int] = set()

    def read(self, conn: psycopg.Connection, compiled: CompiledBuild, slices: Iterable[int]) -> None:
        """Demands that some slices of a build's stream are what was written there.

        Args:
            conn: the transaction that is about to write.
            compiled: the build; nothing is demanded of one that reads another's table, for that was audited before.
            slices: of positions; all of them for a build whose reads are only counted.

        Raises:
            LogDamaged: they are not.
        """
        if compiled.stream.table != LOG_TABLE or self._all:
            return
        if not compiled.statements.reads_by_slice:
            self._everything(conn)
        else:
            self.slices(conn, slices)

    def rows(self, conn: psycopg.Connection, compiled: CompiledBuild, part: Sequence[Range]) -> None:
        """Demands the same of all that the rows of some slices of a build are made of.

        The events of a day, or of a key, may stand anywhere in the log, and those that are gone too.

        Args:
            conn: the transaction that is about to write.
            compiled: the build.
            part: its slices.

        Raises:
            LogDamaged: something of it is not what was written.
        """
        if compiled.stream.table != LOG_TABLE or self._all:
            return
        bounds = [bound for one in part for bound in one]
        if compiled.statements.relations[0].slicing.kind == "position" and None not in bounds:
            self.slices(
                conn,
                # A row's position may be anything that somebody has put there.
                [n for low, high in part for n in range(max(low or 0, 0), (high or 0) + 1) if (high or 0) < LAST],
            )
        else:
            self._everything(conn)

    def slices(self, conn: psycopg.Connection, slices: Iterable[int]) -> None:
        """Demands that some slices of the log are what was written there.

        Raises:
            LogDamaged: they are not.
        """
        for part in portions(set(slices) - self._proved):
            _demand(conn, part)
            low, high = part
            assert low is not None and high is not None
            self._proved |= set(range(low, high + 1))

    def _everything(self, conn: psycopg.Connection) -> None:
        # While there is damage that is known, this must not read the whole log at every attempt.
        refuse_known(conn)
        for part in whole(conn):
            _demand(conn, part)
        self._all = True


def _demand(conn: psycopg.Connection, part: Range) -> None:
    found = look(conn, part)
    if found.damage:
        raise LogDamaged(found.damage, found.slices)
