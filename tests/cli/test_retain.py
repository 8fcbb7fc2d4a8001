"""`refold retain`, as a person uses it, and what other commands say afterwards."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from typing import Any

import psycopg
import pytest
from typer.testing import CliRunner

from refold.cli.app import app
from refold.cli.retain import interval
from refold.engine.retain.let_go import let_go
from refold.errors import InputError
from refold.exporter.readings import read
from refold.postgres.connect import Role, connect
from refold.store.retentions import every
from tests.engine.retain.conftest import FIRST, PROJECT, Retained, retained  # noqa: F401

pytestmark = pytest.mark.live("retained")

BORDER = FIRST + timedelta(days=40)
Refold = Callable[..., str]


@pytest.fixture
def refold(retained: Retained, monkeypatch: pytest.MonkeyPatch) -> Refold:  # noqa: F811
    monkeypatch.setenv("REFOLD_DATABASE_URL", retained.url)
    monkeypatch.chdir(PROJECT.parent)

    def run(*arguments: str, exits: int = 0) -> str:
        done = CliRunner().invoke(app, list(arguments))
        assert done.exit_code == exits, done.output
        return " ".join(done.output.split())

    return run


def test_from_the_dry_run_to_forever(retained: Retained, refold: Refold) -> None:  # noqa: F811
    ask = ("retain", "users", "--from", str(BORDER))
    days = [day for day in retained.days("users") if day < BORDER]
    assert refold("retain") == "every metric keeps all its rows"
    assert f"{len(days)} rows would go, of {days[0]} to {days[-1]}" in refold(*ask, "--dry-run")
    told = json.loads(refold(*ask, "--dry-run", "--json"))
    assert (told["rows"], told["slices"], told["kept_from"], told["done"]) == (len(days), len(days), str(BORDER), False)
    assert "stdin is not a terminal" in refold(*ask, exits=2)
    assert retained.days("users")[0] < BORDER
    assert f"users keeps its rows from {BORDER} on {len(days)} rows went" in refold(*ask, "--yes")
    assert retained.days("users")[0] >= BORDER
    # Nothing goes, so nobody is asked.
    assert "0 rows went" in refold(*ask)
    [listed] = json.loads(refold("retain", "--json"))["metrics"]
    assert listed.pop("set_at")
    assert listed == {
        "metric": "users",
        "keep": None,
        "from": str(BORDER),
        "kept_from": str(BORDER),
        "set_by": "postgres",
    }
    assert f"users from {BORDER}" in refold("retain")
    assert f"kept users from {BORDER}" in refold("status")
    [status] = [one for one in json.loads(refold("status", "--json"))["builds"] if one["projection"] == "users"]
    assert status["kept_from"] == str(BORDER)
    freshness = retained.admin.execute("SELECT metric, kept_from FROM metrics.freshness WHERE kept_from IS NOT NULL")
    assert freshness.fetchall() == [("users", BORDER)]
    assert f"its rows before {BORDER} are gone" in refold("retain", "users", "--forever").lower()
    assert "all, from the next rebuild on" in refold("retain")
    refold("rebuild", "users", "--projections", str(PROJECT))
    assert refold("retain") == "every metric keeps all its rows"
    assert retained.days("users")[: len(days)] == days
    done = retained.admin.execute(
        "SELECT command, outcome FROM refold.actions WHERE command = 'retain' ORDER BY action_id"
    ).fetchall()
    assert done == [("retain", "failed: InputError"), *[("retain", "done")] * 3]


def test_what_is_refused(retained: Retained, refold: Refold) -> None:  # noqa: F811
    assert "needs the NAME" in refold("retain", "--keep", "3d", exits=2)
    assert "exclude each other" in refold("retain", "users", "--keep", "3d", "--forever", exits=2)
    assert "it is not said how long" in refold("retain", "users", exits=2)
    assert "is not a day" in refold("retain", "users", "--from", "yesterday", exits=2)
    assert "no projection named usres is live. Did you mean users?" in refold(
        "retain", "usres", "--keep", "3d", exits=2
    )
    assert "no projection named usres is live" in refold("retain", "usres", "--forever", exits=2)
    assert "these rows stay; months reads them again" in refold("retain", "clicks", "--keep", "3d", exits=2)
    assert "the key of by_user has no day" in refold("retain", "by_user", "--keep", "3d", exits=2)
    refold("retain", "users", "--from", str(BORDER), "--yes")
    told = refold("retain", "users", "--from", str(FIRST), exits=2)
    assert "refold retain users --forever" in told and "refold rebuild users" in told
    assert retained.admin.execute("SELECT count(*) FROM refold.retentions").fetchone() == (1,)


def test_what_operators_see_of_it(retained: Retained, refold: Refold) -> None:  # noqa: F811
    def seen(name: str) -> dict[str, float]:
        with connect(retained.url, "refold_observer", autocommit=True) as conn:
            readings = read(conn)
        return {one.projection: getattr(one, name) for one in readings.builds if getattr(one, name) is not None}

    def day(one: date) -> float:
        return datetime(one.year, one.month, one.day, tzinfo=UTC).timestamp()

    def check() -> list[tuple[str, str]]:
        checks = json.loads(CliRunner().invoke(app, ["doctor", "--json"]).stdout)
        return [(one["verdict"], one["found"]) for one in checks if one["name"] == "retention"]

    assert (check(), seen("kept_from"), seen("wanted_from")) == ([], {}, {})
    assert "kept from" not in refold("explain", "users", "--deployed")
    # Nobody lets rows go: a day passes.
    days = [one for one in retained.days("users") if one < BORDER]
    retained.admin.execute("INSERT INTO refold.retentions (projection, keep_from) VALUES ('users', %s)", (BORDER,))
    retained.admin.execute("INSERT INTO refold.retentions (projection, keep_from) VALUES ('months', %s)", (FIRST,))
    assert check() == [("ok", "2 metrics with a limit, and no row overdue")]
    assert (seen("kept_from"), seen("wanted_from")["users"]) == ({}, day(BORDER))
    retained.admin.execute("UPDATE refold.retentions SET set_at = set_at - interval '25 hours'")
    told = f"users is to keep from {BORDER}, and has {len(days)} rows of earlier days, due for more than a day"
    assert check() == [("warn", told)]
    # A metric of whole months keeps the month of its first day, which is not late.
    let_go(retained.worker, retained.compiler, next(one for one in every(retained.worker) if one.projection == "users"))
    assert check() == [("ok", "2 metrics with a limit, and no row overdue")]
    assert seen("kept_from") == {"users": day(BORDER)}
    explained = refold("explain", "users", "--deployed")
    assert f"kept from {BORDER} (`refold retain`), as if WHERE had:" in explained
    condition = json.loads(refold("explain", "users", "--deployed", "--json"))["kept"]
    assert condition in explained and "retained_from" in condition
    # A limit that moves: what has become due today is no fault yet.
    retained.admin.execute(
        "UPDATE refold.retentions SET keep_from = NULL, keep ="
        " ((clock_timestamp() AT TIME ZONE 'UTC')::date - %s::date) * interval '1 day' WHERE projection = 'users'",
        (BORDER + timedelta(days=1),),
    )
    assert check()[0][0] == "ok"


@pytest.mark.parametrize("text", ["400 days", "400d", "8w", "6 months", "1 year", "2years"])
def test_spans(text: str, admin: psycopg.Connection[Any]) -> None:
    assert admin.execute("SELECT %s::interval >= '1 day'", (interval(text),)).fetchone() == (True,)


@pytest.mark.parametrize("text", ["", "0d", "12h", "-3 days", "3", "d", "101 years", "99999999 days", "1 day; DROP"])
def test_what_is_no_span(text: str) -> None:
    with pytest.raises(InputError, match="is not a span of days"):
        interval(text)


def test_other_commands_know(retained: Retained, refold: Refold) -> None:  # noqa: F811
    retained.late(FIRST, BORDER)
    retained.drain()
    old, new = f"late-{retained.appended - 2}-0", f"late-{retained.appended - 2}-1"
    day = str(retained.days("users")[0])
    refold("retain", "users", "--from", str(BORDER), "--yes")
    assert f"users keeps its rows from {BORDER} on: a row with day '{day}' is gone" in refold(
        "why", "users", f"day={day}", exits=2
    )
    assert f"The metric keeps its rows from {BORDER} on" in refold("why", "users", f"day={BORDER}")
    assert f"its metric keeps rows from {BORDER} on" in refold("where", old)
    assert f"its metric keeps rows from {BORDER} on" not in refold("where", new)
    # A rebuild with another definition begins where the metric does, and a diff compares what both keep.
    refold("rebuild", "users", "--no-promote", "--projections", str(PROJECT))
    assert "The same." in refold("diff", "users")
    refold("retain", "users", "--from", str(BORDER + timedelta(days=9)), "--yes")
    assert "The same." in refold("diff", "users")


def test_a_diff_compares_what_both_builds_keep(retained: Retained, refold: Refold) -> None:  # noqa: F811
    refold("rebuild", "users", "--projections", str(PROJECT))
    refold("retain", "users", "--from", str(BORDER), "--yes")
    told = refold("diff", "users", "--build", "1")
    assert f"compared from {BORDER} on: one of the builds does not keep earlier rows" in told
    assert "The same." in told
    assert json.loads(refold("diff", "users", "--build", "1", "--json"))["kept_from"] == str(BORDER)


def test_a_definition_without_a_day_is_refused(retained: Retained, refold: Refold, tmp_path: Any) -> None:  # noqa: F811
    for file in PROJECT.iterdir():
        (tmp_path / file.name).write_text(file.read_text())
    refold("retain", "users", "--from", str(BORDER), "--yes")
    (tmp_path / "users.sql").write_text("SELECT user_id, count(*) AS events FROM events GROUP BY user_id")
    told = refold("deploy", "--projections", str(tmp_path), exits=2)
    assert "rows of users are not kept for ever" in told and "refold retain users --forever" in told
    refold("retain", "users", "--forever")
    refold("deploy", "--projections", str(tmp_path))
    retained.look()


def test_a_renamed_metric_keeps_what_was_said_of_it(retained: Retained, refold: Refold) -> None:  # noqa: F811
    refold("retain", "users", "--from", str(BORDER), "--yes")
    refold("rename", "users", "people", "--projections", str(PROJECT))
    assert f"people from {BORDER}" in refold("retain")


@pytest.mark.parametrize("role", ["refold_producer", "refold_analyst", "refold_observer", "refold_inspector"])
def test_only_workers_let_rows_go(retained: Retained, role: Role) -> None:  # noqa: F811
    with connect(retained.url, role, autocommit=True) as conn:
        for statement in (
            "INSERT INTO refold.retentions (projection, keep) VALUES ('users', '1 day')",
            "UPDATE refold.retentions SET keep = '1 day'",
            "DELETE FROM refold.retentions",
            "UPDATE refold.builds SET retained_from = 1",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                conn.execute(statement.encode())
        reads = "SELECT * FROM refold.retentions"
        if role in ("refold_observer", "refold_inspector"):
            conn.execute(reads.encode())
        else:
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                conn.execute(reads.encode())
