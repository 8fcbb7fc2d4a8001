"""Who may read, who may act, and from where."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from refold.dashboard.database import SETTINGS, Database
from refold.dashboard.registry import ACTS
from refold.dashboard.requests import local_path
from refold.dashboard.run import insist_on_token
from refold.dashboard.security import Proxies
from refold.dashboard.tokens import SESSION_S, Tokens, read_tokens
from refold.errors import InputError
from tests.support.dashboard import ACTIONS, EVIDENCE, Running

pytestmark = pytest.mark.live("shop")


@pytest.fixture
def running(database_url: str) -> Iterator[Running]:
    with Running(database_url) as one:
        yield one


def test_the_name_in_the_host_header_is_ours(running: Running) -> None:
    assert running.get("/", Host=f"localhost:{running.port}").status == 200
    assert running.get("/", Host="127.0.0.1:1").status == 200  # a tunnel
    for name in ("evil.example", "evil.example:80", "", "127.0.0.1.evil.example", "localhost@evil.example"):
        assert running.get("/", Host=name).status == 421, name


def test_a_page_asks_again_nobody_but_us(running: Running) -> None:
    for path in ("//evil.example/x", "/\\evil.example/x", "///evil.example/x", "/evil.example/x"):
        reply = running.get(f"{path}?a=1&a=2")
        assert reply.status == 404 and 'hx-get="/evil.example/x?a=1&amp;a=2"' in reply.text, path


def test_headers_of_every_answer(running: Running) -> None:
    for path in ("/", "/index.json", "/static/refold.css", "/nothing", "/sign-in"):
        headers = running.get(path).headers
        assert headers["content-security-policy"].startswith("default-src 'self';"), path
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
    assert running.get("/").headers["cache-control"] == "no-store"
    assert "server" not in running.get("/").headers


@pytest.mark.parametrize("path", [*ACTS, "/sign-in", "/sign-out"])
def test_without_tokens_every_post_is_refused(database_url: str, path: str) -> None:
    with Running(database_url, Tokens()) as one:
        reply = one.post(path, {"incident": "1"}, token="")
        assert reply.status == 403 and "--token-file" in reply.text


@pytest.mark.parametrize("path", ACTS)
def test_actions_need_the_token_for_actions(running: Running, path: str) -> None:
    ours = {"Origin": running.address}
    assert running.post(path, {}, token="", **ours).status == 403
    assert running.post(path, {}, token="wrong-wrong-wrong-wrong", **ours).status == 403
    assert running.post(path, {}, token=EVIDENCE, **ours).status == 403
    assert running.get(path, ACTIONS).status in (404, 405)
    assert running.get(f"{path}?token={ACTIONS}").status == 400
    assert running.request("PUT", path, Authorization=f"Bearer {ACTIONS}").status == 405


def test_a_page_of_another_site_can_do_nothing(running: Running) -> None:
    for foreign in (
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": f"http://localhost:{running.port}"},  # another name of ours is another origin
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site"},
        {"Origin": "http://["},
        {"Origin": "http://a]b"},
    ):
        reply = running.post("/incidents/ack", {"incident": "1"}, **foreign)
        assert reply.status == 403 and "does not come from" in reply.text, foreign
    session = {"Cookie": f"refold_session={Tokens(ACTIONS, EVIDENCE).session('actions')}"}
    assert running.post("/incidents/ack", {"incident": "1"}, token="", **session).status == 403


def test_signing_in(running: Running) -> None:
    ours = {"Origin": running.address}
    assert running.post("/sign-in", {"token": "wrong"}, token="", **ours).status == 401
    done = running.post("/sign-in", {"token": ACTIONS, "next": "/dead-letters"}, token="", **ours)
    assert (done.status, done.headers["location"]) == (303, "/dead-letters")
    cookie = done.headers["set-cookie"]
    assert "HttpOnly" in cookie and "SameSite=strict" in cookie and ACTIONS not in cookie
    session = cookie.partition(";")[0]
    assert "Sign out" in running.get("/", Cookie=session).text
    assert "Sign out" not in running.get("/", Cookie=session[:-1] + "x").text
    assert "Sign out" not in running.get("/").text
    evil = running.post("/sign-in", {"token": ACTIONS, "next": "//evil.example/"}, token="", **ours)
    assert evil.headers["location"] == "/"


def test_a_session_that_came_by_tls_goes_by_tls_alone(database_url: str) -> None:
    with Running(database_url) as one:
        said = {"Origin": one.address, "X_Forwarded_Proto": "https"}
        assert "Secure" not in one.post("/sign-in", {"token": ACTIONS}, token="", **said).headers["set-cookie"]
    with Running(database_url, trust_proxy="127.0.0.1") as one:
        said = {"Origin": one.address, "X_Forwarded_Proto": "https"}
        assert "Secure" in one.post("/sign-in", {"token": ACTIONS}, token="", **said).headers["set-cookie"]
        said["X_Forwarded_Proto"] = "http"
        assert "Secure" not in one.post("/sign-in", {"token": ACTIONS}, token="", **said).headers["set-cookie"]


def test_who_has_the_address_of_a_proxy_does_not_name_us(database_url: str) -> None:
    """A browser beside a proxy on this machine: a page that is rebound to 127.0.0.1 may send any header."""
    with Running(database_url, trust_proxy="127.0.0.1", names=("refold.example",)) as one:
        for said in (
            {"Host": "evil.example"},
            {"Host": "evil.example", "X_Forwarded_Host": "refold.example"},
            {"X_Forwarded_Host": "evil.example"},  # what a proxy says that passes on any name
            {"X_Forwarded_Host": "evil.example, refold.example"},
        ):
            assert one.get("/", **said).status == 421, said
        for said in ({"Host": "refold.example"}, {"X_Forwarded_Host": "refold.example"}, {"Host": "127.0.0.1:1"}):
            assert one.get("/", **said).status == 200, said
        proxied = {"X_Forwarded_Host": "refold.example", "Origin": "https://refold.example"}
        assert one.post("/sign-in", {"token": ACTIONS}, token="", **proxied).status == 303
        assert one.post("/sign-in", {"token": ACTIONS}, token="", Origin="https://refold.example").status == 403
    with Running(database_url) as one:
        assert one.get("/", X_Forwarded_Host="evil.example").status == 200  # nobody is believed, nothing is said


@pytest.mark.parametrize("target", ["//evil", "https://evil", "/\\evil", "evil", "", "/a\nb"])
def test_after_signing_in_nobody_is_led_away(target: str) -> None:
    assert local_path(target) == "/"


def test_sessions_end_and_belong_to_a_token() -> None:
    tokens = Tokens(ACTIONS, EVIDENCE)
    session = tokens.session("evidence", now=0)
    assert tokens.of_session(session, now=1) == "evidence"
    assert tokens.of_session(session, now=SESSION_S + 1) == "nobody"
    assert tokens.of_session(session.replace("evidence", "actions"), now=1) == "nobody"
    assert tokens.of_session(session.replace(f".{SESSION_S}.", f".{SESSION_S + 9}."), now=1) == "nobody"
    assert Tokens(ACTIONS, "another-token-for-evidence").of_session(session, now=1) == "nobody"
    assert Tokens(ACTIONS).of_session(session, now=1) == "nobody"
    assert Tokens().of_session("actions.99999999999.", now=1) == "nobody"
    assert ACTIONS not in repr(tokens)


def test_token_files(tmp_path: Path) -> None:
    path = tmp_path / "token"

    def written(text: str, mode: int = 0o600) -> Tokens:
        path.write_text(text)
        path.chmod(mode)
        return read_tokens(path)

    assert written(f"{ACTIONS}\n") == Tokens(ACTIONS)
    assert written(f"{ACTIONS}\n\n{EVIDENCE}\n") == Tokens(ACTIONS, EVIDENCE)
    for text in ("", "short", f"{ACTIONS}\n{ACTIONS}", f"{ACTIONS}\n{EVIDENCE}\nthree-tokens-0123456"):
        with pytest.raises(InputError):
            written(text)
    with pytest.raises(InputError, match="may read"):
        written(ACTIONS, 0o600 | stat.S_IROTH)
    with pytest.raises(InputError, match="may change"):
        written(ACTIONS, 0o600 | stat.S_IWOTH)
    with pytest.raises(InputError, match="cannot read"):
        read_tokens(tmp_path / "nothing")
    assert read_tokens(None) == Tokens()


def test_beyond_this_machine_a_token_is_required(database_url: str) -> None:
    for host in ("0.0.0.0", "::", "192.0.2.7", "box.example"):
        with pytest.raises(InputError, match="no token"):
            insist_on_token(host, Tokens())
        insist_on_token(host, Tokens(ACTIONS))
    for host in ("127.0.0.1", "::1", "localhost", "127.9.9.9"):
        insist_on_token(host, Tokens())


def test_a_closed_dashboard_shows_nothing_without_a_token(database_url: str) -> None:
    with Running(database_url) as one:
        one.server._app.state.dashboard.closed = True
        assert one.get("/").headers["location"].startswith("/sign-in")
        assert one.get("/index.json").status == 401
        assert one.get("/search?q=daily").headers["location"] == "/?q=daily"
        assert one.get("/", EVIDENCE).status == 200


def test_only_a_named_proxy_is_believed() -> None:
    proxies = Proxies.parse("10.0.0.7, 10.1.0.0/16")
    assert proxies.believed(("10.0.0.7", 1)) and proxies.believed(["10.1.9.9", 1])
    assert not proxies.believed(("10.0.0.8", 1)) and not proxies.believed(None) and not Proxies().believed(("::1", 1))
    with pytest.raises(InputError, match="trust-proxy"):
        Proxies.parse("box")


@pytest.mark.parametrize("role", ["refold_observer", "refold_inspector", "refold_analyst"])
def test_who_reads_can_write_nothing(database_url: str, admin: psycopg.Connection[Any], role: str) -> None:
    tables = [
        name
        for (name,) in admin.execute(
            "SELECT oid::regclass::text FROM pg_class WHERE relkind IN ('r', 'p')"
            " AND relnamespace IN ('refold'::regnamespace, 'refold_builds'::regnamespace)"
        )
    ]
    assert len(tables) > 30
    database = Database(database_url)

    def attempt(conn: psycopg.Connection[Any]) -> None:
        # A role that could, were it not for a setting, could change the setting.
        conn.execute("SET default_transaction_read_only = off")
        for table in tables:
            for statement in (f"DELETE FROM {table}", f"INSERT INTO {table} DEFAULT VALUES", f"TRUNCATE {table}"):
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    conn.execute(statement.encode())

    database.ask(role, attempt)  # type: ignore[arg-type]
    database.close()
    assert SETTINGS[role]["default_transaction_read_only"] == "on"  # type: ignore[index]


def test_its_sessions_say_whose_they_are(running: Running, admin: psycopg.Connection[Any]) -> None:
    running.get("/")
    rows = admin.execute(
        "SELECT count(*) FROM pg_stat_activity"
        " WHERE application_name = 'refold dashboard' AND datname = current_database()"
    ).fetchone()
    assert rows is not None and 1 <= rows[0] <= 2
