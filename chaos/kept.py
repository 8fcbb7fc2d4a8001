"""Metrics that keep their newest days only, and the command that says so."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from types import MappingProxyType

from chaos.findings import Findings
from chaos.oracle import Metric, Rows
from chaos.stage import Finished, Stage

Kept = Mapping[str, date]
"""The first day that a metric keeps."""
ALL: Kept = MappingProxyType({})


def command(name: str, day: date) -> tuple[str, ...]:
    """The command that lets older days go."""
    return ("retain", name, "--from", day.isoformat(), "--yes", "--json")


def rows_since(rows: Rows, metric: Metric, day: date | None) -> Rows:
    """The rows of the days that a metric keeps; all, if it keeps all."""
    if day is None:
        return rows
    place = metric.columns.index("day")
    return {key: values for key, values in rows.items() if key[place] >= day}


def query_since(query: str, day: date | None) -> str:
    """The query of the days that a metric keeps."""
    return query if day is None else f"SELECT * FROM (\n{query}\n) AS every WHERE day >= '{day}'"


def finish(stage: Stage, found: Findings) -> None:
    """The same commands once more: whoever was killed has said what is kept, and somebody goes on with it."""
    for name, day in stage.kept.items():
        ran: Finished = stage.refold(*command(name, day))
        if ran.status != 0:
            found.add("I3", f"refold retain {name} ended with {ran.status} in the end: {(ran.err or ran.out)[-500:]}")
