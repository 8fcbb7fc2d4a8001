"""What is live, as events of OpenLineage: a job for each capture, projection, view and sink, a run for each build."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg
from psycopg.rows import class_row

from refold import __version__
from refold.engine.lineage.graph import Graph, Node
from refold.model.lineage.openlineage import Event, RunState, Writer
from refold.postgres.rows import one_row
from refold.postgres.snapshot import snapshot
from refold.store.builds.build import Build, find

PRODUCER = f"https://pypi.org/project/refold/{__version__}"
DOCUMENTATION = "https://refold.example/docs"
"""Where our documentation is, as in `pyproject.toml`."""
BUILD_SCHEMA = "schemas/1-0-0/RefoldBuildRunFacet.json"
"""Path, in our documentation, of the schema of `refold_build`: what refold says of a build beside the standard
facets."""
BUILD_FACET = f"{DOCUMENTATION}/{BUILD_SCHEMA}"
EVERY_S = 300
"""Seconds between two snapshots."""
ENDED = "1 day"
"""Builds that ended in this time are part of a snapshot, so that a receiver that was away hears of their end."""


_AUDITS = f"""
SELECT b.projection, b.table_name, p.depth, p.began_at, p.ended_at, p.rows, p.slices, p.differed
FROM refold.builds AS b
CROSS JOIN (VALUES ('quick'), ('deep')) AS d (depth)
CROSS JOIN LATERAL (
    SELECT * FROM (
        SELECT depth, began_at, ended_at, rows, slices, differed FROM refold.proofs
        WHERE build_id = b.build_id AND depth = d.depth AND began_at <= clock_timestamp()
        ORDER BY began_at DESC LIMIT 1) AS newest
    UNION
    SELECT depth, began_at, ended_at, rows, slices, differed FROM refold.proofs
    WHERE build_id = b.build_id AND depth = d.depth AND differed > 0
      AND ended_at BETWEEN now() - interval '{ENDED}' AND clock_timestamp()
) AS p
WHERE b.state IN ('building', 'live')
UNION ALL
SELECT b.projection, b.table_name, coalesce(i.evidence ->> 'depth', 'quick'), i.detected_at, NULL, NULL, NULL, NULL
FROM refold.incidents AS i JOIN refold.builds AS b ON b.projection = i.subject AND b.state = 'live'
WHERE i.kind = 'drift' AND i.resolved_at IS NULL
ORDER BY projection, began_at, depth
"""


@dataclass(frozen=True, slots=True)
class Audit:
    """An audit of a build: the newest of each depth, those that healed a while ago, and drift that is not healed.

    Args:
        projection: the metric.
        table_name: the build's table.
        depth: `quick` or `deep`.
        began_at: when it began.
        ended_at: when it ended; None, as the next three, if what differs is not healed yet.
        rows: rows that were compared.
        slices: slices that were compared.
        differed: slices that differed.
    """

    projection: str
    table_name: str
    depth: str
    began_at: datetime
    ended_at: datetime | None
    rows: int | None
    slices: int | None
    differed: int | None


Proofs = dict[int, tuple[datetime | None, datetime | None]]
"""Since when each build is proved: by any audit, and by deep audits."""


def writer_of(conn: psycopg.Connection) -> Writer:
    """Return the writer of a database's events; `OPENLINEAGE_NAMESPACE` is the namespace of its jobs."""
    host = conn.info.host
    namespace = f"postgres://{'localhost' if not host or host.startswith('/') else host}:{conn.info.port}"
    return Writer(PRODUCER, namespace, os.environ.get("OPENLINEAGE_NAMESPACE") or namespace, conn.info.dbname)


