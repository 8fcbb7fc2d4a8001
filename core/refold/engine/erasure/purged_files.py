"""Files of purged segments, written again without a person.

The archive alone has these events, so a file counts as long as nothing better is proved. The next generation is made
from it, by position and HMAC, without a name; it is read back, and its checksums must be those of the former one, less
the erased events, plus what stands in their place. Then one transaction switches the manifest, the sealed checksums,
the ledger and the cold ledger. The former file stays, replaced, until the step of the archive removes it: whoever is
killed before finds the person in it again.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from contextlib import closing
from dataclasses import replace
from typing import BinaryIO

import psycopg

from refold.engine.archive import parquet
from refold.engine.archive.failures import Differs
from refold.engine.archive.object_store import Store
from refold.engine.archive.sources import Sources, purged
from refold.engine.archive.thaw import TABLE, make_table, proved, refused
from refold.engine.archive.write import Writer, read_back
from refold.engine.erasure import places
from refold.engine.erasure.archive import BY
from refold.engine.erasure.log import drop_letters, locked
from refold.engine.erasure.rows import add_new_ids, change_rows, parameters_of_change, rename, silence
from refold.engine.reconcile.archived import follow_archive
from refold.engine.reconcile.nameless import nameless
from refold.engine.reconcile.reconcile import reconcile
from refold.errors import BuildError
from refold.model.stream.slices import POSITION_BITS
from refold.postgres.failpoints import failpoint
from refold.postgres.retry import after_deadlocks
from refold.store import archives, erasures
from refold.store.archives import Archive
from refold.store.builds.compiled import Compiler
from refold.store.erasures import Erasure, Target
from refold.store.log.seal import SliceChecksum, agree, checksums, move

Slices = dict[int, SliceChecksum]


def rewrite(conn: psycopg.Connection, store: Store, writer: Writer, erasure: Erasure, token: str) -> int:
    """Write each purged file again that holds events of an erasure; return the number of dropped dead letters.

    Killed anywhere, it does the rest when it is called again.

    Args:
        conn: acts as refold_worker, in autocommit mode; its login may act as refold_owner.
        store: the archive.
        writer: holds the archive's lease.
        erasure: the erasure.
        token: what stands in the place of the person.

    Raises:
        StoreFailed: the store does not do what it was asked; the former file counts.
    """
    letters = 0
    with closing(Sources()) as sources:
        for archive in purged(conn):
            targets = erasures.waiting_in(conn, erasure, archive.lower_position, archive.upper_position)
            if targets:
                letters += _File(conn, store, writer, erasure, token, archive, targets).rewrite(sources)
                failpoint("erasure_purged")
    return letters


def rebase(conn: psycopg.Connection, compiler: Compiler, erasure: Erasure, *, told: bool) -> list[int]:
    """Heal what stands for purged events from the archive as it is now, then what depends on it.

    Returns the slices of the log whose purged events the erasure changed.

    Args:
        conn: acts as refold_worker, in autocommit mode.
        compiler: makes the SQL of the builds, with the code of transforms.
        erasure: the erasure, whose files are written.
        told: whether the caller takes what the repairs tell of the metrics, and deletes them.

    Raises:
        Unreadable: the archive does not have purged events as it was proved to.
        BuildError: a build cannot be healed.
    """
    rows = conn.execute(
        f"SELECT DISTINCT position >> {POSITION_BITS} FROM refold.erased_events"
        " WHERE erasure_id = %s AND position BETWEEN 1 AND refold.log_floor() - 1".encode(),
        (erasure.erasure_id,),
    ).fetchall()
    slices = sorted(int(number) for (number,) in rows)
    with nameless(repairs=not told, expected=True):
        follow_archive(conn, compiler, by=BY)
        audited = reconcile(conn, compiler, depth="deep", by=BY)
    if audited.unhealed or audited.failed:
        reasons = dict(audited.skipped)
        name = [*audited.unhealed, *audited.failed][0]
        raise BuildError(
            f"{name} may hold the person, and cannot be healed: {reasons.get(name, 'see its incident')}",
            remedy="Mend that, and run it again: it goes on where it was.",
        )
    return slices


class _File:
    def __init__(
        self,
        conn: psycopg.Connection,
        store: Store,
        writer: Writer,
        erasure: Erasure,
        token: str,
        archive: Archive,
        targets: list[Target],
    ) -> None:
        self._conn, self._store, self._writer, self._erasure, self._token = conn, store, writer, erasure, token
        self._archive, self._targets = archive, targets
        self._before: Slices = {}
        self._after: Slices = {}
        self._renamed: dict[str, tuple[str, int]] = {}
        self._ids: list[str] = []

    def rewrite(self, sources: Sources) -> int:
        conn, archive = self._conn, self._archive
        self._writer.abandon(archive)
        # Its rows have the ids of the former file.
        begun = self._writer.begin(archive.partition)
        successor = replace(begun, rewritten=archive.rewritten, upto=archive.upto)
        with tempfile.TemporaryFile() as spool:
            with sources.file(conn, archive) as former:
                self._write(former, spool, successor)
            spool.seek(0)
            sent = self._writer.send(successor, spool)
        failpoint("erasure_purged_sent")
        found, thawed = read_back(conn, self._store, successor, sent, self._writer.beat)
        expected = self._expected()
        wrong = [
            one
            for one in thawed.slices.keys() | expected.keys()
            if not agree(thawed.slices.get(one), expected.get(one))
        ]
        if wrong:
            self._writer.abandon(archive)
            raise Differs(
                f"{successor.location}: the rows of {len(wrong)} slices are not those of {archive.location}, less"
                " what is erased",
                tuple(sorted(wrong)),
            )
        letters = 0
        for attempt in after_deadlocks():
            with attempt, conn.transaction():
                letters = self._switch(successor, found.size, found.sha256, thawed)
        return letters

    def _write(self, former: BinaryIO, spool: BinaryIO, successor: Archive) -> None:
        """Write the rows of the former file, changed where they are the person's."""
        positions = {one.position for one in self._targets}
        rows = parquet.Rows(former, self._archive.location)
        about = {"refold.generation": str(successor.generation), **rows.about()}
        with parquet.writing(spool, about) as written:
            for group, lowest, highest in rows.groups():
                if any(lowest <= one <= highest for one in positions):
                    with self._conn.transaction(), refused(self._archive):
                        make_table(self._conn)
                        rows.copy(self._conn, group, TABLE)
                        self._change(lowest, highest)
                        written(parquet.read(self._conn, TABLE))
                else:
                    written([rows.group(group)])
                self._writer.beat()

    def _change(self, lowest: int, highest: int) -> None:
        """Change the thawed rows of a row group, as the log's would be, and note by how much its slices change."""
        conn = self._conn
        targets = [one for one in self._targets if lowest <= one.position <= highest]
        listed = ",".join(str(one.position) for one in targets)
        mine = f"(SELECT * FROM {proved(self._archive)} WHERE position = ANY ('{{{listed}}}'::bigint[])) AS mine"
        _add(self._before, checksums(conn, rows_of=mine))
        renamed = [one.position for one in targets if one.renamed]
        ids = conn.execute(
            f"SELECT event_id, position FROM {TABLE} WHERE position = ANY (%s)".encode(),
            ([one.position for one in targets],),
        ).fetchall()
        self._ids += [event_id for event_id, _ in ids]
        at = {event_id: position for event_id, position in ids if position in renamed}
        fresh = {old: (new, at[old]) for old, new in erasures.new_ids(conn, list(at)).items()}
        self._renamed |= fresh
        known = parameters_of_change(self._erasure, self._token, {old: new for old, (new, _) in fresh.items()})
        change_rows(conn, TABLE, self._erasure.mode, known, [one.position for one in targets])
        _add(self._after, checksums(conn, rows_of=mine))

    def _expected(self) -> Slices:
        """Return the checksums that the new file must have."""
        slices = dict(archives.slices_of(self._conn, self._archive))
        for number, old in self._before.items():
            slices[number] = slices.get(number, SliceChecksum()) - old + self._after.get(number, SliceChecksum())
        return slices

    def _switch(self, successor: Archive, size: int, sha256: bytes, thawed: parquet.Contents) -> int:
        conn = self._conn
        builds = locked(conn)
        conn.execute("LOCK TABLE refold.sealed_slices IN EXCLUSIVE MODE")
        self._writer.hold()
        archives.succeed(conn, self._archive, successor, size, sha256, thawed.slices, thawed.first_ts, thawed.last_ts)
        positions = [one.position for one in self._targets]
        conn.execute("SET LOCAL ROLE refold_owner")
        move(conn, self._before, self._after)
        self._ledger(positions)
        erasures.done(conn, self._erasure, positions)
        conn.execute("SET LOCAL ROLE refold_worker")
        # After this nothing knows these ids any more.
        places.clean_ids(conn, list(self._renamed))
        return drop_letters(conn, builds, positions)

    def _ledger(self, positions: list[int]) -> None:
        """Let whatever comes under the ids of these events be a duplicate, in the ledger and in the cold one."""
        conn = self._conn
        silence(conn, positions, self._ids)
        conn.execute("SET LOCAL refold.restoring = on")
        rename(conn, {old: new for old, (new, _) in self._renamed.items()})
        if self._renamed and self._erasure.mode == "anonymise":
            add_new_ids(conn, dict(self._renamed.values()))
        conn.execute("SET LOCAL refold.restoring = off")


def _add(into: Slices, more: Mapping[int, SliceChecksum]) -> None:
    for number, one in more.items():
        into[number] = into.get(number, SliceChecksum()) + one
