"""`refold canary` and `refold deploy --canary` on the command line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from .conftest import Refold

Metric = Callable[[str, str], Path]
COUNTS = "SELECT action, count(*) AS events FROM events {} GROUP BY action"


def test_from_deploy_to_promote(refold: Refold, metric: Metric, record: Callable[..., None]) -> None:
    record("buy=a", "buy=b")
    metric("counts", COUNTS.format(""))
    assert refold("deploy").status == 0
    assert "no canary" in refold("canary", "status").err
    metric("counts", COUNTS.format("WHERE event_id <> '1'"))
    wrong = refold("deploy", "--canary", "--expect", "identicl")
    assert wrong.status == 2 and "is not an expectation" in wrong.err
    done = refold("deploy", "--canary", "--expect", "columns: events", "--steps", "0,100", "--soak", "30m")
    assert done.status == 0, done.err
    assert "canary: counts, seen by 0 % of readers for at least 30 min" in done.out
    metric("counts", COUNTS.format("WHERE event_id <> '2'"))
    again = refold("deploy", "--canary", "--expect", "columns: events", "--steps", "0,100", "--soak", "30m")
    assert again.status == 0, again.err
    assert [one["state"] for one in refold("canary", "status", "--json").json] == ["superseded", "running"]
    again = refold("canary", "start", "counts")
    assert again.status == 2 and "runs already" in again.err
    assert refold("canary", "hold", "counts", "--because", "I look").status == 0
    one = refold("canary", "status", "--json").json[-1]
    assert (one["state"], one["because"], one["percent"], one["expect"]) == ("held", "I look", 0, ["columns: events"])
    assert "I look" in refold("canary", "status", "counts").out
    assert refold("canary", "start", "counts", "--json").json["state"] == "running"
    assert "live: counts" in refold("canary", "promote", "counts").out
    assert refold("canary", "status", "--json").json[-1]["state"] == "promoted"
    missing = refold("canary", "abort", "counts")
    assert missing.status == 2 and "no canary of counts runs" in missing.err


def test_a_deploy_says_that_it_ends_a_canary(refold: Refold, metric: Metric, record: Callable[..., None]) -> None:
    record("buy=a", "buy=b")
    metric("counts", COUNTS.format(""))
    assert refold("deploy").status == 0
    metric("counts", COUNTS.format("WHERE event_id <> '1'"))
    assert refold("deploy", "--canary").status == 0
    told = refold("deploy", "--dry-run").out
    assert "its canary runs; this deploy ends it, and all readers see the candidate" in " ".join(told.split())
    waits = refold("deploy", "--no-promote").out
    assert "an earlier deploy built it, and it waits to go live" in " ".join(waits.split())
    assert refold("canary", "status", "--json").json[-1]["state"] == "running"
    assert refold("deploy").status == 0
    assert refold("canary", "status", "--json").json[-1]["state"] == "promoted"


def test_a_canary_follows_a_flag_until_it_ends(
    refold: Refold, metric: Metric, record: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record("buy=a", "buy=b")
    metric("counts", COUNTS.format(""))
    assert refold("deploy").status == 0
    metric("counts", COUNTS.format("WHERE event_id <> '1'"))
    assert refold("deploy", "--canary").status == 0
    (tmp_path / "my_flags_2.py").write_text(
        "from openfeature.provider.in_memory_provider import InMemoryFlag, InMemoryProvider\n"
        "def provider():\n"
        "    return InMemoryProvider({'metrics.counts.percent': InMemoryFlag('on', {'on': 0})})\n"
    )
    monkeypatch.chdir(tmp_path)
    follow = ("canary", "follow", "counts", "--provider", "my_flags_2:provider", "--once")
    told = refold(*follow)
    assert told.out == "metrics.counts.percent says 0 %: seen by 0 % of readers\n", told.err
    assert refold(*follow).out == ""
    silent = refold(*follow, "--flag", "unknown")
    assert silent.status == 0 and "unknown has no answer, so the limit stays: " in silent.err
    assert refold("canary", "status", "--json").json[0]["at_most"] == 0
    assert refold("canary", "limit", "counts", "100").out == "seen by 1 % of readers: counts\n"
    assert refold("canary", "abort", "counts").status == 0
    ended = refold("canary", "follow", "counts", "--provider", "my_flags_2:provider")
    assert ended.out == "no canary of counts runs any more\n"
    assert refold("canary", "follow", "counts", "--provider", "nothing_2").status == 2


def test_abort(refold: Refold, metric: Metric, record: Callable[..., None]) -> None:
    record("buy=a", "buy=b")
    metric("counts", COUNTS.format(""))
    assert refold("deploy").status == 0
    metric("counts", COUNTS.format("WHERE event_id <> '1'").replace("count(*)", "sum(1::numeric)"))
    done = refold("deploy", "--no-promote")
    assert done.status == 0, done.err
    started = refold("canary", "start", "counts", "--steps", "40,100", "--soak", "90s")
    assert "canary: counts, seen by no reader for at least 1 min 30 s\n" in started.out
    assert "only metrics_canary shows counts" in started.err and "a person promotes" in started.err
    listed = refold("canary", "status").out
    assert " none " in listed and "40 %" not in listed
    assert refold("canary", "limit", "counts", "20").out == "seen by no reader: counts\n"
    assert refold("canary", "hold", "counts").out == "held, seen by no reader: counts\n"
    assert "canary, seen by 0 % of readers" in refold("status").out
    assert "aborted: counts" in refold("canary", "abort", "counts").out
    assert "aborted by a person" in refold("canary", "status").out
    assert "No build is ready to promote." in refold("promote").out


def test_status_and_query_say_who_sees_the_candidate(
    refold: Refold, metric: Metric, record: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    record("buy=a", "buy=b")
    metric("counts", COUNTS.format(""))
    assert refold("deploy").status == 0
    metric("counts", COUNTS.format("WHERE event_id <> '1'"))
    assert refold("deploy", "--no-promote").status == 0
    query = ("query", "SELECT events FROM counts", "--csv")
    assert "ready to promote" in refold("status").out
    assert (refold(*query).out, refold(*query).err) == ("events\n2\n", "")
    assert refold("canary", "start", "counts", "--steps", "100").status == 0
    told = refold("status")
    assert "canary, seen by 100 % of readers" in told.out and "ready to promote" not in told.out
    assert {one["state"]: one["canary"] for one in refold("status", "--json").json["builds"]} == {
        "live": 100,
        "building": 100,
    }
    seen = refold(*query)
    assert seen.out == "events\n1\n" and "counts: a canary shows you the candidate" in seen.err
    assert refold("query", "SELECT 1 AS discounts", "--csv").err == ""
    assert refold("query", "SELECT events FROM metrics_canary.counts", "--csv").err == ""
    monkeypatch.setenv("PGOPTIONS", "-c refold.canary=off")
    assert (refold(*query).out, refold(*query).err) == ("events\n2\n", "")


def test_letters_of_a_candidate_are_told_apart(refold: Refold, metric: Metric, record: Callable[..., None]) -> None:
    record("buy=a", "buy=b")
    metric("counts", COUNTS.format(""))
    assert refold("deploy").status == 0
    assert refold("deadletters", "list").out == "no dead letters\n"
    metric("counts", COUNTS.format("WHERE 1 / (length(user_id) - 1) < 9"))
    assert refold("deploy", "--no-promote").status == 0
    listed = refold("deadletters", "list")
    assert " building " in listed.out and "No live metric misses events by them" in listed.err
    assert {one["build_state"] for one in refold("deadletters", "list", "--json").json} == {"building"}
    assert "2 events by a build of counts that is not live" in refold("status").out
    assert refold("promote").status == 0
    listed = refold("deadletters", "list")
    assert " live " in listed.out and listed.err == ""
    assert "2 events by counts (" in refold("status").out
