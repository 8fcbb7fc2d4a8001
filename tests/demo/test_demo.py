"""`refold demo` from the outside: what it prints, how it ends, and what it leaves behind."""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest
from typer.testing import CliRunner

from refold.cli.app import app
from refold.demo import edits, play
from refold.demo.shop import day
from refold.demo.stage import Stage
from refold.demo.tally import tally
from refold.engine.reconcile import reconcile
from refold.model.event.source_event import Answer
from refold.postgres.connect import connection
from tests.support.waiting import wait_until

pytestmark = pytest.mark.slow


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The only place where the demo may leave files; it must leave none."""
    # Not below pytest's own directory, which pytest closes to the user that runs the server.
    directory = Path(tempfile.mkdtemp(prefix="refold-test-"))
    directory.chmod(0o711)
    monkeypatch.setenv("TMPDIR", str(directory))
    monkeypatch.setattr(tempfile, "tempdir", None)
    # The demo has a server of its own, whatever is configured.
    monkeypatch.setenv("REFOLD_DATABASE_URL", "postgresql://nowhere.invalid/none")
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    yield directory
    shutil.rmtree(directory)


def command(*options: str) -> list[str]:
    return [sys.executable, "-m", "refold", "demo", "--events", "600", *options]


def left_behind(home: Path) -> list[str]:
    """Files, and processes that work on them."""
    processes = [
        f"{process.pid} {line}"
        for process in psutil.process_iter(["cmdline"])
        if str(home) in (line := " ".join(process.info["cmdline"] or []))
    ]
    return [str(path) for path in home.iterdir()] + processes


def test_the_demo_proves_everything_and_leaves_nothing(home: Path) -> None:
    done = subprocess.run(command("--seed", "5"), cwd="/", capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    assert "\x1b" not in done.stdout
    told = done.stdout.splitlines()

    fates = [one.fate for one in day(5, 600).deliveries]
    assert (
        f"✓  600 messages = {fates.count(Answer.accepted)} stored + {fates.count(Answer.duplicate)} duplicates"
        f" + {fates.count(Answer.conflict) + fates.count(Answer.invalid)} rejected"
        f" ({fates.count(Answer.conflict)} conflicts, {fates.count(Answer.invalid)} invalid)"
    ) in told
    assert f"✓  0 stored, {fates.count(Answer.accepted)} duplicates; no metric moved" in told
    assert re.search(r"Worker \d+ was writing \w+.*when kill -9 hit it", done.stdout)
    assert "✓  exactly those 7 rows, and no other; healed, and recorded in refold.repairs" in told
    for metric in ("active_users", "enriched_events", "event_counts", "funnel_stages", "user_cohorts"):
        assert re.search(rf"^   {metric} +[\d,]+  ✓ +✓$", done.stdout, re.MULTILINE)
    assert "✗" not in done.stdout
    assert re.search(r"^Correct, and proven, in \d+ seconds:$", done.stdout, re.MULTILINE)
    assert left_behind(home) == []


@pytest.mark.exhaustive
def test_metrics_that_stay_wrong_are_told_and_end_with_1(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(play, "reconcile", partial(reconcile, dry_run=True))
    done = CliRunner().invoke(app, ["demo", "--events", "500", "--processes", "1"])
    assert done.exit_code == 1
    assert "not every finding was healed" in done.output
    assert "active_users: rows that differ from its query over the log: 1" in done.output
    assert re.search(r"active_users 2025-11-28: \d+, the shop counted \d+", done.output)
    assert re.search(r"^   funnel_stages +[\d,]+  ✗ +✗$", done.output, re.MULTILINE)
    assert "Correct, and proven" not in done.output
    assert left_behind(home) == []


@pytest.mark.exhaustive
def test_metrics_that_the_shop_counts_otherwise_are_told(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(play, "tally", lambda steps: tally(steps[1:]))
    done = CliRunner().invoke(app, ["demo", "--events", "500"])
    assert done.exit_code == 1
    (lost,) = re.findall(r"enriched_events (\S+): Row\(.*\), the shop counted None", done.output)
    assert lost == day(1, 500).steps[0].id
    assert re.search(r"^   enriched_events +[\d,]+  ✓ +✗$", done.output, re.MULTILINE)


def test_ctrl_c_leaves_nothing(home: Path) -> None:
    process = subprocess.Popen(
        command(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )  # fmt: skip
    assert process.stdout is not None
    for line in process.stdout:
        if "2 workers" in line:
            break
    # As a terminal does: to every process in the foreground.
    os.killpg(process.pid, signal.SIGINT)
    _, told = process.communicate(timeout=60)
    assert (process.returncode, told) == (130, "Stopped; the server and its files are removed.\n")
    assert left_behind(home) == []


@pytest.mark.exhaustive
def test_keep_leaves_a_server_that_can_be_used_and_removed_as_it_says(home: Path) -> None:
    done = subprocess.run(command("--keep"), capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    (directory,) = home.iterdir()
    try:
        told = re.search(r"export REFOLD_DATABASE_URL='(.*)'", done.stdout)
        assert told is not None
        with psycopg.connect(told[1]) as conn:
            assert conn.execute("SELECT count(*) FROM metrics.active_users").fetchone() == (2,)
            assert conn.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'refold worker'"
            ).fetchone() == (0,)
    finally:
        removal = re.search(r"REFOLD_HOME=(\S+) refold server stop && rm -r (\S+)", done.stdout)
        assert removal is not None
        assert removal[1] == removal[2] == str(directory)
        subprocess.run(
            [sys.executable, "-m", "refold", "server", "stop"],
            env={**os.environ, "REFOLD_HOME": removal[1]}, capture_output=True, check=True,
        )  # fmt: skip
        shutil.rmtree(directory)
    assert left_behind(home) == []


def test_a_start_that_fails_leaves_nothing(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Stage, "deploy", lambda stage: (_ for _ in ()).throw(KeyboardInterrupt))
    done = CliRunner().invoke(app, ["demo"])
    assert done.exit_code == 130
    assert left_behind(home) == []


@pytest.mark.exhaustive
def test_what_workers_heal_before_it_is_found_too(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their audits come whenever they come: between two edits, and between the edits and `reconcile`."""
    perform, rows = edits.perform, edits._rows

    def rows_and_an_audit(conn: psycopg.Connection, edit: edits.Edit) -> list[dict[str, Any]]:
        worker = f"host={conn.info.host} port={conn.info.port} dbname={conn.info.dbname} user=worker_1"
        with connection(worker, "refold_worker", autocommit=True) as other:
            reconcile(other, None, depth="slice")
        return rows(conn, edit)

    def healed_at_once(conn: psycopg.Connection, planned: Sequence[edits.Edit]) -> Counter[edits.Drift]:
        expected = perform(conn, planned)
        conn.execute("UPDATE refold.duties SET started_at = started_at - interval '1 day' WHERE name LIKE '%audit%'")
        wait_until(lambda: conn.execute("SELECT count(*) FROM refold.repairs").fetchone() == (expected.total(),), 60.0)
        return expected

    monkeypatch.setattr(edits, "_rows", rows_and_an_audit)
    monkeypatch.setattr(edits, "perform", healed_at_once)
    done = CliRunner().invoke(app, ["demo", "--events", "500", "--processes", "1"])
    assert "✓  exactly those 7 rows, and no other; healed, and recorded in refold.repairs" in done.output
    assert done.exit_code == 0
