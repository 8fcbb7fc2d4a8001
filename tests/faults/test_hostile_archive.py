"""Fault 29, in the rooms of the archive: settings of the database change no file, no answer and no metric."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from refold import append
from refold.model.event.jsonb_limits import MAX_BYTES
from tests.engine.purge.conftest import ENDS, PROJECT, Yard, yard  # noqa: F401
from tests.faults.test_hostile_settings import WAYS, known, producing, run
from tests.support.backfilling import write

Connection = psycopg.Connection[Any]

FOLDER = ("--projections", str(PROJECT))
NAOMI = "直美 😀"
USERS = (None, "NULL", "null", "\\N", NAOMI, '"', "a\nb", "\r\n", " ", "\\.", ",", "'; --", "\t", "\\u0000", "u1")
TIMES = (
    "0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999999Z", "1900-01-01T00:00:00.000001Z", "2026-03-02T00:00:00Z",
    "1582-10-10T00:00:00+15:59",
)  # fmt: skip
ACTIONS = ("view", "buy", "NULL", '\n,"')
METADATA: tuple[dict[str, Any], ...] = (
    {"n": 1.0}, {"n": "2.50"}, {"k": "\\u0000"}, {"k": "😀 é \\\" ,\n"}, {"place": ""}, {"place": None},
)  # fmt: skip
NOT_OF_THE_DATABASE = ("client_encoding", "default_table_access_method")
"""What the other tests of hostile settings look at; here the producer and the tables are the fixture's."""


def odd(prefix: str) -> list[dict[str, Any]]:
    """Events that text, CSV and Parquet could change on their way."""
    return [
        {
            "id": f"{prefix}{at}",
            "user_id": user,
            "action": ACTIONS[at % 4],
            "ts": TIMES[at % 5],
            "metadata": METADATA[at % 6],
        }
        for at, user in enumerate(USERS)
    ]


@contextmanager
def hostile(admin: Connection, settings: Mapping[str, str]) -> Iterator[None]:
    """New sessions have these settings; those of the fixtures began before."""
    name = sql.Identifier(admin.info.dbname)
    for setting, value in settings.items():
        if known(admin, setting) and setting not in NOT_OF_THE_DATABASE:
            text = sql.SQL(value) if setting in ("search_path", "temp_tablespaces") else sql.Literal(value)
            admin.execute(sql.SQL("ALTER DATABASE {} SET {} = {}").format(name, sql.Identifier(setting), text))
    yield
    admin.execute(sql.SQL("ALTER DATABASE {} RESET ALL").format(name))


def remember(yard: Yard) -> None:  # noqa: F811
    yard.admin.execute(
        "INSERT INTO everything SELECT e.* FROM refold.events AS e"
        " WHERE NOT EXISTS (SELECT FROM everything AS k WHERE k.event_id = e.event_id)"
    )


@pytest.mark.slow
@pytest.mark.live("archived")
@pytest.mark.parametrize("way", WAYS)
def test_from_the_archive_to_the_proof(way: str, yard: Yard, tmp_path: Path) -> None:  # noqa: F811
    def refold(*arguments: str) -> str:
        return run(*arguments, "--database-url", yard.url)

    def offer(events: list[dict[str, Any]]) -> set[str]:
        with producing(yard.url) as producer:
            return {str(one.answer) for one in append(producer, events)}

    with hostile(yard.admin, WAYS[way]):
        assert offer(odd("x-")) == {"accepted"}
        large = {"id": "large", "action": "noise", "ts": 5, "metadata": {"b": '"' * (MAX_BYTES // 2 - 20)}}
        assert offer([large]) == {"accepted"}
        remember(yard)
        yard.skip_to(ENDS[3])
        offer([{"id": "last", "action": "view", "ts": 7}])
        remember(yard)
        refold("worker", "--drain", *FOLDER)
        yard.seal()
        refold("archive", "run", "--now")
        yard.count()
        assert "4 files" in refold("archive", "verify", "--deep")
        assert "purged 4 segments" in refold("archive", "purge", "--before", "2999-01-01", "--yes")
    assert yard.wrong() == {}
    with hostile(yard.admin, WAYS[way]):
        assert offer(odd("x-")) == {"duplicate"}
        with producing(yard.url) as producer:
            query = b"SELECT DISTINCT answer FROM refold.append($$" + json.dumps(odd("x-")).encode() + b"$$)"
            assert producer.execute(query).fetchall() == [("duplicate",)]
        refold("reconcile", "--archive", *FOLDER)
        refold("scrub")
        path = write(tmp_path / "old.jsonl", [*odd("old-"), *odd("x-"), {"id": "odd", "ts": "infinity"}, "none"])
        refold("backfill", "stage", "history", str(path))
        told = refold("backfill", "check", "history", *FOLDER)
        assert "32 records = 15 new + 15 duplicates" in told and "no effect can be told" not in told
        refold("erase", "person", NAOMI, "--reason", "asked", "--mode", "delete", "--yes", *FOLDER)
        refold("backfill", "run", "history", "--freshness", "3600s", *FOLDER)
        refold("worker", "--drain", *FOLDER)
        refold("reconcile", "--archive", *FOLDER)
        refold("archive", "verify", "--deep")
        refold("scrub")
    remember(yard)
    assert yard.admin.execute("DELETE FROM everything WHERE user_id = %s", (NAOMI,)).rowcount == 1
    assert yard.wrong() == {}
    yard.look()
    assert yard.incidents() == []
