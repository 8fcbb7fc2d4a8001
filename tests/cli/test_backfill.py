"""`refold backfill`: from files to events, and what is said before and meanwhile."""

from __future__ import annotations

import gzip
import json
import sys
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
import pytest
from rich.console import Console

from refold import append
from refold.cli.backfill_options import freshness_of, rate_of, until_of
from refold.cli.backfill_report import _sample
from refold.errors import InputError
from refold.postgres.connect import connect as connect_as
from refold.postgres.locks import alone
from refold.store.file_backfills import every
from refold.store.incidents import detect, open_incidents
from tests.support.backfilling import command, staged_tables, write
from tests.support.contracts import REASON, register
from tests.support.live import SHOP, drain, make_live, wrong
from tests.support.making import events, rejected, stored

from .conftest import Refold

Connection = psycopg.Connection[Any]
FOLDER = ("--projections", str(SHOP))


@pytest.mark.live("shop")
def test_from_files_to_metrics(refold: Refold, database_url: str, admin: Connection) -> None:
    append(admin, events(30))
    make_live(database_url)
    drain(database_url)
    old = events(40, "old", metadata={"amount": 150})
    write(Path("one.jsonl"), [*old[:25], events(30)[4], {**events(30)[5], "action": "other"}])
    write(Path("two.jsonl"), [*old[25:], old[3], "no JSON"])
    staged = refold("backfill", "stage", "history", "one.jsonl", "two.jsonl")
    assert staged.status == 0, staged.err
    assert staged.out == (
        "one.jsonl: 27 records, 0 invalid\ntwo.jsonl: 17 records, 1 invalid\n"
        "events from 2026-03-02 00:00 to 2026-03-03 15:00 UTC\n"
    )
    assert "two.jsonl:17: invalid: the line is not valid JSON" in staged.err
    assert len(stored(admin)) == 30

    checked = refold("backfill", "check", "history", *FOLDER)
    assert checked.status == 0, checked.err
    assert "44 records = 40 new + 1 duplicates + 1 repeated in the files + 1 conflicts + 1 invalid" in checked.out
    assert "purchases       13        0        0  amount +1,950" in checked.out
    assert "no effect can be told" not in checked.out
    assert "one.jsonl:27: e5: the log holds an event with this id and other content" in checked.err
    told = {one["metric"]: one for one in refold("backfill", "check", "history", "--json", *FOLDER).json["effects"]}
    assert (told["daily"]["changed"], told["daily"]["sums"]) == (6, {"events": "40", "amount": "6000"})
    assert {"before", "after"} == set(told["paths"]["samples"][0])
    # Nothing has changed.
    assert (len(stored(admin)), wrong(database_url)) == (30, {})

    refused = refold("backfill", "run", "history")
    assert refused.status == 2
    assert "1 record of history conflict with the log: more than 1 %" in refused.err
    done = refold("backfill", "run", "history", "--accept-conflicts", "--freshness", "1h".replace("1h", "3600s"))
    assert done.status == 0, done.err
    assert done.out == "history: done: 44 records = 40 accepted + 2 duplicates + 1 conflicts + 1 invalid\n"
    assert [(source, line, answer) for source, line, answer, _ in rejected(admin)] == [
        ("history", 17, "invalid"),
        ("history", 27, "conflict"),
    ]
    drain(database_url)
    assert wrong(database_url) == {}
    assert [one for (one,) in admin.execute("SELECT command FROM refold.actions ORDER BY action_id").fetchall()] == [
        "backfill stage", "backfill run", "backfill run",
    ]  # fmt: skip


@pytest.mark.live("shop")
def test_run_checks_first_what_nobody_has_checked(refold: Refold, database_url: str, admin: Connection) -> None:
    make_live(database_url)
    write(Path("old.jsonl"), events(5, "old"))
    assert refold("backfill", "stage", "history", "old.jsonl").status == 0
    done = refold("backfill", "run", "history", "--json", *FOLDER)
    assert (done.status, done.json["state"], done.json["accepted"]) == (0, "done", 5)
    assert done.json["checked_at"] is not None


