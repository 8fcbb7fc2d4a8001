"""The disk of a database is full while history moves: archive, purge, retention, erasure, backfill, rebuild.

Each command says so, and leaves nothing half done: with room again the same command goes on to its end. A backfill that
runs waits for room, as producers do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event, Thread, Timer

import psycopg
import pytest
from typer.testing import CliRunner

from refold.cli.app import app
from refold.engine.archive.object_store import open_store
from refold.errors import RefoldError
from refold.model.erasure import Person
from tests.engine.purge.conftest import PROJECT, Yard
from tests.support.backfilling import write
from tests.support.clusters import cluster
from tests.support.disks import filled, on_a_small_disk, small_disk
from tests.support.law import worker_connection
from tests.support.live import make_live

pytestmark = pytest.mark.slow

KB = 1024
LATER = "2999-01-01"
FULL = "No space left on device"


@contextmanager
def applied(yard: Yard) -> Iterator[None]:
    """Metrics are kept fresh meanwhile, as far as there is room."""
    over = Event()

    def work() -> None:
        while not over.wait(0.1):
            with suppress(psycopg.Error, RefoldError):
                yard.drain()

    thread = Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@pytest.mark.parametrize("leave", [0, 64 * KB, 256 * KB, 1024 * KB])
def test_with_room_again_the_same_command_goes_on(leave: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with small_disk(96) as place, cluster() as server:
        url = on_a_small_disk(server, place)
        monkeypatch.setenv("REFOLD_DATABASE_URL", url)
        make_live(url, PROJECT)
        location = str(tmp_path / "archive")
        with psycopg.connect(url, autocommit=True) as admin, worker_connection(url) as worker:
            yard = Yard(url, admin, worker, location, open_store(location))
            yard.prepare()
            records = [{"id": f"b{n}", "user_id": f"u{n % 9}", "action": "buy", "ts": f"2026-03-0{1 + n % 9}T00:00:00Z",
                        "metadata": {"n": n, "padding": "x" * 200}} for n in range(2_000)]  # fmt: skip
            history = write(tmp_path / "history.jsonl", records)
            (somebody,) = admin.execute("SELECT min(user_id) FROM refold.events WHERE user_id LIKE 'u%'").fetchone()  # type: ignore[misc]
            failed: list[str] = []

            def command(*arguments: str, then: Callable[[], object] = lambda: None) -> None:
                """Run a command without room and then with it."""
                name = " ".join(arguments[:2])
                with filled(place, leave=leave) as remove:
                    done = CliRunner().invoke(app, [*arguments])
                    if done.exit_code:
                        failed.append(name)
                        assert done.exit_code in (1, 2) and FULL in " ".join(done.output.split()), done.output
                        assert "Traceback" not in done.output
                    remove()
                again = CliRunner().invoke(app, [*arguments])
                # What was done without room is not done twice.
                if failed[-1:] == [name]:
                    assert again.exit_code == 0, f"{name}: {again.output}"
                then()
                yard.drain()
                yard.remember()
                assert yard.wrong() == {}, name
                yard.look()

            projections = ("--projections", str(PROJECT))
            yard.append(60)
            yard.seal()
            command("archive", "run", "--now")
            yard.count()
            command("archive", "purge", "--before", LATER, "--yes")
            command("erase", somebody, "--reason", "asked", "--yes", *projections,
                    then=lambda: yard.forget(Person(somebody), "anonymise"))  # fmt: skip
            command("backfill", "stage", "history", str(history))
            command("backfill", "check", "history", *projections)
            with filled(place, leave=leave) as remove, applied(yard):
                Timer(2.0, remove).start()
                done = CliRunner().invoke(app, ["backfill", "run", "history", *projections])
                if done.exit_code:
                    # It had not begun yet.
                    assert done.exit_code == 2 and FULL in " ".join(done.output.split()), done.output
                    remove()
                    done = CliRunner().invoke(app, ["backfill", "run", "history", *projections])
            assert done.exit_code == 0, done.output
            yard.drain()
            yard.remember()
            assert yard.wrong() == {}
            command("rebuild", "daily", *projections)
            assert yard.incidents() == []
            assert failed if leave < 256 * KB else True
