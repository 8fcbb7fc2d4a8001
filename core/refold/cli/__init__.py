"""The command line: `refold …`.

Each module of commands registers them with `refold.cli.app.app` when it is imported.
"""

from refold.cli import (
    deadletters,
    demo,
    doctor,
    explain,
    incidents,
    ingest,
    metrics,
    query,
    reconcile,
    recover,
    report,
    scrub,
    server,
    setup,
    status,
    worker,
)
from refold.cli.app import app

__all__ = [
    "app",
    "deadletters",
    "demo",
    "doctor",
    "explain",
    "incidents",
    "ingest",
    "main",
    "metrics",
    "query",
    "reconcile",
    "recover",
    "report",
    "scrub",
    "server",
    "setup",
    "status",
    "worker",
]


def main() -> None:
    """The command `refold`."""
    app(prog_name="refold")
