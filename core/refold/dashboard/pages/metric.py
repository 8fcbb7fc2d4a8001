"""`/metrics/NAME`: one metric, with its proofs, its freshness, and for who may see them its rows and definition."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import psycopg
from psycopg import sql

from refold.dashboard.ask import Ask, NotThere
from refold.dashboard.database import TooSlow
from refold.dashboard.wording import row_path
from refold.engine.retain.policy import Keeping, keeping
from refold.errors import DatabaseError, RefoldError
from refold.inspect.build_history import BuildLine, Repair, builds_of, repairs
from refold.inspect.health import BuildHealth, Health
from refold.inspect.latencies import Minute, latencies
from refold.inspect.left_out import LetterGroup, letter_groups
from refold.inspect.proofs import Hour, LastProof, last_proofs, strips
from refold.model.projection.without_upcasters import without_upcasters
from refold.store import canaries
from refold.store.builds.build import by_id
from refold.suggest import did_you_mean

ROWS = 15
"""Most rows that are shown."""
POINTS = 1_500
"""Most rows of the chart."""
DAY_S = 86_400.0
"""Seconds of a day."""
LINES = 5
"""Most lines of the chart."""
SLOW = "Reading the view took longer than two seconds, and was ended. The rest of this page does not depend on it."


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows of a metric, as an analyst sees them who reads the live build.

    Args:
        columns: their names.
        right: columns with numbers.
        keys: columns that identify a row.
        rows: the rows, newest first where there is a day.
        more: there are more.
        explains: for each row the page that explains it; empty if the view does not show what identifies a row.
        because: why there are none to see; empty if there are.
    """

    columns: list[str]
    right: list[str]
    keys: list[str]
    rows: list[tuple[Any, ...]]
    more: bool
    because: str = ""
    explains: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Chart:
    """A metric over its days.

    Args:
        column: the value that is drawn.
        names: name of each line.
        times: seconds since 1970.
        values: values of each line.
    """

    column: str
    names: list[str]
    times: list[float]
    values: list[list[float | None]]

    @property
    def data(self) -> str:
        """Return the chart as JSON for the script that draws it."""
        return json.dumps({"times": self.times, "values": self.values, "names": self.names, "unit": ""})


@dataclass(frozen=True, slots=True)
class MetricPage:
    """What the page of a metric shows; `None` is what this request may not see."""

    health: Health
    build: BuildHealth
    hours: list[Hour]
    minutes: list[Minute]
    proofs: list[LastProof]
    builds: list[BuildLine]
    repairs: list[Repair]
    letters: list[LetterGroup]
    readers: list[str]
    definition: str | None
    language: str | None
    upcasters: list[str]
    keeping: Keeping | None
    rows: Rows | None
    chart: Chart | None

    @property
    def freshness(self) -> str:
        """Return the freshness by minute as JSON for the script that draws it."""
        return json.dumps(
            {
                "times": [one.minute.timestamp() for one in self.minutes],
                "values": [[one.p50 for one in self.minutes], [one.p99 for one in self.minutes]],
                "names": ["p50", "p99"],
                "unit": "s",
            }
        )

    @property
    def proved_quick(self) -> LastProof | None:
        return next((one for one in self.proofs if one.depth == "quick"), None)

    @property
    def proved_deep(self) -> LastProof | None:
        return next((one for one in self.proofs if one.depth == "deep"), None)


def read(ask: Ask) -> MetricPage:
    """Read the page of a metric.

    Raises:
        NotThere: no metric has that name.
    """
    health = ask.health()
    name = ask.path["name"]
    build = health.metric(name)
    if build is None:
        known = [one.metric for one in health.live]
        raise NotThere(f"No metric is called {name}.{did_you_mean(name, known)}")
    hours = ask.observe(lambda conn: strips(conn, [build.build_id]).get(build.build_id, []))
    minutes = ask.observe(lambda conn: latencies(conn, [build.build_id], stage="fresh").by_minute("fresh"))
    proofs = ask.observe(lambda conn: last_proofs(conn, build.build_id))
    builds = ask.observe(lambda conn: builds_of(conn, name))
    healed = ask.read(lambda conn: repairs(conn, build.build_id, evidence=ask.evidence))
    letters = [
        one
        for one in ask.read(lambda conn: letter_groups(conn, evidence=ask.evidence))
        if one.build_id == build.build_id
    ]
    kept = ask.observe(lambda conn: {one.metric: one for one in keeping(conn)}.get(name))
    readers = [one.metric for one in health.live if one.reads == name]
    definition = language = None
    upcasters: list[str] = []
    rows: Rows | None = None
    chart: Chart | None = None
    if ask.evidence:
        definition, language, upcasters = ask.read(lambda conn: _definition(ask, conn, build.build_id))
        rows, chart = _rows(ask, build, ask.read(lambda conn: _key(ask, conn, build)))
    return MetricPage(
        health, build, hours, minutes, proofs, builds, healed, letters, readers, definition, language, upcasters, kept,
        rows, chart,
    )  # fmt: skip


def _definition(ask: Ask, conn: psycopg.Connection, build_id: int) -> tuple[str | None, str | None, list[str]]:
    """Return a build's definition as its author wrote it, its language, and the actions whose upcasters it has."""
    row = conn.execute("SELECT definition, language FROM refold.builds WHERE build_id = %s", (build_id,)).fetchone()
    if row is None:
        return None, None, []
    found = without_upcasters(row[0])
    actions = found.actions
    if row[1] == "python":
        # The code of a transform may not be here.
        with suppress(RefoldError):
            transform = ask.compiler.of(conn, by_id(conn, build_id)).transform
            if transform is not None and transform.upcast is not None:
                actions = without_upcasters(transform.upcast).actions
    return found.text, row[1], list(actions)


