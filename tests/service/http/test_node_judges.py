"""The SDKs of npm, unchanged. Needs node and npm: `pytest -m node`."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.service.http.test_events import stored
from tests.service.http.test_judges import rows
from tests.support.door import Served

Connection = psycopg.Connection[Any]

pytestmark = [pytest.mark.node, pytest.mark.xdist_group("node")]

PACKAGES = Path(__file__).parents[2] / "support" / "node"


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    place = tmp_path_factory.mktemp("node")
    for name in ("package.json", "send.mjs"):
        shutil.copy(PACKAGES / name, place)
    subprocess.run(
        ["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", "--loglevel", "error"], cwd=place, check=True
    )
    yield place
    shutil.rmtree(place)


def send(installed: Path, client: str, door: Served) -> Any:
    done = subprocess.run(
        ["node", "send.mjs", client, f"http://127.0.0.1:{door.port}", door.token],
        cwd=installed,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("client", ["segment", "rudderstack"])
def test_an_sdk_as_it_comes(installed: Path, door: Served, admin: Connection, client: str) -> None:
    assert send(installed, client, door) == []
    assert [(user, action) for user, action, _ in rows(admin)] == [
        ("u1", "Bought"), ("u1", "alias"), ("u1", "group"), ("u1", "identify"), ("u2", "page"), ("u2", "screen"),
    ]  # fmt: skip
    assert rows(admin)[0][2]["properties"] == {"amount": 5}
    assert admin.execute("SELECT count(*) FROM refold.rejected").fetchone() == (0,)


def test_cloudevents_in_two_modes_are_one_event(installed: Path, door: Served, admin: Connection) -> None:
    assert send(installed, "cloudevents", door) == [201, 200]
    assert len(stored(admin)) == 1
