"""The columns behind each column of every projection and view, in a golden file; hard queries."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from refold.model.lineage.columns import ColumnLineage, Source, column_lineage
from refold.model.projection.definition import Definition, load_directory
from refold.model.projection.plan import LOG, LOG_COLUMNS
from refold.store.schema.resources import projections_dir
from tests.support.live import PROJECTS

GOLDEN = Path(__file__).with_name("golden.txt")
ROOT = Path(__file__).parents[3]
SHOWN = {
    ("metrics", "active_users"): ("active_users", ["day", "users"]),
    ("metrics", "funnel_stages"): ("funnel_stages", ["user_id", "level"]),
    ("metrics", "user_weeks"): ("user_weeks", ["user_id", "week"]),
}


def told(source: Source) -> str:
    return f"{source.relation}.{source.column} {source.subtype}" + ("" if source.type == "DIRECT" else " *")


def lines(name: str, found: ColumnLineage) -> Iterator[str]:
    if found.unknown:
        yield f"{name}: unknown, {found.unknown}"
    for column, sources in found.columns.items():
        yield f"{name}.{column}: " + ("unknown" if sources is None else ", ".join(map(told, sources)) or "no column")
    if found.rows:
        yield f"{name} rows: {', '.join(map(told, found.rows))}"


def of_file(definition: Definition, others: dict[str, Definition]) -> ColumnLineage:
    stream = definition.plan.stream
    columns = LOG_COLUMNS if stream == LOG else others[stream].plan.stream_columns
    assert definition.path is not None
    return column_lineage(definition.path.read_text(), {("", stream): (stream, columns)})


def of_view(path: Path) -> ColumnLineage:
    text = path.read_text()
    start = text.index(" AS\n") + 4
    return column_lineage(text[start : text.index("COMMENT ON VIEW")].strip().rstrip(";"), SHOWN)


def everything() -> Iterator[str]:
    """One line for each column of every projection and view, `*` after what only decides."""
    for folder in (projections_dir(), *(PROJECTS / name for name in ("law", "shop", "prices", "real"))):
        definitions = load_directory(folder)
        for name, definition in sorted(definitions.items()):
            if definition.transform is None:
                yield from lines(f"{folder.name}/{name}", of_file(definition, definitions))
    for path in sorted((ROOT / "sql" / "views").glob("*.sql")):
        yield from lines(f"views/{path.stem}", of_view(path))


def test_golden() -> None:
    assert list(everything()) == GOLDEN.read_text().splitlines()


HARD = {
    "SELECT * FROM metrics.user_weeks": {"user_id": "user_weeks.user_id IDENTITY", "week": "user_weeks.week IDENTITY"},
    'SELECT "Week" AS "W k" FROM (SELECT week AS "Week" FROM metrics.user_weeks) AS "S x"': {
        "W k": "user_weeks.week IDENTITY"
    },
    "SELECT to_jsonb(u) AS j FROM metrics.user_weeks AS u": {
        "j": "user_weeks.user_id TRANSFORMATION, user_weeks.week TRANSFORMATION"
    },
    "SELECT user_id, b.level FROM metrics.user_weeks a JOIN metrics.funnel_stages b USING (user_id)": {
        "user_id": "funnel_stages.user_id TRANSFORMATION, user_weeks.user_id TRANSFORMATION",
        "level": "funnel_stages.level IDENTITY",
    },
    "SELECT x.day FROM metrics.active_users x UNION SELECT week FROM metrics.user_weeks": {
        "day": "active_users.day IDENTITY, user_weeks.week IDENTITY"
    },
    "SELECT x.day FROM metrics.active_users x EXCEPT SELECT week FROM metrics.user_weeks": {
        "day": "active_users.day IDENTITY, user_weeks.week FILTER *"
    },
    "SELECT (SELECT max(level) FROM metrics.funnel_stages WHERE user_id = u.user_id) AS t FROM metrics.user_weeks u": {
        "t": "funnel_stages.level AGGREGATION, funnel_stages.user_id FILTER *, user_weeks.user_id FILTER *"
    },
    "SELECT sum(users) OVER w AS running FROM metrics.active_users WINDOW w AS (ORDER BY day)": {
        "running": "active_users.day WINDOW *, active_users.users AGGREGATION"
    },
    "SELECT CASE WHEN day > '2026-01-01' THEN users END AS late FROM metrics.active_users": {
        "late": "active_users.day CONDITIONAL *, active_users.users TRANSFORMATION"
    },
    "SELECT l.w, u.week FROM metrics.user_weeks u, LATERAL (SELECT u.week + 1 AS w) l": {
        "w": "unknown",
        "week": "user_weeks.week IDENTITY",
    },
    "SELECT array_agg(w.*) AS r FROM metrics.user_weeks AS w": {"r": "unknown"},
}


@pytest.mark.parametrize("sql", HARD)
def test_hard_queries(sql: str) -> None:
    found = column_lineage(sql, SHOWN)
    assert found.unknown is None
    columns = {name: None if one is None else ", ".join(map(told, one)) for name, one in found.columns.items()}
    assert {name: "unknown" if one is None else one for name, one in columns.items()} == HARD[sql]


@pytest.mark.parametrize(
    ("sql", "because"),
    [
        ("WITH RECURSIVE a AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM a) SELECT n FROM a", "a recursive query"),
        ("SELECT g FROM generate_series(1, 3) AS g", "a function in FROM"),
        ("SELECT day FROM metrics.active_users NATURAL JOIN metrics.user_weeks", "a NATURAL join"),
        ("SELECT 1 AS a FROM other.table_x", "it reads other.table_x, which is no metric or stream"),
        ("SELECT a FROM metrics.user_weeks AS w (a, b)", "FROM gives other names to columns"),
        ("DELETE FROM metrics.user_weeks", "it is no query"),
    ],
)
def test_what_cannot_be_told_is_unknown(sql: str, because: str) -> None:
    found = column_lineage(sql, SHOWN)
    assert found.unknown == because and not found.columns
