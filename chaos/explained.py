"""I10: rows of every metric are counted again from the events behind them, while all goes on and at the end."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from random import Random

import psycopg

from chaos.faults import Injected
from chaos.findings import Findings
from chaos.schedule import EXPOSED
from chaos.stage import Stage
from refold import RefoldError
from refold.errors import InputError
from refold.inspect.lineage.cost import Bound
from refold.inspect.lineage.where import where
from refold.inspect.lineage.why import Answer, why
from refold.model.sql_text import ident
from refold.postgres.connect import connect
from refold.store.builds.build import Build, live_builds
from refold.store.builds.compiled import Compiler

EVERY_S = 1.0
"""Seconds between two rows that are explained under load."""
ROWS = 10
"""Rows of each metric that are explained at the end."""
NOTICED_S = 90.0
"""Seconds after damage to the log in which rows may differ from it."""
DAMAGE = ("log damaged", "segment lost")
"""Faults that damage the log."""
AGREED = Bound(agreed=True)
Key = dict[str, str | None]
"""A key, as texts."""


@dataclass(frozen=True, slots=True)
class Unlike:
    """A row that its events did not explain.

    Args:
        at: seconds on the monotonic clock.
        what: the row, and what is made of its events.
    """

    at: float
    what: str


def keys(conn: psycopg.Connection, compiler: Compiler, build: Build, random: Random, rows: int) -> list[Key]:
    """Some keys of a build's table, as texts: those of the next rows after a random hash."""
    relation = compiler.of(conn, build).statements.relations[0]
    texts = ", ".join(f"{ident(name)}::text" for name in relation.key)
    found = conn.execute(
        f"SELECT DISTINCT {texts} FROM {relation.table} WHERE {relation.hash} >= %s LIMIT {rows}".encode(),
        (random.randint(-(2**63), 2**62),),
    ).fetchall()
    return [dict(zip(relation.key, row, strict=True)) for row in found]


def told(answer: Answer) -> str:
    """A row that is not explained, in one line."""
    rows = "; ".join(f"{row.shown}, counted again {row.counted}" for row in answer.rows if not row.same)
    return f"{answer.metric} {dict(answer.key)}: {rows or answer.differ}, from {answer.events} events"


class Explainer:
    """Explains a row of a metric at a time, in a thread of its own, until closed.

    Args:
        stage: of the campaign.
    """

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._stop = threading.Event()
        self._random = Random(stage.seed)
        self.explained = 0
        self.in_run = 0
        self.unlike: list[Unlike] = []
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Explains no more rows."""
        self._stop.set()
        self._thread.join(90)

    def tell(self, happened: list[Injected], found: Findings) -> None:
        """Notes the rows that were not explained; while the log is damaged nothing can be said.

        Nor while a person is erased: the archive lacks the person some time before the metrics do.
        """
        silent = [(one.began, one.ended + NOTICED_S) for one in happened if one.step.fault in DAMAGE]
        # One that was interrupted is finished when all is over.
        silent += [
            (one.began, one.ended if all(asked.done for asked in self._stage.asked) else float("inf"))
            for one in happened
            if one.step.fault == "erasure"
        ]
        for one in self.unlike:
            if not any(began <= one.at <= ended for began, ended in silent):
                found.add("I10", f"under load, {one.what}")

    def _run(self) -> None:
        conn: psycopg.Connection | None = None
        while not self._stop.wait(EVERY_S):
            try:
                if conn is None or conn.closed:
                    conn = connect(self._stage.url, "refold_inspector", autocommit=True, application_name="chaos why")
                self._explain(conn)
            except (psycopg.Error, RefoldError):
                # A server that is away, a build that was just replaced.
                if conn is not None:
                    conn.close()
                    conn = None

    def _explain(self, conn: psycopg.Connection) -> None:
        compiler = Compiler(self._stage.projections)
        build = self._random.choice([one for one in live_builds(conn) if one.projection not in EXPOSED])
        for key in keys(conn, compiler, build, self._random, 1):
            at = time.monotonic()
            try:
                answer = why(conn, compiler, build.projection, key, shown=0, bound=AGREED)
            except InputError:
                continue  # The row has gone since.
            self.explained += 1
            self.in_run += answer.in_run
            if not answer.same:
                self.unlike.append(Unlike(at, told(answer)))


def check(stage: Stage, found: Findings) -> int:
    """Explains rows of every metric when all is healed, and looks for an event of each; answers the number of rows."""
    random = Random(stage.seed)
    explained = 0
    with connect(stage.url, "refold_inspector", autocommit=True, application_name="chaos why") as conn:
        compiler = Compiler(stage.projections)
        for build in live_builds(conn):
            for key in keys(conn, compiler, build, random, ROWS):
                answer = why(conn, compiler, build.projection, key, shown=1, bound=AGREED)
                explained += 1
                if not answer.same:
                    found.add("I10", f"in the end, {told(answer)}")
                elif answer.behind and answer.behind[0].event_id is not None:
                    event_id = answer.behind[0].event_id
                    rows = {
                        one.metric: [row.key for row in one.rows] for one in where(conn, compiler, event_id).metrics
                    }
                    if key not in rows[build.projection]:
                        found.add("I10", f"{event_id} is behind {build.projection} {key}, but is not found in it")
    return explained
