"""What `refold deploy` says and does about sinks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import psycopg

from refold.cli.output import note, table
from refold.errors import RefoldError
from refold.model.projection.definition import Loading
from refold.model.sink.sink_file import load_sinks
from refold.sinks import deploy
from refold.sinks.deploy import SinkChange
from refold.sinks.kinds.registry import kinds, mistakes_of
from refold.store.builds.compiled import Compiler


def sinks_of(
    conn: psycopg.Connection, folder: Path, compiler: Compiler, loading: Loading, mistakes: list[RefoldError]
) -> list[SinkChange]:
    """Return what a deploy would change for the sinks of a folder, and add the mistakes in their files.

    Args:
        conn: acts as refold_worker.
        folder: the folder of sinks; it may not exist.
        compiler: makes the SQL of the builds.
        loading: the projections that the same deploy builds.
        mistakes: receives what is wrong.
    """
    files = load_sinks(folder, tuple(kinds()), mistakes)
    for file in files:
        mistakes += mistakes_of(file)
    mistakes += deploy.refused(conn, files, compiler, {name: loading.definitions.get(name) for name in loading.names})
    return deploy.plan(conn, files, {file.name for file in files})


def deploy_sinks(conn: psycopg.Connection, changes: Sequence[SinkChange]) -> list[str]:
    """Make the sinks of a plan, and return the names of those that changed."""
    made = [one for one in changes if one.makes]
    for one in made:
        deploy.deploy(conn, one)
    return [one.name for one in made]


def show_sinks(changes: Sequence[SinkChange]) -> None:
    """Print the plan."""
    rows = [(one.name, one.action, one.because) for one in changes if one.file is not None]
    if rows:
        table(("SINK", "ACTION", "DELIVERS"), rows)
    left = [one.name for one in changes if one.file is None]
    if left:
        note(f"sinks without a file here are left alone: {', '.join(left)} (`refold sinks drop` removes one)")


def sink_change(change: SinkChange) -> dict[str, object]:
    """Return a line of the plan for JSON."""
    return {
        "sink": change.name,
        "action": change.action,
        "because": change.because,
        "file": None if change.file is None else change.file.path,
    }
