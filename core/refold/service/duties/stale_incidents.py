"""Incidents about what is no longer kept: nobody will mend it, and nobody has to."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import psycopg

from refold.store.builds.build import kept
from refold.store.builds.compiled import Compiler
from refold.store.incidents import Incident, open_incidents, resolve

NAME = "incidents of what is gone"


def run(conn: psycopg.Connection, compiler: Compiler) -> None:
    """Closes incidents about dead letters of builds that were replaced, and about metrics that are gone."""
    with conn.transaction():
        open_ = open_incidents(conn, "dead_letters", "drift", "hidden")
        builds = kept(conn)
        for incident in over(open_, {b.table_name for b in builds}, {b.projection for b in builds}):
            resolve(
                conn, incident.kind, incident.subject, by=NAME, outcome={"because": "it is no longer kept up to date"}
            )


def over(incidents: Sequence[Incident], tables: Collection[str], projections: Collection[str]) -> list[Incident]:
    """Those whose subject is not kept. Pure."""
    return [one for one in incidents if one.subject not in (tables if one.kind == "dead_letters" else projections)]