def snapshot_events(conn: psycopg.Connection, graph: Graph, *, whole: bool = True) -> list[Event]:
    """Return the events that describe all that is live, its audits, and the builds that ended a while ago.

    A snapshot is complete: a receiver that missed others lacks nothing but builds that ended earlier. The same build
    has the same run in each.

    Args:
        conn: acts as one of `EVIDENCE` or as a worker, in autocommit mode.
        graph: the graph, with columns.
        whole: whether it is the whole graph; else builds that are not in it are left out.
    """
    writer = writer_of(conn)
    with snapshot(conn):
        (now,) = one_row(conn, "SELECT clock_timestamp()")
        builds = find(
            conn,
            "b.state IN ('building', 'live') OR b.retired_at > now() - %s::interval",
            ENDED,
        )
        with conn.cursor(row_factory=class_row(Audit)) as cursor:
            audits = cursor.execute(_AUDITS.encode()).fetchall()
        sizes: dict[str, int] = dict(
            conn.execute(
                "SELECT relname::text, pg_table_size(oid) FROM pg_class"
                " WHERE relnamespace = 'refold_builds'::regnamespace AND relkind = 'r'"
            ).fetchall()
        )
        proofs: Proofs = {
            build_id: (proved, deep)
            for build_id, proved, deep in conn.execute(
                "SELECT build_id, proved_at, deep_proved_at FROM refold.proofs_now"
            ).fetchall()
        }
        server = str(one_row(conn, "SHOW server_version")[0])
    if not whole:
        names = {node.name for node in graph.nodes if node.kind in ("stream", "metric")}
        builds = [one for one in builds if one.projection in names]
        audits = [one for one in audits if one.projection in names]
    return _Snapshot(writer, graph, now, builds, audits, sizes, proofs, server).events()


