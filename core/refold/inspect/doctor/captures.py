"""Checks of captures: files, records, functions and triggers must agree, and no capture may be paused for long."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import psycopg

from refold.engine.capture.catalog import table_shape
from refold.engine.capture.deploy import current, differences
from refold.errors import RefoldError
from refold.inspect.doctor.check import Check, looking
from refold.model.capture.capture_file import captures_beside, load_captures
from refold.model.capture.shape import TableShape
from refold.model.sql_text import ident
from refold.store import captures as store
from refold.store.captures import Capture, Gaps

NAME = "captures"


def captures(folder: Path | None, conn: psycopg.Connection) -> list[Check]:
    """Check each capture.

    Args:
        folder: the folder of projections, beside which captures have theirs; None compares no files.
        conn: connection of the login.
    """
    with looking(conn):
        found = store.every(conn)
        gaps = store.gaps(conn)
        checks: list[Check] = []
        for one in found:
            table = table_shape(conn, one.table_schema, one.table_name)
            checks += judged(one, table, differences(one, current(conn, one)), gaps.get(one.capture_id))
    if folder is not None:
        checks += _files(captures_beside(folder), found)
    if not checks and found:
        return [Check(NAME, "ok", f"{', '.join(one.name for one in found)}: as deployed")]
    return checks


def judged(capture: Capture, table: TableShape | None, damage: Sequence[str], gaps: Gaps | None) -> list[Check]:
    """Return what is wrong with a capture. Pure.

    Args:
        capture: the capture as it was deployed.
        table: its table as it is now, if it is there.
        damage: how functions and triggers differ from what was deployed.
        gaps: its gaps.
    """
    name, where = capture.name, f"{capture.table_schema}.{capture.table_name}"
    if table is None:
        return [
            Check(
                NAME, "fail", f"{name}: its table {where} is gone, or has another name",
                f"`refold captures drop {name}`, or correct the table in its file and run `refold deploy`.",
            )
        ]  # fmt: skip
    told = [Check(NAME, "fail", f"{name}: {one}", "Run `refold deploy`, then a backfill.") for one in damage]
    here, there = set(table.recorded()), set(capture.columns)
    if here != there:
        changed = sorted({one.split(" ", 1)[0] for one in here ^ there})
        told.append(
            Check(
                NAME, "warn", f"{name}: columns of {where} have changed since the deploy: {', '.join(changed)}",
                "Run `refold deploy`, which checks the expressions; `refold rejected` has rows that made no event.",
            )
        )  # fmt: skip
    for schema, partition in table.partitions:
        if f"{ident(schema)}.{ident(partition)}" not in capture.triggers:
            told.append(
                Check(
                    NAME, "warn", f"{name}: the partition {schema}.{partition} has no triggers of its own, so that"
                    " statements on it alone make no events", "Run `refold deploy`.",
                )
            )  # fmt: skip
    if gaps is not None and gaps.paused:
        why = f": {gaps.error}" if gaps.error else ""
        told.append(
            Check(
                NAME, "warn", f"{name} has been paused since {gaps.since:%Y-%m-%d %H:%M} UTC{why}",
                f"`refold captures resume {name}`, then `refold captures backfill {name}`.",
            )
        )  # fmt: skip
    elif gaps is not None and gaps.statements:
        told.append(
            Check(
                NAME, "warn", f"{name}: {gaps.statements:,} statements have made no events",
                f"`refold captures backfill {name}` closes the gap.",
            )
        )  # fmt: skip
    return told


def _files(folder: Path, recorded: Sequence[Capture]) -> list[Check]:
    """Compare the files of captures with what was deployed."""
    mistakes: list[RefoldError] = []
    files = {one.name: one for one in load_captures(folder, mistakes)}
    if not folder.is_dir():
        return []
    told = [Check(NAME, "fail", str(one), one.remedy or "") for one in mistakes]
    known = {one.name: one for one in recorded}
    changed = [
        name
        for name, file in files.items()
        if name not in known or known[name].definition.strip() != file.source.strip()
    ]
    if changed:
        told.append(
            Check(NAME, "warn", f"not deployed as their files are: {', '.join(changed)}", "Run `refold deploy`.")
        )
    return told
