"""The survey of a restored database, and the plan of a recovery. Changes nothing."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psycopg

from refold.engine.archive import ownership
from refold.engine.archive.object_store import open_store
from refold.engine.erasure import restored
from refold.engine.recovery import ledger
from refold.engine.recovery.ledger import Ledger
from refold.engine.recovery.strategy import BuildOutcome, Decision, Strategy, decide, outcomes
from refold.errors import DatabaseError, NotInstalled, RefoldError
from refold.model.upkeep.names import base_table
from refold.store import archives
from refold.store.builds.build import Build, with_tables
from refold.store.builds.compiled import Compiler
from refold.store.builds.graph import by_depth
from refold.store.log import integrity
from refold.store.schema.cluster import ClusterState, inspect_cluster
from refold.store.schema.settings import read_settings


@dataclass(frozen=True, slots=True)
class Survey:
    """The findings in a restored database, and the plan of a recovery.

    Args:
        cluster: the stored transaction ids beside those of this cluster.
        decision: the strategy, with its reason.
        ledger: the differences between ledger and log.
        builds: every build that has an outcome, upstream first.
        outcomes: the outcome of each build, by its id.
    """

    cluster: ClusterState
    decision: Decision
    ledger: Ledger
    builds: tuple[Build, ...]
    outcomes: Mapping[int, BuildOutcome]

    def of(self, outcome: BuildOutcome) -> list[Build]:
        """Return the builds with an outcome, upstream first."""
        return [build for build in self.builds if self.outcomes[build.build_id] == outcome]

    def as_dict(self) -> dict[str, Any]:
        """Return the survey as a dict for JSON."""
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


@dataclass(frozen=True, slots=True)
class StoreLook:
    """The findings in the archive's store, of which a recovery makes use.

    Args:
        location: the store; None: no archive is set.
        missing: files of the manifest that the store does not have: it has others, or has lost them.
        erasures: erasures that this database has not done.
        to_claim: whether nothing would be archived until a person claims the store.
        failed: why the store could not be asked.
    """

    location: str | None = None
    missing: tuple[str, ...] = ()
    erasures: int = 0
    to_claim: bool = False
    failed: str | None = None


def look_at_store(conn: psycopg.Connection, strategy: Strategy) -> StoreLook:
    """Return what the archive's store has for a recovery; change nothing.

    Args:
        conn: acts as refold_worker, in autocommit mode.
        strategy: the strategy of the recovery.
    """
    location = read_settings(conn).archive
    if location is None:
        return StoreLook()
    try:
        store = open_store(location)
        names = store.names("log")
        return StoreLook(
            location,
            tuple(
                one.location
                for one in archives.find(conn, "a.state NOT IN ('replaced', 'gone')")
                if one.location not in names
            ),
            len(restored.unknown(conn)),
            archives.claim_of(conn) is not None and (strategy != "prove" or foreign_store(conn)),
        )
    except RefoldError as error:
        return StoreLook(location, failed=str(error))


def foreign_store(conn: psycopg.Connection) -> bool:
    """Return whether another database writes the archive that this one has claimed: its original, or a copy.

    Args:
        conn: acts as refold_worker.

    Raises:
        StoreFailed: the store does not answer.
    """
    location, claim = read_settings(conn).archive, archives.claim_of(conn)
    if location is None or claim is None:
        return False
    return not ownership.owned(claim, ownership.marker_of(open_store(location)))


def insist_on_schema(conn: psycopg.Connection) -> ClusterState:
    """Return the state of the cluster; refuse a database without all schemas of refold.

    Raises:
        NotInstalled: a schema is missing.
    """
    # A schema that was restored by itself lacks its grants.
    usable = conn.execute(
        "SELECT FROM pg_namespace"
        " WHERE nspname IN ('refold', 'refold_builds', 'metrics') AND has_schema_privilege(oid, 'USAGE')"
    ).rowcount
    found = inspect_cluster(conn) if usable == 3 else None
    if found is None:
        raise NotInstalled(
            "this database lacks a schema or table of refold, or a privilege on one",
            remedy="Run `refold migrate`: it creates what is missing and grants the privileges.",
        )
    return found


def _insist_on_bases(conn: psycopg.Connection, builds: Sequence[Build], tables: Collection[str]) -> None:
    """Refuse a database in which nothing stands for events that were purged from the log.

    Raises:
        DatabaseError: the base of a build is missing, or ends where the log does not begin.
    """
    floor = integrity.floor(conn)
    for build in builds:
        if build.upstream_id is not None or build.state not in ("building", "live"):
            continue
        if build.floor != floor:
            what = f"the base of {build.table_name} ends at position {build.floor:,}, and the log begins at {floor:,}"
        elif build.based and build.loaded and build.table_name in tables and _lacks_base(build, tables):
            what = f"the base of {build.table_name} is missing, and the log begins at position {floor:,}"
        else:
            continue
        raise DatabaseError(
            what, remedy="Restore the schemas refold and refold_builds from one backup; nothing was changed yet."
        )


def _lacks_base(build: Build, tables: Collection[str]) -> bool:
    return build.upkeep in ("merge", "members") and base_table(build.table_name) not in tables


def survey(conn: psycopg.Connection, projections: Path | None) -> Survey:
    """Return the findings and the plan of a recovery; change nothing.

    Args:
        conn: acts as refold_worker, in autocommit mode.
        projections: the folder of transforms, whose code the audit of their tables needs.

    Raises:
        NotInstalled: a schema is missing.
        DatabaseError: the log holds an event twice.
        BuildError: the file of a transform is missing, or differs from the deployed one.
    """
    found = insist_on_schema(conn)
    decision = decide(found)
    builds = by_depth(conn, with_tables(conn))
    tables = {
        str(name)
        for (name,) in conn.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'refold_builds'").fetchall()
    }
    _insist_on_bases(conn, builds, tables)
    decided = outcomes(builds, tables, decision.strategy)
    compiler = Compiler(projections)
    for build in builds:
        if decided.get(build.build_id) == "audited":
            compiler.of(conn, build)
    compared = ledger.compare(conn)
    if compared.twice:
        raise DatabaseError(
            f"the log holds events twice: {', '.join(compared.twice[:5])}{' …' if len(compared.twice) > 5 else ''}",
            remedy="Two logs were restored into one. Restore again, into an empty database; nothing was changed yet.",
        )
    return Survey(found, decision, compared, tuple(b for b in builds if b.build_id in decided), decided)
