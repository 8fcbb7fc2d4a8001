"""What goes wrong, as the user reads it: a message, a remedy, an exit status; never a traceback or a password."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

import refold
from refold.cli.complaints import describe
from tests.conftest import ServerUnderTest

from .conftest import Refold


@pytest.mark.parametrize(
    ("typed", "meant"), [("deplyo", "deploy"), ("statsu", "status"), ("rebuilt", "rebuild"), ("injest", "ingest")]
)
def test_a_misspelt_command_is_answered_with_the_right_one(bare: Refold, typed: str, meant: str) -> None:
    done = bare(typed)
    assert done.status == 2
    assert f"Did you mean '{meant}'" in done.err


@pytest.mark.parametrize(
    ("command", "typed", "meant"),
    [("deploy", "--dryrun", "--dry-run"), ("worker", "--proceses", "--processes"), ("query", "--jsn", "--json")],
)
def test_a_misspelt_option_is_answered_with_the_right_one(bare: Refold, command: str, typed: str, meant: str) -> None:
    done = bare(command, typed)
    assert done.status == 2
    assert meant in done.err


def test_a_server_that_is_not_there(bare: Refold, tmp_path: Path) -> None:
    done = bare("status", "--database-url", f"postgresql://me:hunter2@/shop?host={tmp_path}")
    assert done.status == 2
    assert done.err.startswith("error: cannot reach the database")
    assert "REFOLD_DATABASE_URL" in done.err
    assert "hunter2" not in done.err + done.out


@pytest.mark.parametrize(
    "url",
    [
        "hunter2 hunter2",
        "postgresql://me:hunter2@[/shop",
        "postgresql://me:hun%ter2@/x",
        "postgresql://me:hun@ter2@localhost:1/x",
        "postgresql://me:@hunter2@localhost/x",
    ],
)
def test_what_is_no_url_is_not_repeated(bare: Refold, url: str) -> None:
    done = bare("status", "--database-url", url)
    assert done.status == 2
    assert "not a libpq URL" in done.err
    assert "hun" not in done.err + done.out and "ter2" not in done.err + done.out


@pytest.mark.parametrize(
    ("arguments", "environment", "message"),
    [
        (["status"], {"REFOLD_DATABASE_URL": ""}, "REFOLD_DATABASE_URL is set, but empty"),
        (["status", "--database-url", ""], {}, "the database URL is empty"),
        (["query", "SELECT 1", "--database-url", " "], {"REFOLD_DATABASE_URL": ""}, "the database URL is empty"),
        (["status"], {"REFOLD_HOME": __file__}, f"needs a directory, but {__file__} is a file"),
        (["server", "status"], {"REFOLD_HOME": __file__}, f"needs a directory, but {__file__} is a file"),
        (["server", "stop"], {"REFOLD_HOME": __file__}, f"needs a directory, but {__file__} is a file"),
        (["server", "start"], {"REFOLD_HOME": __file__}, f"needs a directory, but {__file__} is a file"),
        (["deploy"], {}, "there are no projections to deploy: "),
        (["deploy", "--projections", "nowhere"], {}, "/nowhere does not exist"),
        (["deploy", "--projections", __file__], {}, f"{__file__} is not a folder"),
        (["deploy", "--starters", "--projections", "."], {}, "--starters and --projections exclude each other"),
    ],
)
def test_a_place_that_is_none_is_named_before_anything_is_made(
    bare: Refold, arguments: list[str], environment: dict[str, str], message: str
) -> None:
    done = bare(*arguments, **environment)
    assert (done.status, done.out) == (2, "")
    assert done.err.startswith("error: ")
    assert message in done.err
    assert "  try: " in done.err


def test_deploy_says_where_it_looked_and_where_there_is_a_project(bare: Refold) -> None:
    here = Path.cwd()
    assert f"{here}/projections does not exist" in bare("deploy").err
    (here / "projections").mkdir()
    (here / "sql").mkdir()
    os.chdir("sql")
    assert f"There is one in {here}: cd {here}" in bare("deploy").err


def test_a_database_without_refold(bare: Refold, server: ServerUnderTest, database_url: str) -> None:
    # The roles are the cluster's, the schema is not in this database.
    done = bare("status", "--database-url", server.url_of(server.maintenance_dbname))
    assert done.status == 2
    assert "not installed" in done.err
    assert "refold migrate" in done.err


def test_a_database_that_is_not_there(bare: Refold, server: ServerUnderTest) -> None:
    """The server answers: that it may be down is no advice."""
    done = bare("status", "--database-url", server.url_of("no_such_database"))
    assert done.status == 2
    assert done.err.startswith('error: the server refused the connection: database "no_such_database" does not exist')
    assert "Check the database's name" in done.err


@pytest.mark.parametrize(
    "error", [psycopg.errors.AdminShutdown, psycopg.errors.CrashShutdown, psycopg.errors.CannotConnectNow]
)
def test_a_server_that_restarts_says_to_run_it_again(
    refold: Refold, conn: psycopg.Connection[tuple[object, ...]], error: type[psycopg.Error]
) -> None:
    with pytest.raises(error) as raised:
        conn.execute(f"DO $$ BEGIN RAISE EXCEPTION 'going down' USING ERRCODE = '{error.sqlstate}'; END $$".encode())
    message, remedy = describe(raised.value)
    assert message == "going down"
    assert remedy is not None and "run the command again" in remedy


def test_a_connection_that_breaks_says_to_run_it_again() -> None:
    message, remedy = describe(
        psycopg.OperationalError("consuming input failed: server closed the connection unexpectedly")
    )
    assert message.startswith("the connection broke")
    assert remedy is not None and "run the command again" in remedy


def test_an_unknown_metric_names_those_there_are(refold: Refold) -> None:
    done = refold("query", "SELECT * FROM freshnes")
    assert done.status == 2
    assert "Did you mean freshness?" in done.err


def test_a_folder_that_is_not_there(refold: Refold) -> None:
    done = refold("deploy", "--projections", "nowhere")
    assert done.status == 2
    assert "/nowhere does not exist" in done.err
    assert "refold init" in done.err


def test_migrate_is_safe_to_repeat(refold: Refold) -> None:
    first, second = refold("migrate"), refold("migrate", "--json")
    assert (first.status, second.status) == (0, 0)
    assert re.fullmatch(r"\d+(\.\d+)?", second.json["server_version"])


def test_the_version(bare: Refold) -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+", refold.__version__)
    assert bare("--version").out == f"refold {refold.__version__}\n"


def test_as_a_module(database_url: str) -> None:
    done = subprocess.run([sys.executable, "-m", "refold", "nothing"], capture_output=True, text=True)
    assert done.returncode == 2
    assert "No such command 'nothing'" in done.stderr


def at_a_keyboard() -> None:
    """Makes standard input the terminal that controls this process; whoever runs the tests may ignore Ctrl-C."""
    os.close(os.open(os.ttyname(0), os.O_RDWR))
    signal.signal(signal.SIGINT, signal.default_int_handler)


def test_on_a_terminal_there_are_colours_and_ctrl_c_ends_it_with_130(database_url: str) -> None:
    """A real terminal: `status --watch` draws, SIGINT from the keyboard ends it."""
    leader, follower = pty.openpty()
    environment = {**os.environ, "REFOLD_DATABASE_URL": database_url, "TERM": "xterm-256color"}
    environment.pop("NO_COLOR", None)
    process = subprocess.Popen(
        [sys.executable, "-m", "refold", "status", "--watch", "--every", "0.1"],
        stdin=follower, stdout=follower, stderr=follower, env=environment, start_new_session=True,
        preexec_fn=at_a_keyboard,
    )  # fmt: skip
    os.close(follower)
    seen = b""
    try:
        while b"prepared" not in seen:
            assert select.select([leader], [], [], 20)[0], seen
            seen += os.read(leader, 65536)
        os.write(leader, b"\x03")
        while select.select([leader], [], [], 20)[0]:
            try:
                seen += os.read(leader, 65536)
            except OSError:  # the terminal closes with its last process
                break
        assert process.wait(timeout=20) == 130, seen
    finally:
        process.kill()
        process.wait()
        os.close(leader)
    assert b"\x1b[" in seen
    assert b"Traceback" not in seen
