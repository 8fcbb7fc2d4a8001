"""Which commands there are, in the order in which one needs them: all that `refold --help` has to know."""

from __future__ import annotations

from dataclasses import dataclass

START = "Start here"
METRICS = "Metrics"
DATA = "Events in, figures out"
TRUST = "Run and trust"
DATABASE = "Database"


@dataclass(frozen=True, slots=True)
class Listed:
    """A command as the list of commands shows it.

    Args:
        module: of `refold.cli`; it registers the command when it is imported.
        panel: under which heading.
        help: the first paragraph of its help.
    """

    module: str
    panel: str
    help: str


COMMANDS = {
    "demo": Listed(
        "demo",
        START,
        "See it work, in half a minute: a shop's day on a throwaway PostgreSQL, three accidents, and the proof.",
    ),
    "init": Listed(
        "setup", START, "Lay out a project: a folder for metrics, one example of each kind of file, and a README."
    ),
    "migrate": Listed("setup", START, "Install refold's schema in a database, or bring it up to this version."),
    "deploy": Listed("metrics", METRICS, "Make the metrics be what the files say."),
    "explain": Listed("explain", METRICS, "Show how a metric is kept, why so, and all the SQL that runs for it."),
    "rebuild": Listed("metrics", METRICS, "Build metrics again from the log, and switch to the new tables."),
    "promote": Listed("metrics", METRICS, "Go live with builds that were made with --no-promote."),
    "rollback": Listed(
        "metrics", METRICS, "Go back to the builds that were live before the deployment that brought NAME."
    ),
    "rename": Listed("metrics", METRICS, "Call a metric by another name, without building it again."),
    "drop": Listed("metrics", METRICS, "Take metrics off: nothing is kept for them any more, and their views go."),
    "ingest": Listed(
        "ingest", DATA, "Bring events in from files: JSON lines or CSV, plain or packed with gzip or zlib."
    ),
    "rejected": Listed(
        "query",
        DATA,
        "List the input that was set aside: conflicts and invalid events, with the reason and where they stood.",
    ),
    "query": Listed(
        "query", DATA, "Look at the metrics, as an analyst: one statement, read-only, in the schema `metrics`."
    ),
    "url": Listed(
        "query",
        DATA,
        "Print the database's URL, for psql, BI tools and notebooks. It includes the password, if there is one.",
    ),
    "worker": Listed("worker", TRUST, "Keep the metrics up to date: apply new events, page by page, exactly once."),
    "status": Listed(
        "status", TRUST, "Show every build: state, lag, freshness, rate; and the log, and what holds events back."
    ),
    "incidents": Listed(
        "incidents",
        TRUST,
        "List what went wrong: since when, who noticed it and when, when it was over, the evidence, and what to do.",
    ),
    "report": Listed(
        "report",
        TRUST,
        "Report events, duplicates, how fresh the metrics were, incidents and how long they lasted, and what was "
        "healed.",
    ),
    "doctor": Listed(
        "doctor", TRUST, "Check the database, the server and the metrics, each with a verdict and what to do."
    ),
    "reconcile": Listed("reconcile", TRUST, "Prove the metrics against the log, and heal what differs."),
    "scrub": Listed(
        "scrub",
        TRUST,
        "Verify the log itself: every event against the ledger, full slices against their sealed checksums.",
    ),
    "deadletters": Listed(
        "deadletters",
        TRUST,
        "Events that a projection could not process: look at them, try them again, give them up.",
    ),
    "recover": Listed(
        "recover",
        TRUST,
        "After a restore: bring every metric back under its query over the log, then let workers run again.",
    ),
    "server": Listed("server", DATABASE, "The embedded PostgreSQL, used when no --database-url is given."),
}
"""By name."""
