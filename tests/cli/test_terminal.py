"""Text of events on a terminal: shown, and nothing that the terminal does."""

from __future__ import annotations

import io
import json
import logging
import re
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest
from rich.console import Console
from rich.progress import Progress

from refold import append
from refold.cli import output
from refold.cli.bars import PlainColumn
from refold.visible import log_on_stderr, visible, visible_json

from .conftest import Outcome, Refold

EVIL = "a\x1b]0;pwned\x07b\x1b[2Jc\x9b31md\x7fe\x85f\u202eg\u2066h\u2028i\nerror: j\r\tk"
"""A window's name, a cleared screen, C1, DEL, directions, and lines of ours."""
LIVE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\u2028]")
"""What must not reach a terminal; line breaks and tabs are our own."""


def test_visible() -> None:
    assert visible("ä €\U0001f600 x") == "ä €\U0001f600 x"
    assert visible("\x1b[m\x9b\u202e\n\t\r\udc80") == r"\x1b[m\x9b\u202e\n\t\r\udc80"
    assert visible("a\n\tb\x1b\r\n", lines=True) == "a\n\tb\\x1b\\r\\n"
    assert json.loads(visible_json(json.dumps(EVIL, ensure_ascii=False))) == EVIL


def test_a_log_line_is_one_line(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging.root, "handlers", [])
    log_on_stderr()
    logging.getLogger("refold.worker").warning("it fails: %s", EVIL)
    (line,) = capsys.readouterr().err.splitlines()
    assert not LIVE.search(line) and r"\x1b]0;pwned\x07" in line


@pytest.fixture
def attacked(refold: Refold, metric: Callable[[str, str], Path], database_url: str) -> Refold:
    """A database in which everything that comes from events is hostile: ids, actions, users, metadata, errors."""
    metric("counts", "SELECT action, user_id, count(*) AS events FROM events GROUP BY action, user_id")
    metric("sums", "SELECT user_id, sum((metadata ->> 'n')::numeric) AS s FROM events GROUP BY user_id")
    metric("firsts", "SELECT event_id, action, metadata ->> 'n' AS n FROM events")
    assert refold("deploy").status == 0
    with psycopg.connect(database_url, autocommit=True) as conn:
        good = {"id": "good" + EVIL, "action": EVIL, "user_id": EVIL, "ts": 0, "metadata": {EVIL: EVIL, "n": 1}}
        bad = {**good, "id": "bad" + EVIL, "metadata": {"n": EVIL}}
        append(conn, [good, bad], source=EVIL)
        append(conn, [{**good, "action": "other" + EVIL}, {"id": EVIL, "ts": EVIL}], source=EVIL)
        conn.execute("UPDATE refold.builds SET error = %s WHERE projection = 'firsts'", (EVIL,))
        conn.execute(
            "INSERT INTO refold.incidents (kind, subject, started_at, detected_by, evidence)"
            " VALUES ('stalled', %s, now(), %s, jsonb_build_object(%s::text, %s::text))",
            (EVIL, EVIL, EVIL, EVIL),
        )
    Path(f"evil{EVIL.replace('/', '')}.jsonl").write_text(
        json.dumps({"id": "f" + EVIL, "action": EVIL, "ts": 1_772_442_000_000, "metadata": {"n": 2}})
        + "\n"
        + EVIL
        + "\n"
    )
    assert refold("worker", "--drain").status == 0
    with psycopg.connect(database_url, autocommit=True) as conn:
        for table in conn.execute("SELECT table_name FROM refold.builds WHERE projection IN ('counts', 'firsts')"):
            conn.execute(f'UPDATE refold_builds."{table[0]}" SET action = action || %s'.encode(), (EVIL,))
    return refold


def commands(file: str) -> list[tuple[str, ...]]:
    return [
        ("status",), ("incidents",), ("report",), ("doctor",), ("rejected",), ("scrub",),
        ("deadletters", "list"), ("deadletters", "show", "1"), ("deadletters", "retry", "--all"),
        ("deadletters", "drop", "1", "--reason", "x", "--dry-run"), ("deadletters", "show", EVIL),
        ("reconcile", "--dry-run"), ("reconcile", "--depth", "quick"), ("reconcile",),
        ("query", "TABLE counts"), ("query", f"SELECT 1 AS \"{EVIL}\""),
        ("query", f"SELECT '{EVIL}'::int"), ("query", f"SELECT * FROM \"{EVIL}\""),
        ("ingest", file), ("ingest", file, "--dry-run"), ("ingest", EVIL), ("explain", "sums"), ("explain", EVIL),
        ("rollback", EVIL, "--dry-run"), ("rebuild", EVIL), ("promote", EVIL), ("deploy", "--dry-run"),
        ("recover", "--dry-run"), ("incidents", "--kind", EVIL),
    ]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("terminal", [pytest.param(False, marks=pytest.mark.exhaustive), True])
def test_no_command_hands_the_terminal_what_an_event_says(
    attacked: Refold, terminal: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if terminal:
        for console in (output.out, output.err):
            monkeypatch.setattr(console, "_force_terminal", True)
            monkeypatch.setattr(console, "_color_system", None)
    (file,) = map(str, Path().glob("evil*.jsonl"))
    shown = ""
    for command in commands(file):
        for options in ((), ("--json",)):
            if options and (command[0] in ("ingest", "promote") or "drop" in command):
                continue
            done = attacked(*command, *options)
            assert_harmless((*command, *options), done)
            shown += done.out + done.err
    assert shown.count(r"\x1b]0;pwned\x07") > 20


def assert_harmless(command: tuple[str, ...], done: Outcome) -> None:
    for stream in (done.out, done.err):
        ours = re.sub("\x1b\\[[0-9;]*[mKA]|\x1b\\[\\?25[lh]", "", stream)
        found = LIVE.search(ours)
        assert found is None, (command, ours[max(0, found.start() - 60) : found.end() + 20])
        assert not re.search("^error: j", ours, re.MULTILINE), command


def test_beside_a_bar_too() -> None:
    column = PlainColumn("{task.description}")
    with Progress(column, console=Console(file=io.StringIO(), force_terminal=True)) as bars:
        number = bars.add_task(EVIL + "[red]")
        (task,) = (task for task in bars.tasks if task.id == number)
        beside = column.render(task).plain
    assert not LIVE.search(beside)
    assert "[red]" in beside
