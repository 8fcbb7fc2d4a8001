"""The list of commands, in the order in which a user needs them: all that `refold --help` has to know."""

from __future__ import annotations

from dataclasses import dataclass

START = "Start here"
METRICS = "Metrics"
DATA = "Data"
TRUST = "Operations"
DATABASE = "Database"


@dataclass(frozen=True, slots=True)
class Listed:
    """A command as the list of commands shows it.

    Args:
        module: module of `refold.cli` that registers the command when it is imported.
        panel: heading of the group of commands.
        help: first paragraph of the command's help.
    """

    module: str
    panel: str
    help: str


COMMANDS = {
    "demo": Listed(
        "demo",
        START,
        "Run a half-minute demo on a throwaway PostgreSQL: a shop's events, three faults, and the final audit.",
    ),
    "up": Listed(
        "up",
        START,
        "Run all of refold here: migrate, deploy the files, then workers, events over HTTP and the dashboard.",
    ),
    "init": Listed(
        "setup", START, "Create a project: a folder for metrics, one example of each kind of file, and a README."
    ),
    "migrate": Listed("setup", START, "Install refold's schema in a database, or upgrade it to this version."),
    "deploy": Listed("deploy", METRICS, "Make the live metrics match the files."),
    "explain": Listed("explain", METRICS, "Show how refold keeps a metric up to date, why, and the SQL that it runs."),
    "lineage": Listed(
        "lineage", METRICS, "Show the path of events: captures, the log, streams, metrics, analysts' views and sinks."
    ),
    "rebuild": Listed("rebuild", METRICS, "Rebuild metrics from the log, then switch to the new tables."),
    "promote": Listed("promote", METRICS, "Promote builds that were made with --no-promote."),
    "diff": Listed("diff", METRICS, "Compare the live build of a metric with the build that waits to go live."),
    "shadow": Listed(
        "shadow", METRICS, "Run a transform's changed function over a sample of events, beside its live rows."
    ),
    "canary": Listed("canary", METRICS, "Show candidates to some readers first, and let rules promote or abort them."),
    "rollback": Listed("rollback", METRICS, "Return to the builds that were live before the last deployment of NAME."),
    "rename": Listed("rename", METRICS, "Rename a metric without rebuilding it."),
    "drop": Listed("drop", METRICS, "Drop metrics: refold stops updating them and removes their views."),
    "retain": Listed(
        "retain",
        METRICS,
        "Say how long the rows of a metric are kept, and let older ones go; without NAME, list what is kept.",
    ),
    "ingest": Listed(
        "ingest", DATA, "Load events from files: JSON, CSV or Parquet, plain or compressed with gzip, zlib or zstd."
    ),
    "backfill": Listed(
        "backfill", DATA, "Bring history from files into the log: stage it, see what it would change, and run it."
    ),
    "serve": Listed(
        "serve", DATA, "Take events over HTTP: JSON, NDJSON, CloudEvents, and the SDKs of Segment and RudderStack."
    ),
    "tokens": Listed("tokens", DATA, "Create, list, rotate and revoke the tokens of `refold serve`."),
    "contracts": Listed(
        "contracts", DATA, "List, draft and check contracts, which say what the metadata of events must be."
    ),
    "captures": Listed(
        "captures", DATA, "List, pause, resume, backfill and drop captures: events from tables that are there."
    ),
    "sinks": Listed(
        "sinks",
        DATA,
        "List, pause, resume, replay, skip, test and drop sinks, which deliver metrics to receivers.",
    ),
    "rejected": Listed(
        "rejected",
        DATA,
        "List the input that was rejected: conflicts and invalid events, each with its reason, source and line.",
    ),
    "query": Listed(
        "query", DATA, "Query the metrics as an analyst: one read-only statement, in the schema `metrics`."
    ),
    "url": Listed(
        "url",
        DATA,
        "Print the database's URL for psql, BI tools and notebooks. It includes any password.",
    ),
    "worker": Listed("worker", TRUST, "Keep the metrics up to date: apply new events, page by page, exactly once."),
    "deliver": Listed(
        "deliver", TRUST, "Deliver metrics to the receivers of sinks, and notices of incidents to their routes."
    ),
    "status": Listed(
        "status", TRUST, "Show every build with its state, lag and rate; the log; and transactions that block events."
    ),
    "dashboard": Listed(
        "dashboard",
        TRUST,
        "Show in a browser whether the metrics are right, how fresh they are, and what needs a person.",
    ),
    "incidents": Listed(
        "incidents",
        TRUST,
        "List incidents: when each began, was detected and was resolved, with the evidence and what to do.",
    ),
    "anomalies": Listed("anomalies", TRUST, "List the series that are watched, and what is unusual about them now."),
    "notices": Listed("notices", TRUST, "List and test the routes that are told of incidents."),
    "report": Listed(
        "report",
        TRUST,
        "Report a time span in numbers: events, duplicates, latencies, incidents with duration, healed rows.",
    ),
    "metrics": Listed(
        "metrics",
        TRUST,
        "Show figures of the deployment for Prometheus: events, lag, proofs, latencies, incidents, sinks.",
    ),
    "trace": Listed(
        "trace", TRUST, "Show when an event, or all events of a trace, reached each metric; no backend is needed."
    ),
    "doctor": Listed(
        "doctor", TRUST, "Check the database, the server and the metrics. Each check has a verdict and a remedy."
    ),
    "why": Listed("why", TRUST, "Explain a row: show the events behind it, and count it again from them."),
    "where": Listed(
        "why",
        TRUST,
        "Find an event: show the event, the rows of all metrics that it is in, and why it is in no row of the others.",
    ),
    "reconcile": Listed("reconcile", TRUST, "Compare the metrics with the log, and heal rows that differ."),
    "scrub": Listed(
        "scrub",
        TRUST,
        "Verify the log: every event against the ledger, and full slices against their sealed checksums.",
    ),
    "archive": Listed(
        "archive",
        TRUST,
        "Archive the log: write sealed segments to a store as Parquet, verify them, and bring them back.",
    ),
    "erase": Listed(
        "erase",
        TRUST,
        "Erase a person: from the log, the metrics, refold's own tables and the archive, with a proof.",
    ),
    "deadletters": Listed(
        "deadletters",
        TRUST,
        "List, retry or drop dead letters: events that a projection could not process.",
    ),
    "recover": Listed(
        "recover",
        TRUST,
        "Recover after a restore: audit and heal every metric against the log, then let workers run again.",
    ),
    "server": Listed("server", DATABASE, "Manage the embedded PostgreSQL, which refold uses without a --database-url."),
}
"""By name."""
