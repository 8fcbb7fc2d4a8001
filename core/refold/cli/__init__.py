"""The command line: `refold …`.

Each module below registers its commands with `refold.cli.app.app` when it is imported.
"""

from importlib import import_module
from importlib.util import find_spec

from refold.cli.app import app

for _name in ("demo", "ingest", "setup", "metrics", "explain", "query", "worker", "status", "reconcile", "server"):
    if find_spec(f"refold.cli.{_name}") is not None:
        import_module(f"refold.cli.{_name}")

__all__ = ["app", "main"]


def main() -> None:
    """The command `refold`."""
    app(prog_name="refold")