def test_what_contracts_refuse_is_told_before_and_counted_after(refold: Refold, admin: Connection) -> None:
    register(admin)
    old = events(40, "old", metadata={"amount": "20"})
    write(Path("old.jsonl"), [{**one, "metadata": {"amount": 20}} if at % 4 else one for at, one in enumerate(old)])
    assert refold("backfill", "stage", "history", "old.jsonl").status == 0
    checked = refold("backfill", "check", "history")
    assert "40 records = 37 new + 0 duplicates + 0 repeated in the files + 0 conflicts + 3 invalid" in checked.out
    assert "contracts refuse 3 records, which count as invalid" in checked.out
    assert f"old.jsonl:9: old8: {REASON}" in checked.err
    assert refold("backfill", "status", "history", "--json").json["invalid"] == 0
    done = refold("backfill", "run", "history")
    assert done.out == "history: done: 40 records = 37 accepted + 0 duplicates + 0 conflicts + 3 invalid\n"
    assert "`refold rejected` lists" in done.err
    told = refold("backfill", "status", "history", "--json").json
    assert (told["accepted"], told["invalid"], told["left"], told["total"]) == (37, 3, 0, 40)
    assert [(line, answer, reason) for _, line, answer, reason in rejected(admin)] == [
        (line, "invalid", f"{REASON} (old.jsonl)") for line in (9, 21, 33)
    ]


def test_a_file_that_contracts_refuse_for_the_most_part_does_not_run(refold: Refold, admin: Connection) -> None:
    register(admin)
    write(Path("old.jsonl"), events(6, "old", action="purchase", metadata={"amount": "20"}))
    refold("backfill", "stage", "history", "old.jsonl")
    refused = refold("backfill", "run", "history")
    assert refused.status == 2
    assert "contracts refuse 6 records of history: more than half" in refused.err
    assert "--accept-invalid" in refused.err
    done = refold("backfill", "run", "history", "--accept-invalid", "--json").json
    assert (done["state"], done["accepted"], done["invalid"]) == ("done", 0, 6)


