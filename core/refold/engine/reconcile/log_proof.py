"""Verification of the log before healing changes a checksum.

If a row was changed by hand, healing restores the row that its checksum confirms, and the log needs no verification. If
healing would change a checksum, either refold was wrong or the log is damaged. From a damaged log, healing would
destroy the last correct copy of a number. So no checksum changes before the slices of the log behind it are verified.
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
    """The slices of the log that were verified in a run, so that each is read once."""

    def __init__(self) -> None:
        self._all = False
        self._proved: set[int] = set()

    def read(self, conn: psycopg.Connection, compiled: CompiledBuild, slices: Iterable[int]) -> None:
        """Verify some slices of a build's stream.

        Args:
            conn: the transaction that is about to write.
            compiled: the build; if it reads another build's table, that was audited before, and nothing is verified.
            slices: slices of positions; the whole log is verified for a build whose reads are only counted.

        Raises:
            LogDamaged: the log differs from what was written.
        """
        if compiled.stream.table != LOG_TABLE or self._all:
            return
        if not compiled.statements.reads_by_slice:
            self.everything(conn)
        else:
            self.slices(conn, slices)

    def rows(self, conn: psycopg.Connection, compiled: CompiledBuild, part: Sequence[Range]) -> None:
        """Verify the log behind the rows of some slices of a build.

        The events of a day or of a key may be anywhere in the log, and lost ones too: then the whole log is verified.

        Args:
            conn: the transaction that is about to write.
            compiled: the build.
            part: its slices.

        Raises:
            LogDamaged: the log differs from what was written.
        """
        if compiled.stream.table != LOG_TABLE or self._all:
            return
        bounds = [bound for one in part for bound in one]
        if compiled.statements.relations[0].slicing.kind == "position" and None not in bounds:
            self.slices(
                conn,
                # A row that was changed by hand may have any position.
                [n for low, high in part for n in range(max(low or 0, 0), (high or 0) + 1) if (high or 0) < LAST],
            )
        else:
            self.everything(conn)

    def slices(self, conn: psycopg.Connection, slices: Iterable[int]) -> None:
        """Verify some slices of the log.

        Raises:
            LogDamaged: a slice differs from what was written.
        """
        for part in portions(set(slices) - self._proved):
            _demand(conn, part)
            low, high = part
            assert low is not None and high is not None
            self._proved |= set(range(low, high + 1))

    def everything(self, conn: psycopg.Connection) -> None:
        """Verify the whole log.

        Raises:
            LogDamaged: the log differs from what was written.
        """
        # If damage is already known, do not read the whole log at every attempt.
        refuse_known(conn)
        for part in whole(conn):
            _demand(conn, part)
        self._all = True


def _demand(conn: psycopg.Connection, part: Range) -> None:
    found = look(conn, part)
    if found.damage:
        raise LogDamaged(found.damage, found.slices)