def _key(ask: Ask, conn: psycopg.Connection, build: BuildHealth) -> tuple[str, ...]:
    """Return the columns of the key by which a row is explained."""
    try:
        return ask.compiler.of(conn, by_id(conn, build.build_id)).statements.relations[0].key
    except RefoldError:
        # The code of a transform is not here; its page says so.
        return ("event_id",)


def _rows(ask: Ask, build: BuildHealth, key: tuple[str, ...]) -> tuple[Rows, Chart | None]:
    """Return rows and chart; a view that is slow, gone or not readable costs only these."""
    try:
        return ask.analyse(lambda conn: _of_view(conn, build, key))
    except TooSlow:
        return Rows([], [], [], [], False, SLOW), None
    except DatabaseError as error:
        return Rows([], [], [], [], False, f"{error}."), None
    except psycopg.Error as error:
        kind = type(error).__name__
        return Rows([], [], [], [], False, f"The view metrics.{build.metric} cannot be read ({kind})."), None


_KEYS = """
SELECT a.attname::text
FROM pg_index AS i
CROSS JOIN LATERAL unnest(i.indkey::int2[]) WITH ORDINALITY AS k (attnum, place)
JOIN pg_attribute AS a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
JOIN pg_class AS c ON c.oid = i.indrelid
JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE n.nspname = 'refold_builds' AND c.relname = %s AND i.indisunique AND i.indexprs IS NULL
ORDER BY i.indisprimary DESC, i.indexrelid, k.place
"""
_NUMBERS = (20, 21, 23, 700, 701, 1700)
_DAYS = (1082, 1114, 1184)


def _of_view(conn: psycopg.Connection, build: BuildHealth, key: tuple[str, ...]) -> tuple[Rows, Chart | None]:
    view = sql.Identifier("metrics", build.metric)
    with conn.transaction():
        # The verdict, the proofs and the explanations of the page are about the live build.
        canaries.off(conn)
        described = conn.execute(sql.SQL("SELECT * FROM {} LIMIT 0").format(view)).description or []
        columns = [column.name for column in described]
        kinds = {column.name: column.type_code for column in described}
        indexed = [str(name) for (name,) in conn.execute(_KEYS, (build.table,))]
        keys = [name for name in columns if name in indexed]
        days = [name for name in columns if kinds[name] in _DAYS]
        newest = sql.SQL("ORDER BY {} DESC").format(sql.Identifier(days[0])) if days else sql.SQL("")
        # Values as Postgres writes them, for the links: what Python makes of a value need not lead back to it.
        texts = sql.SQL(", ").join(sql.SQL("{}::text").format(sql.Identifier(name)) for name in key)
        of_key = sql.SQL("ARRAY[{}]").format(texts) if set(key) <= set(columns) else sql.SQL("NULL")
        found = conn.execute(
            sql.SQL("SELECT *, {} FROM {} {} LIMIT {}").format(of_key, view, newest, sql.Literal(ROWS + 1))
        ).fetchall()
        explains = tuple(
            row_path(build.metric, dict(zip(key, row[-1], strict=True))) for row in found[:ROWS] if row[-1]
        )
        right = [name for name in columns if kinds[name] in _NUMBERS]
        rows = Rows(columns, right, keys, [row[:-1] for row in found[:ROWS]], len(found) > ROWS, explains=explains)
        value = next((name for name in right if name not in keys), None)
        day = next((name for name in days if name in keys), None)
        if value is None or day is None or build.upkeep in ("facts", "transform"):
            return rows, None
        others = [name for name in keys if name != day]
        points = conn.execute(
            sql.SQL("SELECT {} FROM {} WHERE {} IS NOT NULL ORDER BY {} DESC LIMIT {}").format(
                sql.SQL(", ").join(map(sql.Identifier, (day, value, *others))),
                view,
                sql.Identifier(day),
                sql.Identifier(day),
                sql.Literal(POINTS),
            )
        ).fetchall()
    return rows, chart(value, points)


def chart(column: str, points: Sequence[tuple[Any, ...]]) -> Chart | None:
    """Return the lines of rows (day, value, other keys…): each combination of other keys is one, so that nothing is
    added up that cannot be. Pure."""
    lines: dict[tuple[Any, ...], dict[float, float]] = {}
    for day, value, *others in points:
        at = _seconds(day)
        number = _finite(value)
        if at is not None and number is not None:
            lines.setdefault(tuple(others), {})[at] = number
    largest = sorted(lines, key=lambda one: -sum(lines[one].values()))[:LINES]
    times = sorted({at for one in largest for at in lines[one]})
    if len(times) < 3:
        return None
    if all(at % DAY_S == 0 for at in times) and (times[-1] - times[0]) / DAY_S < POINTS:
        # A day without a row is a gap in the line: nobody knows that it would be zero.
        times = [times[0] + DAY_S * n for n in range(int((times[-1] - times[0]) / DAY_S) + 1)]
    names = [" · ".join("NULL" if part is None else str(part) for part in one) or column for one in largest]
    return Chart(column, names, times, [[lines[one].get(at) for at in times] for one in largest])


def _finite(value: Any) -> float | None:
    """Return a number that has a place on a line; None for NaN, infinity, and what is too large for a float."""
    try:
        number = float(value) if isinstance(value, int | float | Decimal) else math.nan
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _seconds(day: Any) -> float | None:
    if isinstance(day, datetime):
        return (day if day.tzinfo else day.replace(tzinfo=UTC)).timestamp()
    return datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp() if isinstance(day, date) else None
