"""Who may use the door: tokens, their ends, and what a public one may not do."""

import base64
import json
import time
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from psycopg import sql

from refold.errors import InputError
from refold.model.token import draw, is_token
from refold.postgres.connect import connection
from refold.store import tokens
from tests.service.http.test_events import event, stored
from tests.support.door import Served

Connection = psycopg.Connection[Any]


def test_without_a_valid_token_nothing_gets_in(door: Served, admin: Connection) -> None:
    mistyped = door.token[:-1] + ("x" if door.token[-1] != "x" else "y")
    for header in ("", "Bearer ", "Bearer x", f"Bearer {draw('secret')}", f"Bearer {mistyped}", "Basic !"):
        reply = door.request(
            "POST", "/v1/events", b'{"id":"a"}', {"Authorization": header, "Content-Type": "application/json"}
        )
        assert reply.status == 401, header
        assert "www-authenticate" in reply.headers
        assert door.token not in reply.content.decode()
    assert stored(admin) == []


def test_the_token_as_a_users_name(door: Served) -> None:
    basic = "Basic " + base64.b64encode(f"{door.token}:".encode()).decode()
    assert door.post(event(), Authorization=basic).status == 201


def test_the_token_in_the_body_as_the_sdks_of_segment_write_it(door: Served, admin: Connection) -> None:
    message = {"type": "track", "event": "Bought", "userId": "u", "timestamp": "2026-03-01T09:00:00Z"}

    def status(path: str, body: dict[str, Any], headers: dict[str, str] | None = None) -> int:
        client = door.connect()
        try:
            client.request("POST", path, json.dumps(body), {"Content-Type": "application/json", **(headers or {})})
            return client.getresponse().status
        finally:
            client.close()

    key = {"writeKey": door.token}
    good, bad = {**message, "messageId": "a", **key}, {"type": "track", "messageId": "b", **key}
    assert status("/v1/batch", {"batch": [good, bad], **key}) == 200
    assert status("/v1/track", {**message, "messageId": "c", **key}) == 200
    assert status("/v1/track", {**bad, "messageId": "d"}) == 200
    assert sorted(stored(admin)) == ["a", "c"]
    for kept in ("refold.rejected", "refold.events"):
        told = admin.execute(sql.SQL("SELECT count(*), string_agg(t::text, ' ') FROM {} t").format(sql.SQL(kept)))
        [(count, text)] = told.fetchall()
        assert count == 2
        assert door.token not in text
    # A header that is there decides, other routes want one, and no long body is read for nothing.
    assert status("/v1/batch", {"batch": [good], **key}, {"Authorization": "Bearer x"}) == 401
    assert status("/v1/batch", {"batch": [good], "writeKey": "x"}) == 401
    assert status("/v1/batch", {"batch": [good], "writeKey": 7}) == 401
    assert status("/v1/events", {**event(), **key}) == 401
    assert status("/v1/batch", {"batch": ["x" * 2**19], **key}) == 413


def test_a_revoked_token_is_refused_within_five_seconds(door: Served, admin: Connection, database_url: str) -> None:
    assert door.post(event()).status == 201
    with connection(database_url, "refold_owner", autocommit=True) as conn:
        [name] = {one.name for one in tokens.every(conn)}
        tokens.revoke(conn, name)
        with pytest.raises(InputError):
            tokens.revoke(conn, name)
    end = time.monotonic() + 5
    while door.post(event()).status != 401:
        assert time.monotonic() < end
        time.sleep(0.2)


@pytest.mark.slow
def test_a_rotation_overlaps(door: Served, database_url: str) -> None:
    with connection(database_url, "refold_owner", autocommit=True) as conn:
        [name] = {one.name for one in tokens.every(conn)}
        new, successor = tokens.rotate(conn, name, overlap=timedelta(seconds=4))
        assert successor.generation == 2
    end = time.monotonic() + 10
    while door.post(event(), Authorization=f"Bearer {new}").status == 401:
        assert time.monotonic() < end
        time.sleep(0.1)
    while door.post(event()).status != 401:
        assert time.monotonic() < end
        time.sleep(0.1)
    assert door.post(event(), Authorization=f"Bearer {new}").status == 200


def test_a_public_key_is_bounded(database_url: str, door: Served, admin: Connection) -> None:
    with connection(database_url, "refold_owner", autocommit=True) as conn:
        with pytest.raises(InputError):
            tokens.create(conn, "open", kind="write_key")
        web, _ = tokens.create(conn, "web", kind="write_key", origins=("https://shop.example",))
        app, _ = tokens.create(conn, "app", kind="write_key", rate=2)
    time.sleep(2.5)
    assert door.post(event(), Authorization=f"Bearer {web}").status == 403
    assert door.post(event(), Authorization=f"Bearer {web}", Origin="https://evil.example").status == 403
    allowed = door.post(event(), Authorization=f"Bearer {web}", Origin="https://shop.example")
    assert (allowed.status, allowed.headers["access-control-allow-origin"]) == (201, "https://shop.example")
    # The id of another token's event is not taken.
    assert door.post(event(action="secret")).status == 201
    assert stored(admin) == ["web:e1", "e1"]
    statuses = [door.post(event(f"a{n}"), Authorization=f"Bearer {app}").status for n in range(8)]
    assert statuses[0] == 201
    assert statuses[-1] == 429
    refused = door.post(event("z"), Authorization=f"Bearer {app}")
    assert int(refused.headers["retry-after"]) >= 1


def test_browsers_are_asked_beforehand(database_url: str, door: Served) -> None:
    asked = door.request("OPTIONS", "/v1/events", None, {"Origin": "https://shop.example"})
    assert asked.status == 403
    with connection(database_url, "refold_owner", autocommit=True) as conn:
        tokens.create(conn, "web", kind="write_key", origins=("https://shop.example",))
    time.sleep(2.5)
    asked = door.request("OPTIONS", "/v1/events", None, {"Origin": "https://shop.example"})
    assert (asked.status, asked.headers["access-control-allow-methods"]) == (204, "POST")


def test_a_token_tells_a_typing_error() -> None:
    text = draw("secret")
    assert is_token(text)
    for at in range(len("rfd_secret_"), len(text)):
        other = "a" if text[at] != "a" else "b"
        assert not is_token(text[:at] + other + text[at + 1 :])


def test_the_door_reads_digests_and_nothing_else(database_url: str) -> None:
    with connection(database_url, "refold_door", autocommit=True) as conn:
        for statement in (
            "SELECT * FROM refold.events",
            "SELECT * FROM refold.rejected",
            "INSERT INTO refold.tokens (name) VALUES ('x')",
            "UPDATE refold.tokens SET revoked_at = NULL",
            "SELECT * FROM refold.append('[]')",
            "DELETE FROM refold.tokens",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                conn.execute(statement.encode())


@pytest.mark.parametrize("role", ["refold_producer", "refold_worker", "refold_analyst", "refold_observer"])
def test_no_other_role_reads_tokens(database_url: str, role: Any) -> None:
    with connection(database_url, role, autocommit=True) as conn, pytest.raises(psycopg.errors.InsufficientPrivilege):
        conn.execute("SELECT digest FROM refold.tokens")
