"""Checks of sinks: files and records must agree, this machine must have what it needs, and pgmq must be there."""

from __future__ import annotations

from pathlib import Path

import psycopg

from refold.errors import RefoldError
from refold.inspect.doctor.check import Check, looking
from refold.inspect.sinks import SinkStatus, sink_statuses
from refold.model.sink.sink_file import load_sinks, sinks_beside
from refold.prose import counted
from refold.sinks.kinds.registry import kinds, receiver
from refold.store import sinks as store
from refold.store.schema import pgmq
from refold.store.sinks import Sink

NAME = "sinks"
PGMQ = "pgmq"


def sinks(folder: Path | None, conn: psycopg.Connection) -> list[Check]:
    """Check each sink.

    Args:
        folder: the folder of projections, beside which sinks have theirs; None compares no files.
        conn: connection of the login.
    """
    with looking(conn):
        found = store.every(conn)
        states = sink_statuses(conn)
    checks = [check for one in states for check in judged(one)]
    for sink in found:
        checks += _needs(sink)
    if folder is not None:
        checks += _files(sinks_beside(folder), found)
    if not checks and found:
        return [Check(NAME, "ok", f"{', '.join(one.name for one in found)}: as deployed, and delivered")]
    return checks


def judged(one: SinkStatus) -> list[Check]:
    """Return what is wrong with a sink. Pure."""
    if one.condition != "active":
        why = f": {one.error}" if one.error else ""
        return [Check(NAME, "warn", f"{one.sink} is {one.condition}{why}", f"`refold sinks resume {one.sink}`.")]
    if one.failures:
        return [
            Check(
                NAME,
                "warn",
                f"{one.sink}: failed {counted(one.failures, 'time')} in a row; the receiver says:"
                f" {one.error or one.status}",
                "Nothing is lost, and deliveries are tried again.",
            )
        ]
    if one.undelivered:
        return [
            Check(
                NAME, "warn", f"{one.sink}: the receiver has refused {one.undelivered:,} rows",
                f"`refold sinks undelivered {one.sink}`.",
            )
        ]  # fmt: skip
    return []


def _needs(sink: Sink) -> list[Check]:
    """Return what this machine lacks to deliver a sink."""
    if not sink.definition:
        return []
    try:
        receiver(sink.definition).close()
    except (RefoldError, ValueError) as error:
        return [
            Check(
                NAME, "warn", f"{sink.name} cannot be delivered from this machine: {error}",
                getattr(error, "remedy", "") or "Correct the file, and run `refold deploy`.",
            )
        ]  # fmt: skip
    return []


def _files(folder: Path, found: list[Sink]) -> list[Check]:
    mistakes: list[RefoldError] = []
    files = {one.name: one for one in load_sinks(folder, tuple(kinds()), mistakes)}
    checks = [Check(NAME, "warn", str(one), one.remedy or "") for one in mistakes]
    recorded = {one.name: one for one in found}
    for name, file in files.items():
        if name not in recorded:
            checks.append(Check(NAME, "warn", f"{name} has a file and is not deployed", "Run `refold deploy`."))
        elif recorded[name].definition and recorded[name].definition != file.source:
            checks.append(Check(NAME, "warn", f"{name} differs from its file", "Run `refold deploy`."))
    return checks


def queue(conn: psycopg.Connection) -> list[Check]:
    """Check that pgmq is installed, once, and in a version that refold knows."""
    now = pgmq.state(conn)
    if not now.present:
        return [Check(PGMQ, "fail", "the schema pgmq is missing: no sink can be deployed", "Run `refold migrate`.")]
    packaged = pgmq.packaged_version()
    if now.extension is not None:
        how = "as an extension"
    elif now.installed is not None:
        how = "from its package"
    else:
        return [Check(PGMQ, "ok", "installed by somebody else")]
    version = now.extension or now.installed
    if version != packaged:
        return [
            Check(
                PGMQ, "warn", f"version {version} is installed {how}; this refold was tested with {packaged}",
                "`ALTER EXTENSION pgmq UPDATE`, if the server has it; otherwise nothing, if sinks deliver.",
            )
        ]  # fmt: skip
    return [Check(PGMQ, "ok", f"{version}, {how}")]
