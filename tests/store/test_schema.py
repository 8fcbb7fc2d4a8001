"""What the database is: the migrations arrive at the models, and `sql/` can be applied again and again."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
from alembic import command
from alembic.util import CommandError
from psycopg import sql

from refold import append
from refold.errors import DatabaseError
from refold.store.schema.migrate import alembic_config, migrate
from refold.store.schema.resources import sql_dir
from tests.conftest import ServerUnderTest
from tests.support.live import make_live
from tests.support.making import events
from tests.support.sessions import pids
from tests.support.waiting import wait_until

Connection = psycopg.Connection[Any]

SHAPE = """
WITH ours AS (SELECT oid FROM pg_namespace WHERE nspname IN ('refold', 'refold_builds', 'metrics'))
SELECT 'table ' || c.oid::regclass, format('%s %s %s %s', c.relkind, c.relowner::regrole, c.relacl, c.reloptions)
FROM pg_class AS c WHERE c.relnamespace IN (TABLE ours) AND c.relkind <> 'i'
UNION ALL
SELECT format('column %s.%s', a.attrelid::regclass, a.attname),
       format('%s %s %s %s %s', format_type(a.atttypid, a.atttypmod), a.attnotnull, a.attcollation, a.attacl,
              (SELECT pg_get_expr(d.adbin, d.adrelid) FROM pg_attrdef AS d
               WHERE (d.adrelid, d.adnum) = (a.attrelid, a.attnum)))
FROM pg_attribute AS a JOIN pg_class AS c ON c.oid = a.attrelid
WHERE c.relnamespace IN (TABLE ours) AND a.attnum > 0
UNION ALL
SELECT format('constraint %s.%s', conrelid::regclass, conname), pg_get_constraintdef(oid)
FROM pg_constraint WHERE connamespace IN (TABLE ours)
UNION ALL
SELECT 'index ' || indexrelid::regclass, pg_get_indexdef(indexrelid)
FROM pg_index JOIN pg_class AS c ON c.oid = indexrelid WHERE c.relnamespace IN (TABLE ours)
UNION ALL
SELECT 'trigger ' || tgrelid::regclass || '.' || tgname, pg_get_triggerdef(t.oid)
FROM pg_trigger AS t JOIN pg_class AS c ON c.oid = tgrelid
WHERE NOT t.tgisinternal AND c.relnamespace IN (TABLE ours)
UNION ALL
SELECT 'function ' || p.oid::regprocedure,
       format('%s %s %s', p.proowner::regrole, p.proacl, CASE WHEN prokind <> 'a' THEN pg_get_functiondef(p.oid) END)
