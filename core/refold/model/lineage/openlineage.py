"""Events of OpenLineage (spec 2-0-2), as plain dicts. Pure.

https://openlineage.io/spec/2-0-2/OpenLineage.json; the versions of the facets are in `FACETS`.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Literal

from refold.model.lineage.columns import ColumnLineage, Source

SPEC = "https://openlineage.io/spec/2-0-2/OpenLineage.json"
FACETS = {
    "columnLineage": "1-2-0/ColumnLineageDatasetFacet",
    "dataQualityAssertions": "1-1-0/DataQualityAssertionsDatasetFacet",
    "dataSource": "1-0-1/DatasourceDatasetFacet",
    "datasetType": "1-0-1/DatasetTypeDatasetFacet",
    "documentation": "1-1-0/DocumentationDatasetFacet",
    "errorMessage": "1-0-1/ErrorMessageRunFacet",
    "inputStatistics": "1-0-0/InputStatisticsInputDatasetFacet",
    "jobDocumentation": "1-1-0/DocumentationJobFacet",
    "jobType": "2-0-4/JobTypeJobFacet",
    "outputStatistics": "1-0-2/OutputStatisticsOutputDatasetFacet",
    "processing_engine": "1-1-1/ProcessingEngineRunFacet",
    "schema": "1-2-0/SchemaDatasetFacet",
    "sourceCode": "1-0-1/SourceCodeJobFacet",
    "sql": "1-1-0/SQLJobFacet",
    "symlinks": "1-0-1/SymlinksDatasetFacet",
    "test": "1-0-1/TestRunFacet",
    "version": "1-0-1/DatasetVersionDatasetFacet",
}
"""Version and schema of each facet."""
RUNS = uuid.UUID("3f0d2a52-5d3c-4f6c-9d52-7a1f4d5f6c0e")
"""Namespace of the ids of runs: the run of a build has the same id in each event."""

RunState = Literal["START", "RUNNING", "COMPLETE", "ABORT"]
Event = dict[str, Any]


class Writer:
    """Writes events of one database.

    Args:
        producer: URI of this version of refold.
        namespace: namespace of its datasets, such as `postgres://db.example:5432`.
        jobs: namespace of its jobs.
        database: name of the database.
    """

    def __init__(self, producer: str, namespace: str, jobs: str, database: str) -> None:
        self.producer = producer
        self.namespace = namespace
        self.jobs = jobs
        self.database = database

    def facet(self, name: str, /, **content: Any) -> dict[str, Any]:
        """Return a facet with its producer and its schema."""
        return {
            "_producer": self.producer,
            "_schemaURL": f"https://openlineage.io/spec/facets/{FACETS[name]}.json",
            **content,
        }

    def own_facet(self, schema: str, /, **content: Any) -> dict[str, Any]:
        """Return a facet of refold's own, whose schema is published at a URL."""
        return {"_producer": self.producer, "_schemaURL": schema, **content}

    def audit_events(
        self,
        projection: str,
        run: str,
        began_at: datetime,
        ended_at: datetime | None,
        differed: int | None,
        facts: Mapping[str, Any],
    ) -> list[Event]:
        """Return the events of an audit, as a run of a test: its start, and its end.

        Args:
            projection: the metric that was compared.
            run: what tells the audit from all others.
            began_at: when it began.
            ended_at: when it ended; None if what it found is not healed yet.
            differed: slices that differed from the events; None: it is not known how many.
            facts: of the audit, such as its depth.
        """
        name = f"{projection} equals its query"
        failed = ended_at is None or differed != 0
        test = {
            "name": name,
            "description": "Rows are what the query of the metric makes of the events that it has applied.",
            # Slices that differ are healed in the audit's own transaction.
            "severity": "error" if ended_at is None else "warn",
            "expected": "slices that differ: 0",
            "actual": "rows differ" if differed is None else f"slices that differ: {differed}",
            "params": dict(facts),
        }
        tested = self.facet("test", tests=[{**test, "status": "fail" if failed else "pass", "type": "equals_query"}])
        asserted = self.facet(
            "dataQualityAssertions", assertions=[{**test, "success": not failed, "assertion": "equals_query"}]
        )
        kind = self.facet("jobType", processingType="BATCH", integration="REFOLD", jobType="AUDIT")
        job = self.job(f"{projection}.reconcile", {"jobType": kind})
        metric = self.dataset(f"metrics.{projection}")
        seen = {**metric, "inputFacets": {"dataQualityAssertions": asserted}}
        return [
            self.run_event(began_at, "START", run, {}, job, [metric], []),
            self.run_event(ended_at or began_at, "COMPLETE", run, {"test": tested}, job, [seen], []),
        ]

    def dataset(self, relation: str, facets: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Return a dataset.

        Args:
            relation: its name with its schema.
            facets: its facets.
        """
        return {
            "namespace": self.namespace,
            "name": f"{self.database}.{relation}",
            **({"facets": dict(facets)} if facets else {}),
        }

    def job(self, name: str, facets: Mapping[str, Any]) -> dict[str, Any]:
        """Return a job."""
        return {"namespace": self.jobs, "name": f"{self.database}.{name}", "facets": dict(facets)}

    def job_event(
        self, at: datetime, job: Mapping[str, Any], inputs: Sequence[Mapping[str, Any]], outputs: Sequence[Any]
    ) -> Event:
        """Return the event of a job outside of any run: what it reads and writes by definition."""
        return {
            "eventTime": at.isoformat(),
            "producer": self.producer,
            "schemaURL": f"{SPEC}#/$defs/JobEvent",
            "job": dict(job),
            "inputs": list(inputs),
            "outputs": list(outputs),
        }

    def run_event(
        self,
        at: datetime,
        state: RunState,
        run: str,
        facets: Mapping[str, Any],
        job: Mapping[str, Any],
        inputs: Sequence[Mapping[str, Any]],
        outputs: Sequence[Any],
    ) -> Event:
        """Return an event of a run.

        Args:
            at: when.
            state: what happened to the run.
            run: what tells it from all others, such as the table of a build and its time; the run's id is made of it.
            facets: facets of the run.
            job: the job.
            inputs: what it reads.
            outputs: what it writes.
        """
        return {
            "eventType": state,
            "eventTime": at.isoformat(),
            "producer": self.producer,
            "schemaURL": f"{SPEC}#/$defs/RunEvent",
            "run": {"runId": str(uuid.uuid5(RUNS, run)), "facets": dict(facets)},
            "job": dict(job),
            "inputs": list(inputs),
            "outputs": list(outputs),
        }

    def column_facet(self, lineage: ColumnLineage, relations: Mapping[str, str]) -> dict[str, Any] | None:
        """Return the facet of column lineage; None if nothing is known.

        Columns whose sources are unknown are not in it.

        Args:
            lineage: what is behind the columns.
            relations: the relation of each source, with its schema, by its name in the lineage.
        """
        if lineage.unknown is not None:
            return None
        description = None if lineage.observed is None else f"observed on {lineage.observed} events"
        fields = {
            name: {"inputFields": self._inputs(sources, relations, description)}
            for name, sources in lineage.columns.items()
            if sources is not None
        }
        rows = self._inputs(lineage.rows, relations, description)
        return self.facet("columnLineage", fields=fields, **({"dataset": rows} if rows else {}))

    def _inputs(
        self, sources: Iterable[Source], relations: Mapping[str, str], description: str | None
    ) -> list[dict[str, Any]]:
        fields: dict[tuple[str, str], list[dict[str, Any]]] = {}
        for one in sources:
            how: dict[str, Any] = {"type": one.type, "subtype": one.subtype}
            if description is not None:
                how["description"] = description
            fields.setdefault((one.relation, one.column), []).append(how)
        return [
            {**self.dataset(relations[relation]), "field": column, "transformations": how}
            for (relation, column), how in fields.items()
        ]
