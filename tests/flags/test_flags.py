"""Canaries answer as flags, and follow them; by the real SDK of OpenFeature."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from openfeature import api
from openfeature.client import OpenFeatureClient
from openfeature.evaluation_context import EvaluationContext
from openfeature.exception import ErrorCode
from openfeature.provider.in_memory_provider import InMemoryFlag, InMemoryProvider

from refold.engine.canary.canary import start
from refold.errors import InputError
from refold.flags import RefoldProvider
from refold.flags.follow import asked, load_provider
from refold.store.builds.compiled import Compiler
from tests.support.scratch import Scratch

COUNTS = "SELECT action, count(*) AS events FROM events WHERE {} GROUP BY action"
LIVE, CANDIDATE = [("a", 40)], [("a", 39)]


@pytest.fixture
def canary(scratch: Scratch) -> None:
    scratch.append(40)
    scratch.deploy(counts=COUNTS.format("true"))
    scratch.deploy(live=False, counts=COUNTS.format("event_id <> 'e7'"))
    start(scratch.worker, Compiler(scratch.folder), "counts", steps=[50, 100])


@pytest.fixture
def client(database_url: str) -> Iterator[OpenFeatureClient]:
    api.set_provider(RefoldProvider(database_url))
    yield api.get_client()
    api.shutdown()


def shown(conn: psycopg.Connection[Any], reader: str) -> list[tuple[Any, ...]]:
    conn.execute("SELECT set_config('refold.reader', %s, false)", (reader,))
    return conn.execute("SELECT * FROM metrics.counts").fetchall()


@pytest.mark.usefixtures("canary")
def test_the_flag_says_what_the_view_shows(
    client: OpenFeatureClient, connect: Callable[..., psycopg.Connection[Any]]
) -> None:
    conn = connect(autocommit=True)
    told = {}
    for number in range(40):
        reader = f"viewer {number}"
        told[reader] = client.get_string_value("metrics.counts", "?", EvaluationContext(reader))
        assert shown(conn, reader) == {"live": LIVE, "candidate": CANDIDATE}[told[reader]]
        assert client.get_boolean_value("metrics.counts", False, EvaluationContext(reader)) == (
            told[reader] == "candidate"
        )
    assert set(told.values()) == {"live", "candidate"}


@pytest.mark.usefixtures("canary")
def test_what_has_no_answer_is_the_clients_default(client: OpenFeatureClient) -> None:
    for key in ("metrics.nothing", "counts", "metrics."):
        found = client.get_string_details(key, "mine")
        assert (found.value, found.error_code) == ("mine", ErrorCode.FLAG_NOT_FOUND)
    assert client.get_integer_details("metrics.counts", 7).error_code == ErrorCode.TYPE_MISMATCH


@pytest.mark.usefixtures("canary")
def test_a_server_that_ends_the_session_is_asked_again(
    client: OpenFeatureClient, admin: psycopg.Connection[Any]
) -> None:
    assert client.get_string_details("metrics.counts", "?").error_code is None
    assert admin.execute(
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE application_name = 'refold flags'"
        " AND datname = current_database()"
    ).fetchall() == [(True,)]
    assert client.get_string_details("metrics.counts", "mine").error_code == ErrorCode.GENERAL
    assert client.get_string_details("metrics.counts", "mine").error_code is None


@pytest.mark.parametrize(
    ("value", "expected"), [(0, 0), (25, 25), (100, 100), (101, None), (-1, None), ("25", None), (True, None)]
)
def test_only_a_percentage_is_an_answer(value: object, expected: int | None) -> None:
    api.set_provider(InMemoryProvider({"rollout": InMemoryFlag("on", {"on": value})}))
    percent, why = asked(api.get_client(), "rollout", "counts")
    assert percent == expected and bool(why) == (expected is None)
    assert asked(api.get_client(), "no such flag", "counts")[0] is None
    api.shutdown()


def test_a_provider_is_named_by_module_and_name(tmp_path: Path) -> None:
    (tmp_path / "my_flags_1.py").write_text(
        "from openfeature.provider.in_memory_provider import InMemoryProvider\n"
        "def made():\n    return InMemoryProvider({})\n"
        "here = made()\nwrong = 3\n"
    )
    for name in ("made", "here"):
        assert isinstance(load_provider(f"my_flags_1:{name}", tmp_path), InMemoryProvider)
    for target in ("my_flags_1", "my_flags_1:missing", "my_flags_1:wrong", "no_such_module_1:made"):
        with pytest.raises(InputError):
            load_provider(target, tmp_path)
