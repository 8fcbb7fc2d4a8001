"""What the door answers to events: after their commit, each by itself, and truly."""

import gzip
import json
import time
import zlib
from typing import Any

import psycopg
import pytest

from tests.support import contracts
from tests.support.door import Served
from tests.support.making import rejected

if not hasattr(zlib, "zstd"):
    from backports import zstd
Connection = psycopg.Connection[Any]


def event(id_: str = "e1", **fields: Any) -> dict[str, Any]:
    return {"id": id_, "user_id": "u", "action": "view", "ts": 1767225600000, **fields}


def stored(conn: Connection) -> list[str]:
    return [id_ for (id_,) in conn.execute("SELECT event_id FROM refold.events ORDER BY position").fetchall()]


def test_one_event_is_answered_by_a_status_of_its_own(door: Served, admin: Connection) -> None:
    first = door.post(event())
    assert (first.status, first.body) == (201, {"id": "e1", "answer": "accepted"})
    assert door.post(event()).status == 200
    conflict = door.post(event(action="other"))
    assert (conflict.status, conflict.body["answer"]) == (409, "conflict")
    assert conflict.headers["content-type"] == "application/problem+json"
    invalid = door.post(event("e2", ts="today"))
    assert (invalid.status, invalid.body["answer"]) == (422, "invalid")
    assert "ts:" in invalid.body["detail"]
    assert stored(admin) == ["e1"]
    assert [(source, line, answer) for source, line, answer, _ in rejected(admin)] == [
        ("tests", 1, "conflict"),
        ("tests", 1, "invalid"),
    ]


def test_a_bad_event_never_costs_its_neighbours(door: Served, admin: Connection) -> None:
    several = [event("a"), 7, event("a"), event("a", action="other"), event("b", metadata={"x": "\x00"}), event("c")]
    reply = door.post(several)
    assert reply.status == 207
    assert {name: reply.body[name] for name in ("accepted", "duplicate", "conflict", "invalid")} == {
        "accepted": 2,
        "duplicate": 1,
        "conflict": 1,
        "invalid": 2,
    }
    assert [one["index"] for one in reply.body["problems"]] == [1, 3, 4]
    assert stored(admin) == ["a", "c"]
    assert door.post([event("a"), event("c")]).status == 200
    assert door.post([7, "x"]).status == 422
    assert door.post([]).status == 200


def test_contracts_hold_here_too(door: Served, admin: Connection) -> None:
    contracts.register(admin)
    purchases = [event(f"e{amount}", action="purchase", metadata={"amount": amount}) for amount in (1, "9")]
    alone = door.post(purchases[1])
    assert (alone.status, alone.body["answer"], alone.body["detail"]) == (422, "invalid", contracts.REASON)
    reply = door.post(purchases)
    assert (reply.status, reply.body["accepted"], reply.body["invalid"]) == (207, 1, 1)
    assert [(one["index"], one["reason"]) for one in reply.body["problems"]] == [(1, contracts.REASON)]
    assert stored(admin) == ["e1"]


def test_each_answer_of_a_batch_can_be_asked_for(door: Served) -> None:
    reply = door.post([event("a"), event("b")], Prefer="return=representation")
    assert [(one["index"], one["id"], one["answer"]) for one in reply.body["events"]] == [
        (0, "a", "accepted"),
        (1, "b", "accepted"),
    ]


def test_numbers_keep_every_digit(door: Served, admin: Connection) -> None:
    body = b'{"id":"n","action":"a","ts":0,"metadata":{"price":1.10,"big":123456789012345678901234567890}}'
    assert door.post(body).status == 201
    row = admin.execute("SELECT metadata::text FROM refold.events").fetchone()
    assert row == ('{"big": 123456789012345678901234567890, "price": 1.10}',)


def packed(body: bytes, encoding: str) -> bytes:
    match encoding:
        case "gzip":
            return gzip.compress(body)
        case "gzip of two members":
            half = body.index(b"\n") + 1
            return gzip.compress(body[:half]) + gzip.compress(body[half:])
        case "deflate":
            return zlib.compress(body)
        case "raw deflate":
            packer = zlib.compressobj(wbits=-15)
            return packer.compress(body) + packer.flush()
        case "zstd":
            return zstd.compress(body)
        case "zstd of two frames":
            half = body.index(b"\n") + 1
            return zstd.compress(body[:half]) + zstd.compress(body[half:])
        case _:
            return body


