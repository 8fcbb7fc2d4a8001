"""A metric keeps the newest days only, while events come late for days that are gone; killed while rows go."""

from __future__ import annotations

import time
from datetime import UTC, date, datetime, timedelta
from typing import Any

import psycopg
from psycopg import sql

from chaos.faults.injection import DUTY_S, Injected, operate, watch
from chaos.kept import command
from chaos.stage import Stage

TRIES = 6
"""Times that a command is run to its end; whatever is left then is done before the count."""


def retained(stage: Stage, how: dict[str, Any], done: Injected) -> None:
    """Rows of old days go; of those that are gone already, a rebuild brings back what is to be kept now."""
    name, day = how["metric"], datetime.now(UTC).date() - timedelta(days=how["days"])
    before = stage.kept.get(name)
    if before is not None and before > day and not _bring_back(stage, done, name, before):
        done.note = f"{name} could not be rebuilt, and keeps its days since {before}"
        return
    # From now on nothing older may be left in the end, whoever goes on.
    stage.kept[name] = day
    killed = []
    for point in how["at"].split(",") if stage.breaking is None else ():
        if stage.hurries:
            break
        killed.append(point)
        operate(stage, done, *command(name, day), at=point)
    status = _until_done(stage, done, command(name, day))
    note = f"{name} since {day}, killed at {', '.join(killed) or 'no point'}; then {status}"
    # A build that was being loaded follows when it is; the duty sees to it.
    within = DUTY_S if stage.breaking is None else 0.1
    if status == 0 and not watch(stage, within, lambda conn: _oldest(conn, name) >= day):
        done.wrong.append(("I3", f"{name} keeps its days since {day}, and has older ones {within:.0f} s later"))
    done.note = note


def _bring_back(stage: Stage, done: Injected, name: str, before: date) -> bool:
    """Lets a metric have all its rows again; answers whether it has."""
    if _until_done(stage, done, ("retain", name, "--forever")) == 0:
        if _until_done(stage, done, ("rebuild", name)) == 0:
            del stage.kept[name]
            return True
        # Whoever rebuilds it now would bring back what the count does not expect.
        _until_done(stage, done, command(name, before))
    return False


def _until_done(stage: Stage, done: Injected, arguments: tuple[str, ...]) -> int:
    status = -1
    for _ in range(TRIES):
        status = operate(stage, done, *arguments).status
        if status == 0:
            break
        time.sleep(1)
    return status


def _oldest(conn: psycopg.Connection, name: str) -> date:
    row = conn.execute(sql.SQL("SELECT min(day) FROM metrics.{}").format(sql.Identifier(name))).fetchone()
    return date.max if row is None or row[0] is None else row[0]
