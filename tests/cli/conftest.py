"""The command line as a user has it: arguments in; exit status, stdout and stderr out."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
from typer.testing import CliRunner

from refold import append
from refold.cli.app import app


@dataclass(frozen=True)
class Outcome:
    """What a command did."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Its one document on stdout."""
        return json.loads(self.out)


Refold = Callable[..., Outcome]


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Refold:
    """Runs `refold` in an empty directory, without a database; `stdin` and environment variables by name."""
    home = tmp_path / "project"
    home.mkdir()
    monkeypatch.chdir(home)
    for name in ("REFOLD_DATABASE_URL", "REFOLD_HOME"):
        monkeypatch.delenv(name, raising=False)

    def run(*arguments: str, stdin: str | None = None, **environment: str) -> Outcome:
        done = CliRunner().invoke(app, arguments, input=stdin, env=environment, prog_name="refold")
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        return Outcome(done.exit_code, done.stdout, done.stderr)

    return run


@pytest.fixture
def refold(bare: Refold, database_url: str, monkeypatch: pytest.MonkeyPatch) -> Refold:
    """The same on this test's database."""
    monkeypatch.setenv("REFOLD_DATABASE_URL", database_url)
    return bare


@pytest.fixture
def record(database_url: str) -> Callable[..., None]:
    """Appends events `action=user`; ids are their numbers."""
    number = 0

    def record(*events: str, metadata: dict[str, Any] | None = None) -> None:
        nonlocal number
        rows = []
        for event in events:
            number += 1
            action, _, user = event.partition("=")
            at = f"2026-01-0{1 + number % 5}T10:00:00Z"
            row = {"id": str(number), "action": action, "user_id": user or None, "ts": at}
            rows.append(row | {"metadata": metadata or {}})
        with psycopg.connect(database_url) as conn:
            append(conn, rows)

    return record


@pytest.fixture
def metric() -> Callable[[str, str], Path]:
    """Writes a projection's file into ./projections."""

    def write(name: str, text: str) -> Path:
        folder = Path("projections")
        folder.mkdir(exist_ok=True)
        (folder / f"{name}.sql").write_text(text)
        return folder / f"{name}.sql"

    return write


@pytest.fixture
def at_home(bare: Refold, monkeypatch: pytest.MonkeyPatch) -> Iterator[Refold]:
    """The command line with a home of its own. Not below pytest's directory: root's server runs as another user."""
    home = Path(tempfile.mkdtemp(prefix="refold-home-"))
    home.chmod(0o711)
    monkeypatch.setenv("REFOLD_HOME", str(home))
    yield bare
    bare("server", "stop")
    shutil.rmtree(home)
