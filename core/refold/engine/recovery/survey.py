"""How things stand after a restore, and what a recovery would do about it. Changes nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psycopg

from refold.engine.recovery import ledger
from refold.engine.recovery.ledger import Ledger
from refold.engine.recovery.strategy import BuildOutcome, Decision, decide, outcomes
from refold.errors import DatabaseError, NotInstalled
from refold.store.builds.build import Build, with_tables
from refold.store.builds.compiled import Compiler
from refold.store.builds.graph import by_depth
from refold.store.schema.cluster import ClusterState, inspect_cluster


@dataclass(frozen=True, slots=True)
class Survey:
    """What was found, and what is to be done.

    Args:
        cluster: the coordinates beside this cluster's transactions.
        decision: which way, and why.
        ledger: how ledger and log differ.
        builds: every build that something becomes of, upstream first.
        outcomes: what becomes of each, by its number.
    """

    cluster: ClusterState
    decision: Decision
    ledger: Ledger
    builds: tuple[Build, ...]
    outcomes: Mapping[int, BuildOutcome]

    def of(self, outcome: BuildOutcome) -> list[Build]:
        """The builds with a outcome, upstream first."""
        return [build for build in self.builds if self.outcomes[build.build_id] == outcome]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "strategy": self.decision.strategy,
            "because": self.decision.because,
            "cluster": asdict(self.cluster),
            "ledger": asdict(self.ledger),
            "builds": [
                {"projection": build.projection, "table": build.table_name, "outcome": self.outcomes[build.build_id]}
                for build in self.builds
            ],
        }


def insist_on_schema(conn: psycopg.Connection) -> ClusterState:
    """Where the coordinates stand.

    Raises:
        NotInstalled: the schema is not whole.
    """
    # A schema that was restored by itself comes without its grants.
    usable = conn.execute(
        "SELECT FROM pg_namespace"
        " WHERE nspname IN ('refold', 'refold_builds', 'metrics') AND has_schema_privilege(oid, 'USAGE')"
    ).rowcount
    found = inspect_cluster(conn) if usable == 3 else None
    if found is None:
        raise NotInstalled(
            "the schemas of refold are not all in this database",
            remedy="Run `refold migrate`: it adds what is missing.",
        )
    return found


def survey(conn: psycopg.Connection, projections: Path | None) -> Survey:
    """Looks at everything that a recovery depends on.

    Args:
        conn: acts as refold_worker, in autocommit mode.
        projections: the folder of transforms: without their code their tables cannot be audited.

    Raises:
        NotInstalled: the schema is not whole.
        DatabaseError: the log holds an event twice.
        BuildError: a transform's file is not here, or not as it was deployed.
    """
    found = insist_on_schema(conn)
    decision = decide(found)
    builds = by_depth(conn, with_tables(conn))
    tables = {
        str(name)
        for (name,) in conn.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'refold_builds'").fetchall()
    }
    decided = outcomes(builds, tables, decision.strategy)
    compiler = Compiler(projections)
    for build in builds:
        if decided.get(build.build_id) == "audited":
            compiler.of(conn, build)
    compared = ledger.compare(conn)
    if compared.twice:
        raise DatabaseError(
            f"the log holds events twice: {', '.join(compared.twice[:5])}{' …' if len(compared.twice) > 5 else ''}",
            remedy="Two logs were restored into one. Restore again, into an empty database: nothing was changed.",
        )
    return Survey(found, decision, compared, tuple(b for b in builds if b.build_id in decided), decided)