FROM pg_proc AS p WHERE p.pronamespace IN (TABLE ours)
UNION ALL
SELECT 'view ' || c.oid::regclass, pg_get_viewdef(c.oid)
FROM pg_class AS c WHERE c.relkind = 'v' AND c.relnamespace IN (TABLE ours)
UNION ALL
SELECT format('comment %s', pg_describe_object(classoid, objoid, objsubid)), description FROM pg_description
WHERE pg_describe_object(classoid, objoid, objsubid) ~ 'refold|metrics'
UNION ALL
SELECT 'schema ' || nspname, format('%s %s', nspowner::regrole, nspacl) FROM pg_namespace WHERE oid IN (TABLE ours)
"""


def shape(conn: Connection) -> dict[str, str]:
    """Everything that refold has in a database, by name."""
    rows = conn.execute(SHAPE).fetchall()
    conn.commit()
    return dict(rows)


@pytest.fixture
def empty(server: ServerUnderTest) -> Iterator[Callable[..., str]]:
    """Makes databases in which nobody has installed refold."""
    made: list[sql.Identifier] = []
    with psycopg.connect(server.url_of(server.maintenance_dbname), autocommit=True) as admin:

        def make(owner: str | None = None) -> str:
            name = f"refold_empty_{os.getpid()}_{len(made)}"
            made.append(sql.Identifier(name))
            admin.execute(sql.SQL("CREATE DATABASE {} TEMPLATE template0").format(made[-1]))
            if owner:
                admin.execute(sql.SQL("ALTER DATABASE {} OWNER TO {}").format(made[-1], sql.Identifier(owner)))
            return server.url_of(name)

        yield make
        for name in made:
            admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(name))


DEVIATIONS = [
    ("ALTER TABLE refold.events ADD COLUMN extra integer", "ALTER TABLE refold.events DROP COLUMN extra"),
    ("ALTER TABLE refold.rejected ALTER reason DROP NOT NULL", "ALTER TABLE refold.rejected ALTER reason SET NOT NULL"),
    (
        "ALTER TABLE refold.builds ALTER loaded SET DEFAULT true",
        "ALTER TABLE refold.builds ALTER loaded SET DEFAULT false",
    ),
    ("CREATE INDEX extra ON refold.rejected (source)", "DROP INDEX refold.extra"),
    ("CREATE TABLE refold.extra (id integer)", "DROP TABLE refold.extra"),
]
"""What would make the database differ from the models, and back."""


def test_the_migrations_arrive_at_the_models(database_url: str, conn: Connection) -> None:
    command.check(alembic_config(database_url))
    # And with metrics deployed, which make tables and indexes of their own.
    make_live(database_url)
    command.check(alembic_config(database_url))
    for change, undo in DEVIATIONS:
        conn.execute(change.encode())
        conn.commit()
        with pytest.raises(CommandError, match="New upgrade operations detected"):
            command.check(alembic_config(database_url))
        conn.execute(undo.encode())
        conn.commit()
    command.check(alembic_config(database_url))


def test_migrating_again_changes_nothing(database_url: str, conn: Connection) -> None:
    append(conn, events(5))
    conn.commit()
    make_live(database_url)
    before = shape(conn)
    migrate(database_url)
    assert shape(conn) == before
    assert conn.execute("SELECT count(*) FROM refold.events").fetchone() == (5,)


def test_migrating_mends_what_was_changed_by_hand(database_url: str, conn: Connection) -> None:
    before = shape(conn)
    conn.execute(
        "CREATE OR REPLACE FUNCTION refold.parse_timestamp(value jsonb) RETURNS timestamptz LANGUAGE sql RETURN now()"
    )
    conn.execute("DROP TRIGGER refuse_change ON refold.events")
    conn.execute("DROP TRIGGER a_register_event_ids ON refold.events")
    conn.execute("REVOKE INSERT (event_id) ON refold.events FROM refold_producer")
    conn.commit()
    assert shape(conn) != before
    migrate(database_url)
    after = shape(conn)
    # Grants come back in another order.
    differs = {
        name for name in before.keys() | after.keys() if sorted(before.get(name, "")) != sorted(after.get(name, ""))
    }
    assert differs == set()


def test_a_database_of_an_unknown_version_is_refused_with_a_remedy(database_url: str, conn: Connection) -> None:
    conn.execute("UPDATE refold.alembic_version SET version_num = '0417'")
    conn.commit()
    before = shape(conn)
    with pytest.raises(DatabaseError, match=r"cannot migrate the database: .*0417") as refused:
        migrate(database_url)
    assert refused.value.remedy is not None
    assert shape(conn) == before


def run(*urls: str) -> list[tuple[int, str]]:
    """Migrates from several processes at the same time."""
    code = "import sys; from refold.store.schema.migrate import migrate; sys.stdin.read(); migrate(sys.argv[1])"
    processes = [
        subprocess.Popen([sys.executable, "-c", code, url], stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for url in urls
    ]
    for process in processes:
        # All have started by the time the first may go on.
        assert process.stdin is not None
        process.stdin.close()
        process.stdin = None
    return [(process.wait(120), process.communicate()[1]) for process in processes]


@pytest.mark.exhaustive
def test_six_first_starts_at_once(empty: Callable[..., str], conn: Connection) -> None:
    """Fault 25. Roles are the cluster's, so two databases at once is another case."""
    one, other = empty(), empty()
    assert run(one, one, other, one, one, one, one) == [(0, "")] * 7
    expected = shape(conn)
    for url in (one, other):
        with psycopg.connect(url) as migrated:
            assert shape(migrated) == expected
            assert migrated.execute("SELECT count(*) FROM refold.settings").fetchone() == (1,)


def test_a_migration_waits_for_a_writer_and_nobody_waits_for_it(
    database_url: str, connect: Callable[..., Connection]
) -> None:
    """In the queue for the log's lock it would keep every producer out."""
    paused, other = connect(), connect()
    append(paused, events(3, "paused"))
    other.execute("SET lock_timeout = '1s'")
    other.commit()
    migrating = threading.Thread(target=migrate, args=(database_url,), daemon=True)
    migrating.start()
    with connect(autocommit=True) as watch:
        wait_until(lambda: pids(watch, "refold migrate", waiting=True))
        for number in range(20):
            append(other, events(1, f"other{number}"))
            other.commit()
        assert migrating.is_alive()
        paused.commit()
        migrating.join(30)
    assert not migrating.is_alive()


