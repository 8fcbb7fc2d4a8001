"""Tokens of the HTTP door: made, rotated, revoked; the database keeps digests only."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

import psycopg
from psycopg.rows import class_row

from refold.errors import InputError, NotInstalled
from refold.model import token as forms
from refold.model.token import Kind
from refold.suggest import did_you_mean

_COLUMNS = """
    token_id, name, generation, kind, hint, source, origins, rate, created_at, created_by, expires_at, revoked_at,
    last_used_at
"""

_VALID = "revoked_at IS NULL AND (expires_at IS NULL OR expires_at > clock_timestamp())"


@dataclass(frozen=True, slots=True)
class Token:
    """A token as the database knows it.

    Args:
        token_id: its number.
        name: its name; several generations of one name are a rotation.
        generation: how often it was rotated, from 1.
        kind: 'secret', or 'write_key', which is public.
        hint: the first characters.
        source: name of the producer, recorded with what is rejected.
        origins: web origins from which browsers may use it.
        rate: most events a second, if bounded.
        created_at: when it was made, UTC.
        created_by: login that made it.
        expires_at: when it ends, UTC.
        revoked_at: when it was revoked, UTC.
        last_used_at: when it was last used, UTC, to the minute.
    """

    token_id: int
    name: str
    generation: int
    kind: Kind
    hint: str
    source: str
    origins: list[str]
    rate: int | None
    created_at: datetime
    created_by: str
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None


def create(
    conn: psycopg.Connection,
    name: str,
    *,
    kind: Kind = "secret",
    source: str | None = None,
    origins: tuple[str, ...] = (),
    rate: int | None = None,
    lifetime: timedelta | None = None,
) -> tuple[str, Token]:
    """Make a token; its text is returned once, and kept nowhere.

    Args:
        conn: the owner's.
        name: its name.
        kind: 'secret' for servers; 'write_key' for browsers and apps, whose code everybody can read.
        source: name of the producer; by default the token's name.
        origins: web origins from which browsers may use it.
        rate: most events a second.
        lifetime: after which it ends.

    Raises:
        InputError: a valid token has the name, or a public one is bounded by nothing.
    """
    if kind == "write_key" and not origins and rate is None:
        raise InputError(
            "a write key is public, and needs a bound", remedy="Add --origin https://… or --rate EVENTS (a second)."
        )
    with conn.transaction():
        conn.execute("LOCK TABLE refold.tokens IN SHARE ROW EXCLUSIVE MODE")
        if valid(conn, name):
            raise InputError(
                f"there is a token {name!r} already", remedy=f"Rotate it (`refold tokens rotate {name}`), or revoke it."
            )
        return _insert(conn, name, kind, source or name, list(origins), rate, lifetime)


def rotate(
    conn: psycopg.Connection, name: str, *, overlap: timedelta, lifetime: timedelta | None = None
) -> tuple[str, Token]:
    """Make the successor of a token; both are valid until the overlap ends.

    Args:
        conn: the owner's.
        name: of a valid token.
        overlap: after which its present generations end.
        lifetime: after which the successor ends.

    Raises:
        InputError: no valid token has the name.
    """
    with conn.transaction():
        conn.execute("LOCK TABLE refold.tokens IN SHARE ROW EXCLUSIVE MODE")
        newest = known(conn, name)[-1]
        conn.execute(
            "UPDATE refold.tokens SET expires_at = least(expires_at, clock_timestamp() + %s)"
            " WHERE name = %s AND revoked_at IS NULL",
            (overlap, name),
        )
        return _insert(conn, name, newest.kind, newest.source, newest.origins, newest.rate, lifetime)


def revoke(conn: psycopg.Connection, name: str) -> list[Token]:
    """Revoke all generations of a token, and return them.

    Args:
        conn: the owner's.
        name: of a valid token.

    Raises:
        InputError: no valid token has the name.
    """
    with conn.transaction():
        ended = known(conn, name)
        conn.execute(
            "UPDATE refold.tokens SET revoked_at = clock_timestamp() WHERE name = %s AND revoked_at IS NULL", (name,)
        )
    return ended


def known(conn: psycopg.Connection, name: str) -> list[Token]:
    """Return the valid tokens of a name, oldest first; if there is none, raise InputError with a suggestion."""
    found = valid(conn, name)
    if not found:
        names = [
            str(one) for (one,) in conn.execute("SELECT DISTINCT name FROM refold.tokens WHERE revoked_at IS NULL")
        ]
        raise InputError(
            f"there is no valid token {name!r}.{did_you_mean(name, names)}", remedy="`refold tokens list` shows them."
        )
    return found


def valid(conn: psycopg.Connection, name: str) -> list[Token]:
    """Return the valid tokens of a name, oldest first."""
    return _select(conn, f"WHERE name = %s AND {_VALID}", (name,))


def every(conn: psycopg.Connection) -> list[Token]:
    """Return all tokens, also those that have ended."""
    return _select(conn, "", ())


def insist_on_table(conn: psycopg.Connection) -> None:
    """Raise NotInstalled if the database has no tokens. The connection may be the door's."""
    if conn.execute("SELECT to_regclass('refold.tokens')").fetchone() == (None,):
        raise NotInstalled(
            "refold is not installed in this database, or is older than this version",
            remedy="Run `refold migrate` first.",
        )


def digests(conn: psycopg.Connection) -> dict[bytes, Token]:
    """Return the valid tokens by the SHA-256 of their text. The connection may be the door's."""
    rows = conn.execute(f"SELECT token_id, digest FROM refold.tokens WHERE {_VALID}".encode()).fetchall()
    kept = {token.token_id: token for token in _select(conn, f"WHERE {_VALID}", ())}
    # A token may end, or begin, between the two.
    return {bytes(digest): kept[token_id] for token_id, digest in rows if token_id in kept}


def used(conn: psycopg.Connection, token_ids: list[int]) -> None:
    """Record that tokens were used just now, to the minute."""
    conn.execute(
        "UPDATE refold.tokens SET last_used_at = clock_timestamp() WHERE token_id = ANY (%s)"
        " AND (last_used_at BETWEEN clock_timestamp() - interval '1 minute' AND clock_timestamp()) IS NOT TRUE",
        (token_ids,),
    )


def _select(conn: psycopg.Connection, where: str, parameters: tuple[object, ...]) -> list[Token]:
    with conn.cursor(row_factory=class_row(Token)) as cursor:
        query = f"SELECT {_COLUMNS} FROM refold.tokens {where} ORDER BY name, generation"
        return cursor.execute(query.encode(), parameters).fetchall()


def _insert(
    conn: psycopg.Connection,
    name: str,
    kind: Kind,
    source: str,
    origins: list[str],
    rate: int | None,
    lifetime: timedelta | None,
) -> tuple[str, Token]:
    text = forms.draw(kind)
    conn.execute(
        "INSERT INTO refold.tokens (name, generation, kind, digest, hint, source, origins, rate, expires_at)"
        " SELECT %s, coalesce(max(generation), 0) + 1, %s, %s, %s, %s, %s, %s, clock_timestamp() + %s"
        " FROM refold.tokens WHERE name = %s",
        (name, kind, forms.digest(text), forms.hint(text), source, origins, rate, lifetime, name),
    )
    return text, valid(conn, name)[-1]
