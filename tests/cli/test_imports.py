"""A command starts at once: what others need is not imported for it. And Ctrl-C meanwhile ends it quietly."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
import typer.main

from refold.cli.app import app
from refold.cli.commands import COMMANDS

PARSER = {"sqlglot", "refold.model.projection.query"}
MODELS = {"refold.model.event.source_event", "refold.model.projection.transform"}
TABLES = {"alembic", "sqlalchemy"}
SERVER = {"psycopg", "refold.postgres.connect"}
IDLE = {"tenacity", "psutil", "rich.progress"}
# typer from 0.29 on checks the values of options by pydantic: where there are any, it is there whatever we do.
# What makes metrics, and what runs them: no help text needs these.
MACHINES = {
    "refold.engine",
    "refold.service.duties",
    "refold.service.worker.loop",
    "refold.inspect",
    "refold.demo",
    "psutil",
}
NOTHING = {*PARSER, *MODELS, *TABLES, *SERVER, "pydantic", "tenacity"}

MAY_NOT_IMPORT = {
    "--version": {*NOTHING, "rich"},
    "--help": {*NOTHING, "rich"},
    "": {*NOTHING, "rich"},
    "statsu": NOTHING - {"pydantic"},
    # Who only looks needs neither bars nor retries, nor, with a URL, what starts a server.
    "init .": {*PARSER, *MODELS, *TABLES},
    "server status": {*PARSER, *MODELS, *TABLES, *IDLE},
    "url": {*PARSER, *MODELS, *TABLES, *IDLE},
    "status": {*PARSER, *MODELS, *TABLES, *IDLE},
    "incidents": {*PARSER, *MODELS, *TABLES, *IDLE},
    "report": {*PARSER, *MODELS, *TABLES, *IDLE},
    "rejected": {*PARSER, *MODELS, *TABLES, *IDLE},
    "query 'SELECT 1'": {*PARSER, *MODELS, *TABLES, *IDLE},
    **{f"{command} --help": {*PARSER, *TABLES, *MACHINES} for command in COMMANDS},
    "deploy --dry-run": TABLES,
    "worker --drain": TABLES,
    "doctor": TABLES,
    "deadletters list": TABLES,
}

# Each command in a child of its own: it starts with nothing imported, and costs no more than what it imports.
RUN = """
import json, os, shlex, sys
found = {}
for command, forbidden in json.loads(sys.argv[1]).items():
    ours, theirs = os.pipe()
    child = os.fork()
    if not child:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.argv = ["refold", *shlex.split(command)]
        try:
            from refold.cli import main
            main()
        except SystemExit:
            os.write(theirs, json.dumps(sorted(sys.modules.keys() & set(forbidden))).encode())
        finally:
            os._exit(0)
    os.close(theirs)
    os.waitpid(child, 0)
    found[command] = json.loads(os.read(ours, 65536) or '["it did not end"]')
    os.close(ours)
print(json.dumps(found))
"""


OFTEN = {command for command in MAY_NOT_IMPORT if not command.endswith("--help")} | {"--help", "worker --help"}


@pytest.mark.slow
@pytest.mark.parametrize(
    "commands",
    [OFTEN, pytest.param(MAY_NOT_IMPORT.keys() - OFTEN, marks=pytest.mark.exhaustive)],
    ids=["often run", "help of the others"],
)
def test_what_may_not_be_imported_by_which_command(commands: set[str], database_url: str, tmp_path: Any) -> None:
    wanted = {command: sorted(MAY_NOT_IMPORT[command]) for command in commands}
    done = subprocess.run(
        [sys.executable, "-c", RUN, json.dumps(wanted)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={"REFOLD_DATABASE_URL": database_url, "HOME": str(tmp_path), "PATH": "/usr/bin:/bin"},
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {command: [] for command in commands}, done.stderr


@pytest.mark.slow
def test_the_list_says_what_the_commands_say() -> None:
    group: Any = typer.main.get_command(app)
    context = group.make_context("refold", ["status"])
    listed = {name: group.get_command(context, name) for name in COMMANDS}
    shown = {name: (one.help, one.rich_help_panel) for name, one in listed.items()}
    loaded = {name: group.load(name) for name in COMMANDS}
    assert shown == {name: (one.help.split("\n\n")[0], one.rich_help_panel) for name, one in loaded.items()}
    registered: Any = typer.main.get_command(app)
    assert registered.registered.keys() == COMMANDS.keys()


def test_the_list_of_commands(bare: Any) -> None:
    for arguments in (["--help"], ["-h"], []):
        shown = bare(*arguments, COLUMNS="80")
        lines = (shown.out or shown.err).splitlines()
        assert lines[0] == "Usage: refold [OPTIONS] COMMAND [ARGS]..."
        assert all(len(line) <= 80 for line in lines)
        named = [line.split()[0] for line in lines if line.startswith("  ") and line[2] != " "]
        assert [name for name in named if not name.startswith("-")] == list(COMMANDS)
        assert {"--version", "-h,"} <= set(named)
        assert "Your own project:   refold init shop && cd shop && refold deploy" in lines


@pytest.mark.parametrize("module", ["typer", "refold.cli.output", "psycopg", "refold.inspect.status"])
def test_ctrl_c_while_python_imports(module: str) -> None:
    # As if the key were pressed just when that module is looked for.
    code = f"""
import os, signal, sys
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Finder())
from refold.cli import main
sys.argv = ["refold", "status"]
main()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (130, "")
    assert "Traceback" not in done.stderr