def test_who_owns_the_database_may_migrate_it(
    server: ServerUnderTest, empty: Callable[..., str], conn: Connection
) -> None:
    """No superuser: on servers that others run nobody is one."""
    conn.autocommit = True
    name = f"refold_dba_{os.getpid()}"
    conn.execute(sql.SQL("CREATE ROLE {} LOGIN CREATEROLE PASSWORD 'secret'").format(sql.Identifier(name)))
    try:
        url = empty(name)
        dbname = psycopg.conninfo.conninfo_to_dict(url)["dbname"]
        conn.execute(
            sql.SQL(
                "GRANT refold_owner, refold_producer, refold_worker, refold_analyst, refold_capture, refold_backfill"
                " TO {}"
            ).format(sql.Identifier(name))
        )
        migrate(replace(server, user=name, password="secret").url_of(str(dbname)))
        with psycopg.connect(url) as migrated:
            assert set(shape(migrated)) == set(shape(conn))
            append(migrated, events(3))
            migrated.execute(sql.SQL("REASSIGN OWNED BY {} TO CURRENT_USER").format(sql.Identifier(name)))
    finally:
        conn.execute(
            sql.SQL("REASSIGN OWNED BY {0} TO CURRENT_USER; DROP OWNED BY {0}; DROP ROLE {0}").format(
                sql.Identifier(name)
            )
        )


CREATE = re.compile(
    r"^CREATE OR REPLACE (FUNCTION|AGGREGATE|VIEW|TRIGGER) (?:(\w+)\.)?(\w+)(?:.*?\bON (?:\w+)\.(\w+))?",
    re.MULTILINE | re.DOTALL,
)
FILES = sorted(path for path in sql_dir().rglob("*.sql") if path.parent.name not in ("roles", "views"))
PLAIN = ("plain_bigint", "plain_double", "plain_integer", "plain_numeric", "plain_real", "plain_smallint")
"""A function that has a form for some types has a file for each."""
KINDS = {
    "functions": "FUNCTION",
    "aggregates": "AGGREGATE",
    "monitoring": "VIEW",
    "metrics": "VIEW",
    "triggers": "TRIGGER",
}


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_file_is_one_object_and_has_its_name(path: Path) -> None:
    text = path.read_text()
    created = re.findall(r"^CREATE .*", text, re.MULTILINE)
    assert len(created) == 1, created
    found = CREATE.search(text)
    assert found is not None, "it cannot be applied again"
    kind, _, name, table = found.groups()
    assert kind == KINDS[path.parent.name]
    assert path.stem in ((name,) if kind != "TRIGGER" else (f"{table}_{name}", f"{table}_{name[2:]}"), path.stem)
    assert text.startswith("-- ") or kind == "TRIGGER"


def test_the_database_has_the_files_objects_and_no_others(conn: Connection) -> None:
    functions = [path.stem for path in FILES if path.parent.name in ("functions", "aggregates")]
    rows = conn.execute("SELECT proname FROM pg_proc WHERE pronamespace = 'refold'::regnamespace").fetchall()
    names = {name for (name,) in rows}
    assert names == {"plain" if stem in PLAIN else stem for stem in functions}
    assert len(rows) == len(functions)


def test_no_function_depends_on_how_a_session_reads_backslashes(admin: psycopg.Connection[Any]) -> None:
    """Bodies are parsed in the calling session: standard_conforming_strings = off makes a backslash something else."""
    found = admin.execute(
        "SELECT proname FROM pg_proc WHERE pronamespace = 'refold'::regnamespace"
        " AND strpos(regexp_replace(prosrc, '--[^\\n]*', '', 'g'), chr(92)) > 0"
    ).fetchall()
    assert found == []
    segments = "SELECT count(*) FROM refold.segments"
    before = admin.execute(segments).fetchone()
    end = admin.execute("SELECT refold.log_end()").fetchone()
    admin.execute("SET standard_conforming_strings = off")
    assert admin.execute("SELECT refold.log_end()").fetchone() == end
    for number in range(3):
        event = f'[{{"id": "e{number}", "action": "a", "ts": 0}}]'
        admin.execute("SELECT * FROM refold.append(%s)", (event,))
    assert admin.execute(segments).fetchone() == before
