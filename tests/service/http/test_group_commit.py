"""Group commit: what waits goes in one transaction, and each caller is answered for itself."""

import json
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest

from refold.model.event.source_event import Answer, SourceEvent
from refold.store.log.append import Receipt
from refold.store.log.group import Offer, append_bulk, append_group
from tests.service.http.test_events import event, stored
from tests.support.door import Reply, Served
from tests.support.making import rejected

Connection = psycopg.Connection[Any]


def offer(id_: str, line: int = 1, source: str = "s", **fields: Any) -> Offer:
    return Offer(SourceEvent.model_validate(event(id_, **fields)), source, line)


def refused(line: int) -> Offer:
    return Offer(None, "s", line, "given", "it is no event", 'raw \\ " {text}, \x00')


@pytest.mark.parametrize("append", [append_group, append_bulk])
def test_a_group_is_answered_one_by_one(
    producers: Callable[..., Connection], admin: Connection, append: Callable[..., list[Receipt]]
) -> None:
    conn = producers(autocommit=True)
    odd = offer("o", metadata={'a "\\{}': [1.10, None, "\n,"]}, user_id='"{\\}', action="NULL")
    group = [offer("a"), offer("a", 2), offer("a", 3, action="other"), refused(4), offer("b", 5, source='q"{'), odd]
    receipts = append(conn, group)
    assert [receipt.answer.value for receipt in receipts] == [
        "accepted", "duplicate", "conflict", "invalid", "accepted", "accepted",
    ]  # fmt: skip
    assert [receipt.event_id for receipt in receipts] == ["a", "a", "a", "given", "b", "o"]
    assert stored(admin) == ["a", "b", "o"]
    assert sorted((source, line, answer) for source, line, answer, _ in rejected(admin)) == [
        ("s", 3, "conflict"),
        ("s", 4, "invalid"),
    ]
    row = admin.execute("SELECT user_id, action, metadata FROM refold.events WHERE event_id = 'o'").fetchone()
    assert row == ('"{\\}', "NULL", {'a "\\{}': [1.1, None, "\n,"]})
    raws = [raw for (raw,) in admin.execute("SELECT raw FROM refold.rejected ORDER BY line").fetchall()]
    assert '"action": "other"' in raws[0] or '"action":"other"' in raws[0]
    assert raws[1] == 'raw \\ " {text}, \\x00'
    assert [receipt.answer for receipt in append(conn, group)].count(Answer.duplicate) == 4


def test_a_group_is_one_transaction_and_one_statement(producers: Callable[..., Connection], admin: Connection) -> None:
    conn = producers(autocommit=True)
    append_group(conn, [offer(f"e{n}", n) for n in range(200)])
    row = admin.execute("SELECT count(DISTINCT txid), count(*) FROM refold.events").fetchone()
    assert row == (1, 200)


def test_many_clients_share_commits(door: Served, admin: Connection) -> None:
    """Every client is answered for its own events, whatever group they were in."""
    clients, each = 24, 15

    def client(number: int) -> list[tuple[str, int]]:
        connection = door.connect()
        answers = []
        for n in range(each):
            # A third of the ids are the same for all clients, with the same content.
            id_ = f"shared-{n}" if n % 3 == 0 else f"own-{number}-{n}"
            answers.append((id_, _send(door, connection, event(id_)).status))
        connection.close()
        return answers

    with ThreadPoolExecutor(clients) as pool:
        answers = [one for answer in pool.map(client, range(clients)) for one in answer]
    accepted = Counter(id_ for id_, status in answers if status == 201)
    assert set(Counter(status for _, status in answers)) == {200, 201}
    assert set(accepted.values()) == {1}
    assert sorted(accepted) == sorted(stored(admin))
    transactions = admin.execute("SELECT count(DISTINCT txid) FROM refold.events").fetchone()
    assert transactions is not None
    assert transactions[0] < len(accepted) / 2


def _send(door: Served, connection: Any, value: Any) -> Reply:
    headers = {"Authorization": f"Bearer {door.token}", "Content-Type": "application/json"}
    connection.request("POST", "/v1/events", json.dumps(value), headers)
    answer = connection.getresponse()
    return Reply(answer.status, dict(answer.getheaders()), answer.read())


def test_an_event_that_the_database_refuses_is_alone(door: Served, admin: Connection) -> None:
    """A constraint that nobody foresaw: of 64 requests at once, one is refused."""
    admin.execute("ALTER TABLE refold.events ADD CONSTRAINT strange CHECK (action <> 'poison')")
    barrier = threading.Barrier(64)

    def client(number: int) -> int:
        barrier.wait()
        return door.post(event(f"e{number}", action="poison" if number == 17 else "view")).status

    with ThreadPoolExecutor(64) as pool:
        statuses = Counter(pool.map(client, range(64)))
    assert statuses == {201: 63, 422: 1}
    assert len(stored(admin)) == 63
    [(source, line, answer, reason)] = rejected(admin)
    assert (source, line, answer) == ("tests", 1, "invalid")
    assert "strange" in reason


def test_poison_among_lines(door: Served, admin: Connection) -> None:
    admin.execute("ALTER TABLE refold.events ADD CONSTRAINT strange CHECK (action <> 'poison')")
    lines = [event(f"e{n}", action="poison" if n in (3, 700, 1500) else "view") for n in range(2000)]
    reply = door.post("\n".join(map(json.dumps, lines)).encode(), as_="application/x-ndjson")
    assert (reply.status, reply.body["accepted"], reply.body["invalid"]) == (207, 1997, 3)
    assert [line for _, line, _, _ in rejected(admin)] == [4, 701, 1501]
