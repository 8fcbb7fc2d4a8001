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
    "init": Listed(
        "setup", START, "Create a project: a folder for metrics, one example of each kind of file, and a README."
    ),
    "migrate": Listed("setup", START, "Install refold's schema in a database, or upgrade it to this version."),
    "deploy": Listed("deploy", METRICS, "Make the live metrics match the files."),
    "explain": Listed("explain", METRICS, "Show how refold keeps a metric up to date, why, and the SQL that it runs."),
    "rebuild": Listed("rebuild", METRICS, "Rebuild metrics from the log, then switch to the new tables."),
    "promote": Listed("promote", METRICS, "Promote builds that were made with --no-promote."),
    "rollback": Listed("rollback", METRICS, "Return to the builds that were live before the last deployment of NAME."),
    "rename": Listed("rename", METRICS, "Rename a metric without rebuilding it."),
    "drop": Listed("drop", METRICS, "Drop metrics: refold stops updating them and removes their views."),
    "ingest": Listed(
        "ingest", DATA, "Load events from files: JSON, CSV or Parquet, plain or compressed with gzip, zlib or zstd."
    ),
    "serve": Listed(
        "serve", DATA, "Take events over HTTP: JSON, NDJSON, CloudEvents, and the SDKs of Segment and RudderStack."
    ),
    "tokens": Listed("tokens", DATA, "Create, list, rotate and revoke the tokens of `refold serve`."),
    "captures": Listed(
        "captures", DATA, "List, pause, resume, backfill and drop captures: events from tables that are there."
    ),
    "sinks": Listed(
        "sinks",
        DATA,
        "List, pause, resume, replay, test and drop sinks, which deliver metrics to receivers.",
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
    "deliver": Listed("deliver", TRUST, "Deliver metrics to the receivers of sinks."),
    "status": Listed(
        "status", TRUST, "Show every build with its state, lag and rate; the log; and transactions that block events."
    ),
    "incidents": Listed(
        "incidents",
        TRUST,
        "List incidents: when each began, was detected and was resolved, with the evidence and what to do.",
    ),
    "report": Listed(
        "report",
        TRUST,
        "Report a time span in numbers: events, duplicates, latencies, incidents with duration, healed rows.",
    ),
    "doctor": Listed(
        "doctor", TRUST, "Check the database, the server and the metrics. Each check has a verdict and a remedy."
    ),
    "reconcile": Listed("reconcile", TRUST, "Compare the metrics with the log, and heal rows that differ."),
    "scrub": Listed(
        "scrub",
        TRUST,
        "Verify the log: every event against the ledger, and full slices against their sealed checksums.",
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
