"""`refold ingest`: what the user sees, and what the exit status says."""

from __future__ import annotations

import gzip
import importlib
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest
from typer.testing import CliRunner, Result

from refold.cli.app import app
from tests.support.making import stored
from tests.support.sessions import somebody_waits
from tests.support.waiting import wait_until

Connection = psycopg.Connection[Any]
Refold = Callable[..., Result]

VISITS = "who,what,at\nann,view,2026-03-02 10:00:00\nbob,view,2026-03-02 11:00:00\nann,buy,2026-03-02 12:00:00\n"
OPTIONS = ("--map", "user_id=who,action=what,ts=at", "--timezone", "UTC", "--id-from", "row")


@pytest.fixture
def refold(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Refold:
    """Runs `refold ingest` in an empty directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments: str, **options: Any) -> Result:
        return CliRunner().invoke(app, ["ingest", "--database-url", database_url, *arguments], **options)

    return run


@pytest.fixture
def visits(tmp_path: Path) -> Path:
    path = tmp_path / "visits.csv"
    path.write_text(VISITS)
    return path


def test_the_summary_accounts_for_every_record(refold: Refold, visits: Path, conn: Connection) -> None:
    result = refold(str(visits), *OPTIONS)
    assert result.exit_code == 0, result.output
    first, speed = result.stdout.splitlines()
    assert first == "visits.csv: 3 received = 3 stored + 0 duplicates + 0 rejected"
    assert re.fullmatch(r"[0-9.]+ s, [0-9,]+ records/s", speed)
    assert result.stderr == ""
    assert refold(str(visits), *OPTIONS).stdout.startswith(
        "visits.csv: 3 received = 0 stored + 3 duplicates + 0 rejected\n"
    )
    assert stored(conn) == ["visits.csv:1", "visits.csv:2", "visits.csv:3"]


def test_what_was_rejected_is_named(refold: Refold, visits: Path) -> None:
    refold(str(visits), *OPTIONS)
    visits.write_text(VISITS.replace("bob", "eve") + "ann,buy,soon\n" * 6)
    result = refold(str(visits), *OPTIONS)
    assert result.exit_code == 0
    assert result.stdout.startswith("visits.csv: 9 received = 0 stored + 2 duplicates + 7 rejected\n")
    warning = result.stderr.splitlines()
    assert warning[:2] == [
        "rejected: 6 invalid, 1 conflicts",
        "  visits.csv:3: conflict: the log holds an event with this id and other content",
    ]
    assert warning[2].startswith("  visits.csv:5: invalid: ts: 'soon' is not an ISO 8601 time")
    assert len(warning) == 7
    assert warning[-1] == "  and 2 more; `refold rejected` lists them with their text"
    assert refold(str(visits), *OPTIONS, "--strict").exit_code == 1


def test_a_file_of_which_nothing_got_in_is_a_failure(refold: Refold, visits: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.csv").write_text("who,what,at\nann,view,soon\nbob,view,later\n")
    (tmp_path / "empty.csv").write_text("who,what,at\n")
    result = refold("bad.csv", str(visits), *OPTIONS)
    assert result.exit_code == 1
    assert result.stderr.startswith("no event of bad.csv was stored: all its records were rejected\n")
    # What is there already is no failure, and neither is a file that has only a heading.
    result = refold(str(visits), "empty.csv", *OPTIONS)
    assert (result.exit_code, result.stderr) == (0, "")


def test_strict_is_content_with_duplicates(refold: Refold, visits: Path) -> None:
    assert [refold(str(visits), *OPTIONS, "--strict").exit_code for _ in range(2)] == [0, 0]


def test_json_for_machines(refold: Refold, visits: Path) -> None:
    visits.write_text(VISITS + "ann,buy,soon\n")
    result = refold(str(visits), *OPTIONS, "--json", "--strict")
    assert result.exit_code == 1
    told = json.loads(result.stdout)
    (file,) = told.pop("files")
    assert told.pop("seconds") > 0
    counts = {"received": 4, "stored": 3, "duplicates": 0, "conflicts": 0, "invalid": 1, "rejected": 1}
    assert told == {**counts, "interrupted": False}
    (aside,) = file.pop("first_rejected")
    assert (aside["line"], aside["answer"]) == (5, "invalid")
    assert file == {"source": "visits.csv", **counts}


def test_several_files(refold: Refold, tmp_path: Path, conn: Connection) -> None:
    (tmp_path / "a.csv").write_text(VISITS)
    (tmp_path / "b.csv.gz").write_bytes(gzip.compress(VISITS.encode()))
    result = refold("a.csv", "b.csv.gz", *OPTIONS)
    assert result.stdout.splitlines()[:3] == [
        "a.csv: 3 received = 3 stored + 0 duplicates + 0 rejected",
        "b.csv: 3 received = 3 stored + 0 duplicates + 0 rejected",
        "total: 6 received = 6 stored + 0 duplicates + 0 rejected",
    ]
    assert len(stored(conn)) == 6


def test_standard_input(refold: Refold, conn: Connection) -> None:
    lines = '{"id": "a", "action": "view", "ts": 1772442000000}\n'
    lines += '{"id": "b", "action": "view", "ts": "2026-03-02T10:00:00Z"}\n'
    result = refold("--format", "jsonl", "-", input=lines)
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("-: 2 received = 2 stored")
    result = refold("-", "--format", "csv", "--source", "visits", *OPTIONS, input=VISITS)
    assert result.stdout.startswith("visits: 3 received = 3 stored")
    assert stored(conn) == ["a", "b", "visits:1", "visits:2", "visits:3"]


def test_columns_delimiter_and_constants(refold: Refold, tmp_path: Path, conn: Connection) -> None:
    (tmp_path / "day.txt").write_text(" 7  20260302   1.50\n 8  20260303  12.00\n")
    result = refold(
        "day.txt", "--delimiter", "whitespace", "--columns", "who, day, paid",
        "--map", "user_id=who", "--map", "ts=day", "--set", "action=buy,metadata.shop=web",
        "--ts-format", "%Y%m%d", "--timezone", "Asia/Tokyo", "--id-from", "who,day",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    rows = conn.execute(
        "SELECT event_id, user_id, action, ts AT TIME ZONE 'UTC', metadata FROM refold.events ORDER BY 1"
    ).fetchall()
    assert [(row[0], row[1], row[2], str(row[3]), row[4]) for row in rows] == [
        ("7:20260302", "7", "buy", "2026-03-01 15:00:00", {"shop": "web", "paid": "1.50"}),
        ("8:20260303", "8", "buy", "2026-03-02 15:00:00", {"shop": "web", "paid": "12.00"}),
    ]


def test_a_file_as_programs_write_it(refold: Refold, tmp_path: Path, conn: Connection) -> None:
    (tmp_path / "sheet.csv").write_text(
        "March\nsep=;\nuserId ;anonymousId;at;note\nann ;a1;2026-03-02 10:00:00 UTC;NULL\n NULL;b1;20260302T110000Z;x\n"
    )
    result = refold(
        "sheet.csv", "--skip-lines", "1", "--null", "NULL", "--null", "\\N", "--trim", "--id-from", "row",
        "--map", "user_id=userId|anonymousId,ts=at", "--set", "action=view",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    rows = conn.execute(
        "SELECT user_id, extract(hour FROM ts AT TIME ZONE 'UTC')::int, metadata FROM refold.events ORDER BY event_id"
    )
    assert rows.fetchall() == [("ann", 10, {"anonymousId": "a1"}), ("b1", 11, {"note": "x"})]


def test_nested_fields(refold: Refold, tmp_path: Path, conn: Connection) -> None:
    (tmp_path / "cdc.jsonl").write_text(
        '{"op": "c", "at": 1772442000123456789, "actor": {"id": 7}, "source": {"lsn": 12}}\n{"op": "c", "at": 1}\n'
    )
    result = refold(
        "cdc.jsonl", "--map", "user_id=actor.id,action=op,ts=at", "--id-from", "source.lsn", "--ts-format", "epoch_ns"
    )
    assert result.stdout.startswith("cdc.jsonl: 2 received = 1 stored + 0 duplicates + 1 rejected")
    assert "cdc.jsonl:2: invalid: id: 'source.lsn' (of --id-from) has no value" in result.stderr
    found = conn.execute("SELECT event_id, user_id, metadata FROM refold.events").fetchall()
    assert found == [("12", "7", {"actor": {"id": 7}, "source": {"lsn": 12}})]


def test_one_event_each_of_an_array_and_of_joined_objects(refold: Refold, tmp_path: Path, conn: Connection) -> None:
    one = '{{"id": "{}", "action": "view", "ts": "2026-03-02t10:00:00z"}}'
    (tmp_path / "array.json").write_text(f"[\n{one.format('a')},\n{one.format('b')},\n7\n]\n")
    (tmp_path / "firehose.jsonl").write_text(one.format("c") + one.format("d") + one.format("a"))
    result = refold("array.json", "firehose.jsonl")
    assert result.stdout.splitlines()[:2] == [
        "array.json: 3 received = 2 stored + 0 duplicates + 1 rejected",
        "firehose.jsonl: 3 received = 2 stored + 1 duplicates + 0 rejected",
    ]
    assert "array.json:4: invalid: the record must be a JSON object, not a number" in result.stderr
    (tmp_path / "cut.json").write_text(f"[{one.format('e')},\n{one.format('f')[:-3]}")
    result = refold("cut.json")
    assert result.exit_code == 2
    assert result.stdout.startswith("cut.json: 1 received = 1 stored")
    assert "cut.json ends early: what begins on line 2 is not closed" in result.stderr
    assert stored(conn) == ["a", "b", "c", "d", "e"]


def test_zstd_and_parquet(refold: Refold, tmp_path: Path, conn: Connection) -> None:
    pa = pytest.importorskip("pyarrow")
    (tmp_path / "visits.csv.zst").write_bytes(pa.compress(VISITS.encode(), codec="zstd", asbytes=True))
    result = refold("visits.csv.zst", *OPTIONS)
    assert result.stdout.startswith("visits.csv: 3 received = 3 stored + 0 duplicates + 0 rejected"), result.output
    table = pa.table({"who": ["ann", None], "what": ["view", None], "at": pa.array([0, 0], pa.timestamp("ns"))})
    importlib.import_module("pyarrow.parquet").write_table(table, tmp_path / "visits.parquet")
    result = refold("visits.parquet", *OPTIONS)
    assert result.stdout.startswith("visits.parquet: 2 received = 1 stored + 0 duplicates + 1 rejected")
    assert "visits.parquet:2: invalid: action: the column 'what' is empty" in result.stderr
    assert refold("visits.parquet", *OPTIONS).stdout.startswith("visits.parquet: 2 received = 0 stored + 1 duplicates")
    assert len(stored(conn)) == 4


WRONG_CALLS = [
    (["visits.csv"], "or option gives the events a value for"),
    (["nowhere.csv", *OPTIONS], "cannot open nowhere.csv: the file does not exist"),
    (["visits.csv", "nowhere.csv", *OPTIONS], "cannot open nowhere.csv"),
    (["visits.csv", "other.csv", *OPTIONS], "there is no column"),
    (["visits.csv", "sub/visits.csv", *OPTIONS], "are both called 'visits.csv'"),
    (["visits.csv", "other.csv", "--source", "x", *OPTIONS], "--source applies to one file"),
    (["-", "-", "--format", "csv", *OPTIONS], "are both called '-'"),
    (["visits.csv", "--map", "user=who"], "events have no field 'user' (did you mean 'user_id'?)"),
    (["visits.csv", *OPTIONS, "--timezone", "Berlin"], "unknown time zone 'Berlin'"),
    (["visits.csv", *OPTIONS, "--ts-format", "%H:%M"], "--ts-format"),
]


def test_what_is_wrong_with_a_call_is_said_before_anything_is_stored(
    refold: Refold, visits: Path, conn: Connection
) -> None:
    (visits.parent / "sub").mkdir()
    (visits.parent / "sub" / "visits.csv").write_text(VISITS)
    (visits.parent / "other.csv").write_text("a,b\n1,2\n")
    for arguments, message in WRONG_CALLS:
        result = refold(*arguments)
        assert (result.exit_code, result.stdout) == (2, ""), arguments
        assert message in result.stderr
    assert stored(conn) == []


def test_a_damaged_file_tells_what_is_in(refold: Refold, tmp_path: Path, conn: Connection) -> None:
    body = gzip.compress("".join(f"u,view,{n}\n" for n in range(20_000)).encode())
    (tmp_path / "v.csv.gz").write_bytes(gzip.compress(b"who,what,at\n") + body[: len(body) // 2])
    result = refold("v.csv.gz", "--map", "user_id=who,action=what,ts=at", "--ts-format", "epoch_s", "--id-from", "row")
    assert result.exit_code == 2
    assert "the gzip data end early" in result.stderr
    count = len(stored(conn))
    assert 0 < count < 20_000
    assert result.stdout.startswith(f"v.csv: {count:,} received = {count:,} stored")


def test_a_database_without_refold(refold: Refold, visits: Path, conn: Connection) -> None:
    conn.execute("DROP SCHEMA refold CASCADE")
    conn.commit()
    result = refold(str(visits), *OPTIONS)
    assert result.exit_code == 2
    assert "not installed" in result.stderr
    assert "refold migrate" in result.stderr


class Running:
    """`refold ingest` as a process of its own, reading from a pipe, in batches of ten."""

    def __init__(self, url: str) -> None:
        environment = {**os.environ, "REFOLD_DATABASE_URL": url}
        command = ["ingest", "--format", "jsonl", "--batch", "10", "--json", "-"]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "refold", *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
        )

    def feed(self, count: int) -> None:
        assert self.process.stdin is not None
        lines = (
            json.dumps({"id": f"e{n:03}", "action": "view", "ts": 1_772_442_000_000 + n}) + "\n" for n in range(count)
        )
        self.process.stdin.write("".join(lines).encode())
        self.process.stdin.flush()

    def end(self) -> tuple[int, dict[str, Any], str]:
        out, complaints = self.process.communicate(timeout=60)
        return self.process.returncode, json.loads(out), complaints.decode()


def test_ctrl_c_while_it_waits_for_input(database_url: str, conn: Connection) -> None:
    conn.autocommit = True
    running = Running(database_url)
    running.feed(25)
    wait_until(lambda: len(stored(conn)) == 20, deadline_s=30)
    running.process.send_signal(signal.SIGINT)
    status, told, complaints = running.end()
    assert status == 130
    assert (told["received"], told["stored"], told["interrupted"]) == (20, 20, True)
    assert "run the command again" in complaints
    again = Running(database_url)
    again.feed(25)
    status, told, _ = again.end()
    assert (status, told["stored"], told["duplicates"], told["interrupted"]) == (0, 5, 20, False)


def test_ctrl_c_inside_a_batch_lets_it_end(
    database_url: str, conn: Connection, connect: Callable[..., Connection]
) -> None:
    """So that the figures are exact: what was stored was counted."""
    conn.autocommit = True
    blocker = connect()
    blocker.execute("INSERT INTO refold.events (event_id, action, ts) VALUES ('e015', 'x', now())")
    running = Running(database_url)
    running.feed(40)
    wait_until(lambda: somebody_waits(conn), deadline_s=30)
    running.process.send_signal(signal.SIGINT)
    assert running.process.stderr is not None
    assert b"stopping after the current batch" in running.process.stderr.readline()
    blocker.rollback()
    status, told, _ = running.end()
    assert status == 130
    assert (told["stored"], told["interrupted"]) == (20, True)
    assert len(stored(conn)) == 20


def test_ctrl_c_twice_stops_at_once(database_url: str, conn: Connection, connect: Callable[..., Connection]) -> None:
    conn.autocommit = True
    blocker = connect()
    blocker.execute("INSERT INTO refold.events (event_id, action, ts) VALUES ('e015', 'x', now())")
    running = Running(database_url)
    running.feed(40)
    wait_until(lambda: somebody_waits(conn), deadline_s=30)
    running.process.send_signal(signal.SIGINT)
    assert running.process.stderr is not None
    running.process.stderr.readline()
    running.process.send_signal(signal.SIGINT)
    status, told, _ = running.end()
    assert (status, told["stored"]) == (130, 10)
    blocker.rollback()
    assert len(stored(conn)) == 10


def test_the_help_shows_the_two_real_examples() -> None:
    result = CliRunner().invoke(app, ["ingest", "--help"], env={"COLUMNS": "80"})
    assert result.exit_code == 0
    for example in (
        "refold ingest simple-onlineshop.csv",
        "refold ingest CDNOW_master.txt.gz",
        "refold ingest --format jsonl -",
        "--map user_id=actor.id",
        "userId|anonymousId",
        "the extra `zstd`",
    ):
        assert example in result.output
    for option in ("--map", "--set", "--id-from", "--timezone", "--ts-format", "--delimiter", "--columns", "--source",
                   "--null", "--skip-lines", "--trim", "--format", "--batch", "--strict", "--json"):  # fmt: skip
        assert option in result.output
