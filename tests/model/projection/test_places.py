"""What only Postgres sees of a query is told with the line on which it stands."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psycopg

from refold.engine.deployment.create import make_builds, new_deployment
from refold.errors import DefinitionError, RefoldError
from refold.model.projection.definition import load_directory
from tests.support.law import worker_connection

STARTED = "pg_postmaster_start_time"
N = "(metadata ->> 'n')"
REFUSED = {
    # file: its text, the line, words of the message
    "backend": (f"SELECT event_id,\n  action,\n  {STARTED}() AS p\nFROM events", 3, "more than its arguments"),
    "before_its_alias": (
        f"SELECT event_id,\n  action,\n  {STARTED}(\n  )\n  AS p FROM events", 3, "more than its arguments",
    ),
    "in_where": (
        f"-- A head.\nSELECT event_id\nFROM events\nWHERE ts >\n  {STARTED}()", 5, "more than its arguments",
    ),
    "in_with": (
        f"-- key: user_id\nWITH one AS (\n  SELECT user_id, {STARTED}() > ts AS p FROM events\n)\n"
        "SELECT user_id, bool_or(p) AS p FROM one GROUP BY user_id",
        3,
        "more than its arguments",
    ),
    "mine": ("SELECT event_id,\n  public.mine(action) AS m\nFROM events", 2, "mine() depends on more"),
    "several": (
        "SELECT event_id,\n  jsonb_array_length(metadata -> 'i') AS n,\n  jsonb_array_elements(metadata -> 'i') AS v\n"
        "FROM events",
        3,
        "several rows of one event",
    ),
    "second_sum": (
        f"SELECT action,\n  sum(version) AS n,\n  sum(\n    power({N}::float8, 2)) AS p\nFROM events\nGROUP BY action",
        3,
        "adds floats",
    ),
    "second_deviation": (
        f"SELECT action,\n  stddev(version) AS whole,\n  stddev({N}::float4 * 2) AS part\nFROM events GROUP BY action",
        3,
        "stddev() adds floats",
    ),
    "average": (
        f"SELECT action,\n  avg(version) AS whole,\n  avg(sqrt({N}::float8)) AS part\nFROM events GROUP BY action",
        3,
        "adds floats",
    ),
    "json_column": ("SELECT event_id,\n  action,\n  metadata::json AS raw\nFROM events", 3, "raw is json"),
    "json_aggregate": (
        "SELECT user_id,\n  min(ts) AS first,\n  json_agg(action ORDER BY ts, event_id) AS raw\nFROM events\n"
        "GROUP BY user_id",
        3,
        "raw is json",
    ),
    "hashless": ("SELECT event_id,\n  version::bit(4) AS v\nFROM events", 2, "v is bit(4), which has no hash"),
    "hashless_key": (
        "SELECT\n  count(*) AS n,\n  version::bit(4) AS \"The Key\"\nFROM events GROUP BY 2", 3, "which has no hash",
    ),
    "settings": (
        "SELECT action,\n  count(*) AS n,\n  to_char(max(ts), 'YYYY') AS y\nFROM events GROUP BY action",
        3,
        "settings of the session",
    ),
    "settings_in_having": (
        "SELECT action,\n  count(*) AS n\nFROM events GROUP BY action\nHAVING to_char(max(ts), 'YYYY') > '2'",
        4,
        "settings of the session",
    ),
    "settings_without_a_name": (
        "SELECT action,\n  count(*) AS n,\n  max(ts) + interval '1 day' AS y\nFROM events GROUP BY action",
        3,
        "settings of the session",
    ),
}  # fmt: skip


def test_lines(database_url: str, admin: psycopg.Connection[Any], tmp_path: Path) -> None:
    admin.execute("CREATE FUNCTION public.mine(text) RETURNS text LANGUAGE sql AS 'SELECT $1'")
    for name, (text, _, _) in REFUSED.items():
        (tmp_path / f"{name}.sql").write_text(text)
    found: list[RefoldError] = []
    with worker_connection(database_url) as worker, worker.transaction(force_rollback=True):
        deployment = new_deployment(worker, "deploy", promote=False)
        make_builds(worker, load_directory(tmp_path).values(), deployment, resumed={}, mistakes=found)
    said = {one.path.stem: one for one in found if isinstance(one, DefinitionError) and one.path is not None}
    assert {name: (error.line, REFUSED[name][2] in str(error)) for name, error in said.items()} == {
        name: (line, True) for name, (_, line, _) in REFUSED.items()
    }
