"""The duty that resolves incidents of what is no longer kept up to date, and corrects ends that lie in the future."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import psycopg

from refold.store.builds.build import kept
from refold.store.builds.compiled import Compiler
from refold.store.incidents import Incident, open_incidents, resolve

NAME = "stale incidents"


def run(conn: psycopg.Connection, compiler: Compiler) -> None:
    """Resolve incidents about dead letters of superseded builds, and about dropped metrics.

    A clock that was ahead has noted ends that are yet to come: until then, proofs of before would not be doubted.
    """
    with conn.transaction():
        conn.execute(
            "UPDATE refold.incidents SET resolved_at = clock_timestamp() WHERE resolved_at > clock_timestamp()"
        )
        open_ = open_incidents(conn, "dead_letters", "drift", "hidden")
        builds = kept(conn)
        for incident in over(open_, {b.table_name for b in builds}, {b.projection for b in builds}):
            resolve(
                conn, incident.kind, incident.subject, by=NAME, outcome={"because": "it is no longer kept up to date"}
            )


def over(incidents: Sequence[Incident], tables: Collection[str], projections: Collection[str]) -> list[Incident]:
    """Return the incidents whose subject is no longer kept up to date. Pure."""
    return [one for one in incidents if one.subject not in (tables if one.kind == "dead_letters" else projections)]