def test_nothing_is_staged_if_a_file_is_wrong(refold: Refold, admin: Connection) -> None:
    write(Path("good.jsonl"), events(5))
    Path("columns.csv").write_text("who,what\na,b\n")
    whole = gzip.compress("".join(json.dumps(one) + "\n" for one in events(50_000)).encode())
    Path("damaged.jsonl.gz").write_bytes(whole[: len(whole) // 2])
    write(Path("empty.jsonl"), [])
    for given, said in (
        (["good.jsonl", "missing.jsonl"], "cannot open missing.jsonl"),
        (["good.jsonl", "columns.csv"], "no column or option gives the events a value for id"),
        (["good.jsonl", "--map", "usr_id=x"], "did you mean 'user_id'?"),
        (["good.jsonl", "damaged.jsonl.gz"], "damaged.jsonl.gz"),
        (["empty.jsonl"], "there are no records"),
    ):
        done = refold("backfill", "stage", "history", *given)
        assert (done.status, said in done.err) == (2, True), done.err
        assert "stored events" not in done.err
        assert [one for one in every(admin) if one.ended_at is None] == []
        assert staged_tables(admin) == 0
    for name in ("History", "a b", "x" * 41, ""):
        done = refold("backfill", "stage", name, "good.jsonl")
        assert (done.status, f"{name!r} cannot be the name of a backfill" in done.err) == (2, True), done.err
        assert "lower-case letters, digits and underscores" in done.err
        assert "file_backfills" not in done.err
    assert refold("backfill", "stage", "history", "good.jsonl").status == 0
    again = refold("backfill", "stage", "history", "good.jsonl")
    assert (again.status, "the backfill history is staged already" in again.err) == (2, True)


@pytest.mark.slow
def test_a_staging_that_was_killed_is_no_staging(refold: Refold, database_url: str, admin: Connection) -> None:
    write(Path("old.jsonl"), events(25_000))
    for point in ("staged_batch:2", "staged_files"):
        killed = command(database_url, "backfill", "stage", "history", "old.jsonl", env={"REFOLD_CRASH_AT": point})
        assert killed.returncode == -9, killed.stderr
        for verb in ("check", "run"):
            done = refold("backfill", verb, "history")
            assert (done.status, "the staging of history was interrupted" in done.err) == (2, True), done.err
    again = refold("backfill", "stage", "history", "old.jsonl", "--json")
    assert (again.status, again.json["total"]) == (0, 25_000)
    assert "an earlier staging of history was interrupted: it begins anew" in again.err
    assert staged_tables(admin) == 1


def test_pause_resume_abort_and_status(refold: Refold, database_url: str, admin: Connection) -> None:
    write(Path("old.jsonl"), events(5))
    assert refold("backfill", "status").err == "no backfill: `refold backfill stage NAME FILE…` begins one\n"
    refold("backfill", "stage", "history", "old.jsonl")
    assert "backfill  history is staged" in refold("status").out
    assert refold("backfill", "pause", "history").out == "history: nothing to do, it is staged\n"
    early = refold("backfill", "resume", "history")
    assert (early.status, "it has not begun" in early.err) == (2, True)
    admin.execute("UPDATE refold.file_backfills SET state = 'running', mark = 2, accepted = 2, per_second = 10")
    # Nobody holds the lane: its process is gone.
    goes_on = "nobody runs it: `refold backfill resume history` goes on"
    assert f"backfill  history is interrupted behind 2 of 5 records: {goes_on}\n" in refold("status").out
    shown = refold("backfill", "status").out
    assert ("interrupted" in shown, goes_on in shown, "running" in shown, "/s" in shown) == (True, True, False, False)
    told = refold("backfill", "status", "history", "--json").json
    assert (told["state"], told["because"], told["per_second"], told["eta_seconds"]) == (
        "interrupted", goes_on, None, None,
    )  # fmt: skip
    told = refold("status", "--json").json["backfills"]
    assert [(one["state"], one["per_second"], one["because"]) for one in told] == [("interrupted", None, goes_on)]
    with (
        connect_as(database_url, "refold_backfill", autocommit=True) as conn,
        alone(conn, "refold.file_backfills", "test", "refold_backfill"),
    ):
        assert "backfill  history is running behind 2 of 5 records, 10/s, 300 ms left" in refold("status").out
        assert "300 ms" in refold("backfill", "status").out
        told = refold("backfill", "status", "history", "--json").json
        assert (told["state"], told["because"], told["eta_seconds"]) == ("running", None, 0.3)
    assert refold("backfill", "pause", "history").out == "history: paused behind 2 of 5 records\n"
    assert refold("backfill", "status", "history", "--json").json["eta_seconds"] is None
    assert "`refold backfill resume history` goes on" in refold("status").out
    assert refold("backfill", "abort", "history", "--dry-run").out == "history: would drop 3 staged records\n"
    assert staged_tables(admin) == 1
    detect(admin, "backfill_paused", "history", by="test", evidence={})
    gone = refold("backfill", "abort", "history")
    assert (gone.out, gone.err) == ("history: dropped 3 staged records\n", "2 events of it stay in the log\n")
    assert (staged_tables(admin), open_incidents(admin, "backfill_paused")) == (0, [])
    assert refold("backfill", "status", "history", "--json").json["state"] == "aborted"
    over = refold("backfill", "run", "history")
    assert (over.status, "the backfill history is over: it is aborted" in over.err) == (2, True)
    unknown = refold("backfill", "run", "histroy")
    assert unknown.status == 2
    # The name is free again.
    assert refold("backfill", "stage", "history", "old.jsonl").status == 0
    assert "Did you mean history?" in refold("backfill", "run", "histroy").err


def test_a_metric_of_which_nothing_can_be_told_says_why(refold: Refold, database_url: str, admin: Connection) -> None:
    Path("projections").mkdir()
    Path("projections/amounts.sql").write_text("SELECT event_id, (metadata->>'amount')::numeric AS amount FROM events")
    Path("projections/total.sql").write_text("SELECT 'all' AS scope, sum(amount) AS amount FROM amounts GROUP BY scope")
    Path("projections/users.sql").write_text("SELECT user_id, count(*) AS n FROM events GROUP BY user_id")
    Path("projections/sized.py").write_text(
        "from pydantic import BaseModel\nfrom refold import Event, transform\n\n\n"
        "class Sized(BaseModel):\n    event_id: str\n    size: int\n\n\n"
        "@transform()\ndef sized(event: Event) -> Sized:\n"
        "    return Sized(event_id=event.event_id, size=len(event.metadata['amount']))\n"
    )
    assert refold("deploy").status == 0
    write(
        Path("old.jsonl"),
        [{**events(1)[0], "metadata": {"amount": "much"}}, {**events(2)[1], "metadata": {"amount": 5}}],
    )
    refold("backfill", "stage", "history", "old.jsonl")
    told = {one["metric"]: one for one in refold("backfill", "check", "history", "--json").json["effects"]}
    assert 'invalid input syntax for type numeric: "much"' in told["amounts"]["because"]
    assert told["total"]["because"] == "it reads amounts, of which it is not known"
    assert (told["users"]["told"], told["users"]["added"]) == (True, 2)
    assert (told["sized"]["told"], told["sized"]["added"]) == (True, 1)
    assert told["sized"]["because"].startswith("1 event would become dead letters: ")
    text = refold("backfill", "check", "history").out
    assert "amounts: no effect can be told: its query fails with the staged events" in text
    Path("projections/sized.py").unlink()
    sys.modules.pop("sized", None)
    told = {one["metric"]: one for one in refold("backfill", "check", "history", "--json").json["effects"]}
    assert (told["sized"]["told"], "is not in" in told["sized"]["because"]) == (False, True)


def test_a_sample_shows_what_changes_and_objects_as_json(monkeypatch: pytest.MonkeyPatch) -> None:
    # Piped, values are whole.
    assert _sample({"before": [], "after": [{"text": "x" * 500}]}) == f"+ text {'x' * 500}"
    monkeypatch.setattr("refold.cli.backfill_report.out", Console(force_terminal=True))
    times = [f"2026-03-0{day}T00:00:00+00:00" for day in range(1, 6)]
    told = _sample(
        {
            "before": [{"user_id": "u", "times": times, "meta": {"page": "/a", "n": Decimal("1.50")}}],
            "after": [{"user_id": "u", "times": [*times[:3], "2026-03-09T00:00:00+00:00"], "meta": {"page": "/b"}}],
        }
    )
    before, _, after = told.partition(" → ")
    assert ("2026-03-04" in before, "2026-03-09" in after, "2026-03-09" in before) == (True, True, False)
    assert ('meta {"page": "/a", "n": 1.50}' in before, 'meta {"page": "/b"}' in after) == (True, True)
    assert all(len(part) < 3 * 60 for part in (before, after))
    # What is on one side alone, or begins with what the other side has, shows its begin or its end.
    assert _sample({"before": [], "after": [{"text": "x" * 50 + "y"}]}) == f"+ text {'x' * 40}…"
    assert _sample({"before": [{"text": "x" * 60}], "after": [{"text": "x" * 60 + "y"}]}) == (
        f"text …{'x' * 40} → text …{'x' * 39}y"
    )


def test_options() -> None:
    assert (rate_of(None), rate_of("auto"), rate_of("500")) == (None, 0, 500)
    assert (freshness_of(None), freshness_of("auto"), freshness_of("2s"), freshness_of("500ms")) == (
        None,
        0.0,
        2.0,
        0.5,
    )
    for text in ("", "0", "-1", "x", "1.5"):
        with pytest.raises(InputError):
            rate_of(text)
    for text in ("", "0", "x", "nan", "1d"):
        with pytest.raises(InputError):
            freshness_of(text)
    now = datetime(2026, 3, 2, 7, 30, tzinfo=timezone(timedelta(hours=2)))
    assert until_of("08:00", now) == now.replace(hour=8, minute=0)
    assert until_of("06:00", now) == now.replace(day=3, hour=6, minute=0)
    with pytest.raises(InputError):
        until_of("6 am", now)
