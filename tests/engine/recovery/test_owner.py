"""A restore by who owns the database and is no superuser, as on a server that others run."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from refold.embedded import EmbeddedServer
from refold.engine.recovery import recover
from refold.errors import DatabaseError
from refold.postgres.connect import ROLES, connect
from refold.store.schema.migrate import migrate
from tests.support.clusters import SETTINGS, advance, dump, make_database, next_txid, restore
from tests.support.live import SHOP, drain, make_live, wrong
from tests.support.restored import append

OLDER = Path(os.environ.get("REFOLD_TEST_POSTGRES_15", "/usr/lib/postgresql/15/bin"))
ELSEWHERE = 5_000
"""A transaction id that the new cluster does not come to."""


@contextmanager
def empty_cluster(bin_dir: Path | None) -> Iterator[EmbeddedServer]:
    """A server on which refold has never been, not even its roles."""
    directory = Path(tempfile.mkdtemp(prefix="refold-cluster-"))
    with EmbeddedServer.start(directory, SETTINGS, bin_dir=bin_dir, delete=True) as server:
        yield server


def owned(server: EmbeddedServer, name: str) -> str:
    """A database of the login `app`; gives its URL for that login."""
    with psycopg.connect(server.url, autocommit=True) as admin:
        if not admin.execute("SELECT FROM pg_roles WHERE rolname = 'app'").rowcount:
            admin.execute("CREATE ROLE app LOGIN CREATEROLE")
        admin.execute(f"CREATE DATABASE {name} OWNER app".encode())
    return owned_url(server, name)


def owned_url(server: EmbeddedServer, name: str) -> str:
    """The URL of a database for the login `app`."""
    return server.url_of(name).replace("postgresql://postgres@", "postgresql://app@")


OWNERS = """
SELECT DISTINCT n.nspname::text, o.owner::regrole::text
FROM pg_namespace AS n
CROSS JOIN LATERAL (
    SELECT n.nspowner
    UNION ALL SELECT c.relowner FROM pg_class AS c WHERE c.relnamespace = n.oid
    UNION ALL SELECT p.proowner FROM pg_proc AS p WHERE p.pronamespace = n.oid
) AS o (owner)
WHERE n.nspname IN ('refold', 'refold_builds', 'metrics') ORDER BY 1
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "bin_dir",
    [None, pytest.param(OLDER, marks=pytest.mark.exhaustive)],  # on 15, where all tests run, it is this version
    ids=["this version", "PostgreSQL 15"],
)
def test_an_owner_who_is_no_superuser_restores_a_dump(bin_dir: Path | None) -> None:
    if bin_dir is not None and not (bin_dir / "initdb").exists():
        pytest.skip(f"there is no PostgreSQL 15 in {bin_dir}")
    with empty_cluster(bin_dir) as old, empty_cluster(bin_dir) as new:
        advance(old, ELSEWHERE)
        url = make_database(old, "shop")
        migrate(url)
        make_live(url)
        append(url, 30)
        drain(url)
        append(url, 35)
        archive = dump(url, bin_dir=bin_dir)
        # As managed servers want it: nobody's, and no roles before. Then with the owners, whose roles are there by now.
        for name, options in (("bare", ["--no-owner", "--no-privileges"]), ("whole", [])):
            mine = owned(new, name)
            restore(archive, mine, *options, bin_dir=bin_dir)
            migrate(mine)
            with connect(mine, "refold_worker", autocommit=True) as conn:
                assert recover(conn, SHOP).survey.decision.strategy == "rewrite"
            append(mine, 40)
            drain(mine)
            everybody = new.url_of(name)
            assert wrong(everybody) == {}
            with psycopg.connect(everybody) as conn:
                assert conn.execute(OWNERS).fetchall() == [
                    ("metrics", "refold_worker"), ("refold", "refold_owner"), ("refold_builds", "refold_worker"),
                ]  # fmt: skip
                conn.execute("SET ROLE refold_analyst")
                assert conn.execute("SELECT sum(events)::integer FROM metrics.daily").fetchone() == (40,)
                assert conn.execute("SELECT max(lag_events) FROM metrics.freshness").fetchone() == (0,)
            # He may go on as if he had installed it.
            make_live(mine)
        assert next_txid(new) < ELSEWHERE

        # The schema `metrics` was another role's once. Its dump cannot be restored with owners by who is no superuser.
        with psycopg.connect(url, autocommit=True) as admin:
            admin.execute(
                "ALTER SCHEMA metrics OWNER TO refold_owner; GRANT USAGE, CREATE ON SCHEMA metrics TO refold_worker"
            )
        older = dump(url, bin_dir=bin_dir)
        with pytest.raises(AssertionError, match="permission denied for schema metrics"):
            restore(older, owned(new, "refused"), bin_dir=bin_dir)
        with pytest.raises(DatabaseError) as told:
            migrate(owned_url(new, "refused"))
        assert "add --no-owner --no-privileges" in str(told.value.remedy)
        restore(older, owned(new, "older"), "--no-owner", "--no-privileges", bin_dir=bin_dir)
        migrate(owned_url(new, "older"))
        with connect(owned_url(new, "older"), "refold_worker", autocommit=True) as conn:
            recover(conn, SHOP)
        drain(owned_url(new, "older"))
        assert wrong(new.url_of("older")) == {}


def test_a_restore_that_stopped_half_way_is_told_in_a_sentence(fresh_owner: str) -> None:
    with psycopg.connect(fresh_owner, autocommit=True) as conn:
        conn.execute("CREATE SCHEMA refold; CREATE TABLE refold.builds (build_id integer)")
    with pytest.raises(DatabaseError, match='relation "builds" already exists') as told:
        migrate(fresh_owner)
    assert "restore again into an empty database" in (told.value.remedy or "")
    assert "--no-owner --no-privileges" in (told.value.remedy or "")


@pytest.fixture
def fresh_owner(new: EmbeddedServer) -> Iterator[str]:
    """An empty database of a login that may make roles."""
    url = owned(new, "half")
    with psycopg.connect(new.url, autocommit=True) as admin:
        admin.execute(f"GRANT {', '.join(ROLES)} TO app WITH ADMIN OPTION".encode())
        yield url
        admin.execute("DROP DATABASE half WITH (FORCE)")
        admin.execute("DROP OWNED BY app; DROP ROLE app")
