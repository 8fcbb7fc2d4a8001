"""A database with the same events twice: in refold's log, and in the plain table that baselines read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import psycopg

from benchmarks.dataset import BLOCK, block
from refold.engine.deployment.deploy import deploy, rebuild
from refold.engine.publish.switch import drop_superseded
from refold.model.event.exact_json import metadata_json
from refold.model.projection.definition import Definition, load_directory
from refold.postgres.connect import connect
from refold.postgres.session import PAGES
from refold.store.builds.build import live
from refold.store.builds.compiled import CompiledBuild, Compiler
from refold.store.log.seal import seal

PROJECTIONS = Path(__file__).parent / "projections"

PLAIN = """
    CREATE SCHEMA plain;
    CREATE TABLE plain.events (
        position bigint PRIMARY KEY,
        event_id text COLLATE "C" NOT NULL UNIQUE,
        user_id text COLLATE "C",
        action text COLLATE "C" NOT NULL,
        ts timestamptz NOT NULL,
        metadata jsonb NOT NULL,
        version integer NOT NULL
    );
"""


class Workbench:
    """One database to measure in.

    Args:
        url: of a database in which refold is installed.
        events: how many events the plain table gets; the log gets them by `fill`.
    """

    def __init__(self, url: str, events: int) -> None:
        self.url = url
        self.events = events
        self.filled = 0
        self.definitions: Mapping[str, Definition] = load_directory(PROJECTIONS)
        self._compiler = Compiler(PROJECTIONS)
        self.worker = connect(url, "refold_worker", autocommit=True, settings=PAGES)
        self.hand = connect(url, autocommit=True, settings={"synchronous_commit": "off", "jit": "off"})
        self.hand.execute(PLAIN.encode())
        for at in range(-(-events // BLOCK)):
            with self.hand.cursor() as cursor, cursor.copy("COPY plain.events FROM STDIN") as copy:
                for position, event in enumerate(block(at)[: events - at * BLOCK], start=at * BLOCK + 1):
                    copy.write_row(
                        (
                            position,
                            event.id,
                            event.user_id,
                            event.action,
                            event.ts,
                            metadata_json(event.metadata),
                            event.version,
                        )
                    )
        self.hand.execute("CREATE INDEX ON plain.events (user_id)")
        self.hand.execute("VACUUM ANALYZE plain.events")

    def fill(self, upto: int, *, rest: bool = True) -> None:
        """Appends the plain table's events to the log, up to that position, a block for each transaction.

        Args:
            upto: the position.
            rest: leave the log as a minute of rest does, vacuumed and sealed by the worker's duty.
        """
        while self.filled < upto:
            after, self.filled = self.filled, min(self.filled + BLOCK, upto)
            self.hand.execute("SELECT refold.ensure_segments(%s)", (self.filled - after,))
            self.hand.execute(
                "INSERT INTO refold.events (event_id, user_id, action, ts, metadata, version)"
                " SELECT event_id, user_id, action, ts, metadata, version FROM plain.events"
                " WHERE position > %s AND position <= %s ORDER BY position",
                (after, self.filled),
            )
        if rest:
            self.hand.execute("VACUUM ANALYZE refold.events")
            for _ in range(2):  # it looks twice
                seal(self.worker)

    def deploy(self, *names: str) -> None:
        """Makes projections live."""
        wanted = {name: self.definitions[name] for name in names}
        deploy(self.worker, PROJECTIONS, wanted, lambda progress: None)

    def rebuild(self, name: str) -> None:
        """Builds a live projection again, and switches to the new build."""
        rebuild(self.worker, PROJECTIONS, [name], lambda progress: None)

    def forget(self) -> None:
        """Drops the tables of builds that were replaced."""
        drop_superseded(self.worker, keep=0)

    def compiled(self, projection: str) -> CompiledBuild:
        """The SQL of a live projection."""
        build = live(self.worker, projection)
        assert build is not None
        return self._compiler.of(self.worker, build)

    def rows(self, conn: psycopg.Connection, relation: str) -> int:
        """How many rows a relation has."""
        found = conn.execute(f"SELECT count(*) FROM {relation}".encode()).fetchone()
        assert found is not None
        return int(found[0])

    def close(self) -> None:
        self.worker.close()
        self.hand.close()
