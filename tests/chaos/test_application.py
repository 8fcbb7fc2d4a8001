"""The application of the campaign: each committed change of its rows is one event, and the count finds any other."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from chaos import application
from chaos.findings import Findings
from chaos.invariants import check_log
from chaos.journal import read
from chaos.producer import Orders, Producer, captured
from chaos.stage import HERE
from tests.conftest import ServerUnderTest
from tests.support.capturing import Captured
from tests.support.logins import login

Connection = psycopg.Connection[Any]


@pytest.fixture
def producer(
    tmp_path: Path,
    database_url: str,
    server: ServerUnderTest,
    admin: Connection,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Producer]:
    """A producer of the application, whose table is captured."""
    with login(server, admin) as url, psycopg.connect(url) as conn:
        role = conn.info.user
        conn.close()
        admin.execute(application.TABLES.replace(f"CREATE ROLE {application.ROLE};", "").replace(
            application.ROLE, f'"{role}"').encode())  # fmt: skip
        monkeypatch.setattr(application, "ROLE", role)
        (tmp_path / "captures").mkdir()
        Captured(tmp_path / "captures", database_url, admin).deploy(
            carts=(HERE / "captures" / "carts.toml").read_text()
        )
        made = Producer(Orders("captured", "captured", database_url, str(tmp_path), 3, 0.0))
        try:
            yield made
        finally:
            made.disconnect()


def found_in(conn: Connection, producer: Producer) -> Findings:
    found = Findings()
    check_log(conn, read([Path(producer.orders.directory) / "captured.journal"]), found)
    return found


def test_each_change_is_one_event(producer: Producer, admin: Connection) -> None:
    for _ in range(60):
        captured(producer)
    ((rows, changes, operations),) = admin.execute(
        "SELECT (SELECT count(*) FROM application.carts), (SELECT sum(changes) FROM application.sent),"
        " (SELECT count(DISTINCT split_part(event_id, ':', 4)) FROM refold.events)"
    ).fetchall()
    assert changes > rows > 100
    assert operations == 3
    found = found_in(admin, producer)
    assert (found.violations, found.lost, found.double) == ({}, 0, 0)
    assert len(read([Path(producer.orders.directory) / "captured.journal"]).acknowledged) == changes


def _not_captured(conn: Connection) -> None:
    conn.execute("ALTER TABLE application.carts DISABLE TRIGGER USER")


def _twice(conn: Connection) -> None:
    conn.execute("ALTER TABLE refold.events DISABLE TRIGGER USER")
    conn.execute(
        "INSERT INTO refold.events (event_id, user_id, action, ts, metadata)"
        " SELECT event_id || '0', user_id, action, ts, metadata FROM refold.events LIMIT 1"
    )


def _rolled_back(conn: Connection) -> None:
    conn.execute("ALTER TABLE refold.events DISABLE TRIGGER USER")
    conn.execute(
        "INSERT INTO refold.events (event_id, action, ts, metadata) VALUES"
        " ('capture:carts:x:insert:1.1', 'view', now(), '{\"label\": \"x\"}')"
    )


@pytest.mark.parametrize(
    ("damage", "invariants"), [(_not_captured, ["I1"]), (_twice, ["I2"]), (_rolled_back, ["I2", "I5"])]
)
def test_damage_is_found(
    producer: Producer, admin: Connection, damage: Callable[[Connection], None], invariants: list[str]
) -> None:
    captured(producer)
    damage(admin)
    for _ in range(3):
        if damage is _not_captured:
            captured(producer)
    assert sorted(set(found_in(admin, producer).violations) - {"I7"}) == invariants


def test_a_transaction_in_doubt_is_not_repeated(producer: Producer, admin: Connection) -> None:
    """The reply to its COMMIT is lost: the same changes again find that they are made."""
    conn = producer.of_application()
    commit = conn.commit
    lost = iter([True])

    def loses_its_reply() -> None:
        commit()
        if next(lost, False):
            conn.close()
            raise psycopg.OperationalError("the reply is lost")

    vars(conn)["commit"] = loses_its_reply
    captured(producer)
    assert admin.execute("SELECT count(*) FROM application.sent").fetchone() == (1,)
    found = found_in(admin, producer)
    assert found.violations == {}