class _Snapshot:
    def __init__(
        self,
        writer: Writer,
        graph: Graph,
        now: datetime,
        builds: list[Build],
        audits: list[Audit],
        sizes: dict[str, int],
        proofs: Proofs,
        server: str,
    ) -> None:
        self.writer = writer
        self.graph = graph
        self.now = now
        self.builds = builds
        self.audits = audits
        self.sizes = sizes
        self.proofs = proofs
        self.server = server
        self.nodes = {node.id: node for node in graph.nodes}
        self.live = {build.projection: build for build in builds if build.state == "live"}
        self.by_id = {build.build_id: build for build in builds}
        self.relations = {node.name: node.relation for node in graph.nodes if node.relation is not None}

    def events(self) -> list[Event]:
        found: list[Event] = []
        for node in self.graph.nodes:
            if node.kind != "log":
                found.append(self.writer.job_event(self.now, self._job(node), self._inputs(node), self._outputs(node)))
        for build in self.builds:
            found += self._runs(build)
        for one in self.audits:
            found += self._audited(one)
        return found

    # Jobs and datasets

    def _job(self, node: Node) -> dict[str, Any]:
        writer = self.writer
        streaming = node.kind != "view"
        facets = {
            "jobType": writer.facet(
                "jobType",
                processingType="STREAMING" if streaming else "BATCH",
                integration="REFOLD",
                jobType={"stream": "PROJECTION", "metric": "PROJECTION"}.get(node.kind, node.kind.upper()),
                emissionPattern={
                    "eventTrigger": "PERIODIC",
                    "eventContentMode": "COMPLETE_SNAPSHOT",
                    "windowDuration": EVERY_S,
                },
            )
        }
        if node.description:
            facets["documentation"] = writer.facet("jobDocumentation", description=node.description)
        build = self.live.get(node.name) if node.kind in ("stream", "metric") else None
        if build is not None and build.language == "sql":
            facets["sql"] = writer.facet("sql", query=build.definition, dialect="postgres")
        elif build is not None:
            facets["sourceCode"] = writer.facet("sourceCode", language="python", sourceCode=build.definition)
        return writer.job(node.name if build is not None else node.id, facets)

    def _inputs(self, node: Node) -> list[dict[str, Any]]:
        above = [self.nodes[edge.above] for edge in self.graph.edges if edge.below == node.id]
        return [self.writer.dataset(one.relation) for one in above if one.relation is not None]

    def _outputs(self, node: Node) -> list[dict[str, Any]]:
        if node.kind == "capture":
            return [self.writer.dataset("refold.events")]
        if node.relation is None:
            return []
        return [self.writer.dataset(node.relation, self._facets(node))]

    def _facets(self, node: Node) -> dict[str, Any]:
        writer = self.writer
        fields = [
            {"name": one.name, "type": one.type, **({"description": one.comment} if one.comment else {})}
            for one in node.columns
        ]
        uri = self._place()
        facets = {
            "schema": writer.facet("schema", fields=fields),
            "dataSource": writer.facet("dataSource", name=uri, uri=uri),
            "datasetType": writer.facet("datasetType", datasetType="VIEW"),
        }
        if node.description:
            facets["documentation"] = writer.facet("documentation", description=node.description)
        build = self.live.get(node.name) if node.kind in ("stream", "metric") else None
        if build is not None:
            facets["version"] = writer.facet("version", datasetVersion=f"{build.fingerprint}.{build.number}")
            table = {
                "namespace": writer.namespace,
                "name": f"{writer.database}.refold_builds.{build.table_name}",
                "type": "TABLE",
            }
            facets["symlinks"] = writer.facet("symlinks", identifiers=[table])
        if node.lineage is not None:
            columns = writer.column_facet(node.lineage, self.relations)
            if columns is not None:
                facets["columnLineage"] = columns
        return facets

    # Runs

    def _runs(self, build: Build) -> list[Event]:
        upstream = None if build.upstream_id is None else self.by_id.get(build.upstream_id)
        above = "refold.events" if build.upstream_id is None else None
        if upstream is not None:
            above = f"metrics.{upstream.projection}"
        statistics = {"inputStatistics": self.writer.facet("inputStatistics", rowCount=build.events_applied)}
        inputs = [] if above is None else [{**self.writer.dataset(above), "inputFacets": statistics}]
        output = self.writer.dataset(f"metrics.{build.projection}")
        if build.table_name in self.sizes:
            size = self.writer.facet("outputStatistics", size=self.sizes[build.table_name])
            output["outputFacets"] = {"outputStatistics": size}
        job = self.writer.job(build.projection, {})
        run = f"{self._place()}/{build.table_name}/{build.created_at.isoformat()}"

        def event(at: datetime, state: RunState) -> Event:
            return self.writer.run_event(at, state, run, self._run_facets(build), job, inputs, [output])

        events = [event(build.created_at, "START")]
        if build.state in ("building", "live"):
            events.append(event(self.now, "RUNNING"))
        elif build.retired_at is not None:
            events.append(event(build.retired_at, "COMPLETE" if build.promoted_at is not None else "ABORT"))
        return events

    def _audited(self, one: Audit) -> list[Event]:
        facts = {"table": one.table_name, "depth": one.depth, "rows": one.rows, "slices": one.slices}
        run = f"{self._place()}/{one.table_name}/{one.depth}/{one.began_at.isoformat()}"
        if one.ended_at is None:
            run += "/drift"
        facts = {name: value for name, value in facts.items() if value is not None}
        return self.writer.audit_events(one.projection, run, one.began_at, one.ended_at, one.differed, facts)

    def _place(self) -> str:
        return f"{self.writer.namespace}/{self.writer.database}"

    def _run_facets(self, build: Build) -> dict[str, Any]:
        writer = self.writer
        proved, deep = self.proofs.get(build.build_id, (None, None))
        facets = {
            "processing_engine": writer.facet(
                "processing_engine", name="PostgreSQL", version=self.server, openlineageAdapterVersion=__version__
            ),
            "refold_build": writer.own_facet(
                BUILD_FACET,
                table=build.table_name,
                state=build.state,
                upkeep=build.upkeep,
                cursor={"done": build.done, "target": build.target},
                eventsApplied=build.events_applied,
                leftOut=build.dead_letters,
                provedAt=None if proved is None else proved.isoformat(),
                deepProvedAt=None if deep is None else deep.isoformat(),
            ),
        }
        if build.error is not None:
            # The text of an error may quote an event, which is nothing for a catalogue.
            facets["errorMessage"] = writer.facet(
                "errorMessage",
                message="an error stops the build; `refold status` shows it",
                programmingLanguage=build.language.upper(),
            )
        return facets
