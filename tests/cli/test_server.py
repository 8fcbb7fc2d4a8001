"""The embedded server, which every command uses when no database is named."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from refold.embedded import EmbeddedServer

from .conftest import Refold


@pytest.mark.slow
def test_the_first_command_starts_and_installs_it_and_it_goes_on_running(
    at_home: Refold, metric: Callable[[str, str], Path]
) -> None:
    assert "not created yet" in at_home("server", "status").out
    assert at_home("server", "status", "--json").json["running"] is False
    metric("counts", "SELECT action, count(*) AS events FROM events GROUP BY action")
    deployed = at_home("deploy")
    assert deployed.status == 0, deployed.err
    assert "starting the embedded PostgreSQL" in deployed.err
    running = at_home("server", "status", "--json").json
    assert running["running"] is True
    again = at_home("query", "SELECT count(*) AS n FROM counts", "--csv")
    assert (again.out.split(), again.err) == (["n", "0"], "")
    assert at_home("server", "status").out.startswith(f"running  pid {running['pid']}")

    assert at_home("server", "stop").out.startswith("stopped")
    assert at_home("server", "stop").out == "the embedded server is not running\n"
    assert at_home("server", "status").out.startswith("stopped")
    assert at_home("server", "start").out.startswith("running")
    assert at_home("query", "TABLE counts", "--json").json == []


def test_explaining_a_file_and_asking_for_help_start_nothing(
    at_home: Refold, metric: Callable[[str, str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(EmbeddedServer, "start", lambda *_, **__: pytest.fail("the server was started"))
    metric("counts", "SELECT action, count(*) AS events FROM events GROUP BY action")
    for arguments in (["explain", "counts"], ["deploy", "--help"], ["--version"], ["init", "x"], ["deploy", "--nope"]):
        at_home(*arguments)


def test_a_home_that_is_in_use_for_something_else(
    at_home: Refold, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "home" / "postgres").mkdir(parents=True)
    (tmp_path / "home" / "postgres" / "diary.txt").write_text("mine")
    monkeypatch.setenv("REFOLD_HOME", str(tmp_path / "home"))
    done = at_home("status")
    assert done.status == 2
    assert "diary.txt" in done.err
    monkeypatch.undo()
