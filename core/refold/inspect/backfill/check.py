"""`refold backfill check`: all that a backfill would do, read in one snapshot."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

import psycopg

from refold.engine.reconcile.audit import snapshot
from refold.inspect.backfill.answers import Answers, Refused, answers
from refold.inspect.backfill.effects import Effect, effects
from refold.inspect.lineage.cost import Bound
from refold.postgres.rows import one_row
from refold.store.builds.compiled import Compiler
from refold.store.file_backfills import FileBackfill, insist_on_staged

BOUND = Bound(ask_s=30.0, timeout_s=300.0)
"""What may be read for each metric."""


@dataclass(frozen=True, slots=True)
class Findings:
    """What a check found.

    Args:
        at: the instant of the snapshot, UTC.
        answers: the answers that the records would get.
        effects: the effect on each metric.
    """

    at: datetime
    answers: Answers
    effects: list[Effect]

    def as_dict(self) -> dict[str, Any]:
        """Return the findings as a dict for JSON; sums are texts, because JSON readers round numbers."""
        told = asdict(self)
        for one in told["effects"]:
            one["sums"] = {name: format(value, "f") for name, value in one["sums"].items()}
        return told


def answers_of(findings: Mapping[str, Any]) -> Answers:
    """Return the answers from findings as they are stored."""
    told = dict(findings["answers"])
    return Answers(**{**told, "refused": [Refused(**one) for one in told["refused"]]})


def check(conn: psycopg.Connection, compiler: Compiler, backfill: FileBackfill, bound: Bound = BOUND) -> Findings:
    """Tell what a backfill would do if nobody else wrote. Nothing is changed.

    Args:
        conn: acts as one of `INSPECTORS`, in autocommit mode.
        compiler: knows the transforms of this machine.
        backfill: the backfill.
        bound: what may be read for a metric.

    Raises:
        InputError: its records are not all there.
    """
    insist_on_staged(conn, backfill)
    with snapshot(conn):
        (at,) = one_row(conn, "SELECT now()")
        return Findings(at, answers(conn, backfill), list(effects(conn, compiler, backfill, bound)))