@pytest.mark.parametrize(
    "encoding",
    ["identity", "gzip", "gzip of two members", "deflate", "raw deflate", "zstd", "zstd of two frames"],
)
def test_lines_in_every_encoding(door: Served, admin: Connection, encoding: str) -> None:
    lines = b"".join(json.dumps(event(f"e{n}")).encode() + b"\n" for n in range(2500))
    body = packed(lines, encoding)
    name = encoding.removeprefix("raw ").partition(" ")[0]
    reply = door.post(body, as_="application/x-ndjson", Content_Encoding=name)
    assert (reply.status, reply.body["accepted"]) == (200, 2500)
    again = door.post(body, as_="application/x-ndjson", Content_Encoding=name)
    assert again.body["duplicate"] == 2500
    assert len(stored(admin)) == 2500


def test_lines_are_rejected_one_by_one_with_their_numbers(door: Served, admin: Connection) -> None:
    lines = [json.dumps(event("a")), "", "{", json.dumps(event("b", user_id=5)), "\xff", json.dumps(event("c"))]
    body = "\r\n".join(lines).encode("latin-1") + b"\n" + b'{"id":"' + b"x" * 1_200_000 + b'"}\n' + b'{"id":"last"'
    reply = door.post(body, as_="application/x-ndjson; charset=utf-8")
    assert (reply.status, reply.body["accepted"], reply.body["invalid"]) == (207, 2, 5)
    assert stored(admin) == ["a", "c"]
    assert [line for _, line, _, _ in sorted(rejected(admin), key=lambda row: row[1])] == [3, 4, 5, 7, 8]


@pytest.mark.parametrize(
    ("status", "body", "headers"),
    [
        (400, b"", {}),
        (400, b"{", {}),
        (400, b'[{"id":"a","action":"a","ts":0},', {}),
        (400, b"\xff\xfe", {}),
        (400, b'{"a":1,"a":2}', {}),
        (400, b"[" * 100_000, {}),
        (400, b"not gzip", {"Content_Encoding": "gzip"}),
        (400, gzip.compress(b"[]", mtime=0)[:-4], {"Content_Encoding": "gzip"}),
        (413, b" " * (16 * 2**20 + 1), {}),
        (413, gzip.compress(b" " * 2**26, mtime=0), {"Content_Encoding": "gzip"}),
        (415, b"{}", {"as_": "text/plain"}),
        (415, b"{}", {"as_": ""}),
        (415, b"{}", {"Content_Encoding": "br"}),
    ],
)
def test_a_body_that_is_refused_as_a_whole(
    door: Served, admin: Connection, status: int, body: bytes, headers: dict[str, str]
) -> None:
    reply = door.post(body, **headers)
    assert reply.status == status, reply.content
    assert reply.headers["content-type"] == "application/problem+json"
    assert reply.body["status"] == status
    assert stored(admin) == []


def test_routes_that_are_not_there(door: Served) -> None:
    assert (door.get("/").status, door.get("/v1/events").status) == (404, 405)
    assert door.get("/livez").body == {"live": True}


def test_too_many_items(door: Served) -> None:
    assert door.post([7] * 10_001).status == 413


@pytest.mark.slow
def test_pressure_is_told_and_refused(door: Served, admin: Connection) -> None:
    def hold_back(level: int, signal: str = "lag") -> None:
        admin.execute("DELETE FROM refold.pressure_signals")
        admin.execute(
            "INSERT INTO refold.pressure_signals (signal, level, value, slow_at, stop_at)"
            " VALUES (%s, %s, 0.99, 0.8, 0.9)",
            (signal, level),
        )
        time.sleep(2.5)

    hold_back(1)
    slow = door.post(event("a"))
    assert (slow.status, slow.headers["refold-pressure"]) == (201, "level=1")
    hold_back(2)
    refused = door.post(event("b"))
    assert (refused.status, door.get("/readyz").status) == (429, 503)
    assert 10 <= int(refused.headers["retry-after"]) <= 20
    hold_back(2, "disk")
    assert door.post(event("b")).status == 503
    hold_back(0)
    assert door.post(event("b")).status == 201
    assert stored(admin) == ["a", "b"]
