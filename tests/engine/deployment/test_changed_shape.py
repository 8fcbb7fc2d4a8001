"""Metrics whose columns change, under views that stand on them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from refold.engine.deployment.deploy import deploy
from refold.errors import BuildError
from refold.model.projection.definition import load_directory
from tests.support.law import worker_connection

Connect = Callable[..., psycopg.Connection[Any]]

BY_TEXT = "-- Before.\nSELECT action, count(*) AS events FROM events GROUP BY action"
BY_NUMBER = "-- After.\nSELECT version AS action, count(*) AS events FROM events GROUP BY version"


@pytest.fixture
def changing(database_url: str, tmp_path: Path) -> Iterator[Callable[..., None]]:
    """Deploys a metric `doings` with this text."""
    with worker_connection(database_url) as conn:

        def deploy_text(text: str, *, recreate_foreign: bool = False) -> None:
            (tmp_path / "doings.sql").write_text(text)
            deploy(conn, tmp_path, load_directory(tmp_path), lambda progress: None, recreate_foreign=recreate_foreign)

        deploy_text(BY_TEXT)
        yield deploy_text


def described(conn: psycopg.Connection[Any], view: str) -> tuple[str | None, bool]:
    """A view's comment, and whether analysts may read it."""
    [(comment, readable)] = conn.execute(
        "SELECT obj_description(%(view)s::regclass), has_table_privilege('refold_analyst', %(view)s, 'SELECT')",
        {"view": view},
    ).fetchall()
    return comment, readable


def test_our_own_views_are_made_again_on_a_changed_metric(changing: Callable[..., None], connect: Connect) -> None:
    with connect(autocommit=True) as admin:
        admin.execute("CREATE VIEW metrics.total AS SELECT sum(events) AS events FROM metrics.doings")
        admin.execute("CREATE VIEW metrics.above AS SELECT events + 1 AS more FROM metrics.total")
        admin.execute("COMMENT ON VIEW metrics.total IS 'All of them.'")
        admin.execute("GRANT SELECT ON metrics.total, metrics.above TO refold_analyst")
        changing(BY_NUMBER)
        assert admin.execute(
            "SELECT pg_typeof(action)::text FROM metrics.doings RIGHT JOIN (VALUES (1)) AS one ON true"
        ).fetchone() == ("integer",)
        assert described(admin, "metrics.total") == ("All of them.", True)
        assert described(admin, "metrics.above") == (None, True)
        assert described(admin, "metrics.doings") == ("After.", True)


def test_views_of_others_are_refused_unless_told(changing: Callable[..., None], connect: Connect) -> None:
    with connect(autocommit=True) as admin:
        admin.execute("CREATE SCHEMA reports")
        admin.execute("CREATE VIEW reports.total AS SELECT sum(events) AS events FROM metrics.doings")
        admin.execute("GRANT USAGE ON SCHEMA reports TO refold_worker, refold_analyst")
        admin.execute("GRANT SELECT ON reports.total TO refold_analyst")
        with pytest.raises(BuildError, match=r"reports\.total"):
            changing(BY_NUMBER)
        assert described(admin, "metrics.doings") == ("Before.", True)
        # Made again by the worker's role, it must be allowed to.
        admin.execute("GRANT CREATE ON SCHEMA reports TO refold_worker")
        changing(BY_NUMBER, recreate_foreign=True)
        assert described(admin, "metrics.doings") == ("After.", True)
        assert described(admin, "reports.total") == (None, True)


READERS = """
    SELECT a.attname, acl.grantee::regrole::text, acl.is_grantable
    FROM pg_attribute AS a CROSS JOIN LATERAL aclexplode(a.attacl) AS acl
    WHERE a.attrelid = 'reports.total'::regclass
    UNION ALL
    SELECT '', nullif(acl.grantee, 0)::regrole::text, acl.is_grantable
    FROM pg_class AS c CROSS JOIN LATERAL aclexplode(c.relacl) AS acl
    WHERE c.oid = 'reports.total'::regclass AND acl.grantee <> c.relowner
    ORDER BY 1, 2
"""


@pytest.fixture
def somebody(connect: Connect) -> Iterator[str]:
    """A role that is not refold's, and needs quotes."""
    name = f"Some Body {os.getpid()}"
    with connect(autocommit=True) as admin:
        admin.execute(sql.SQL("CREATE ROLE {}").format(sql.Identifier(name)))
    yield name
    with connect(autocommit=True) as admin:
        admin.execute(sql.SQL("DROP OWNED BY {0}; DROP ROLE {0}").format(sql.Identifier(name)))


def test_views_of_others_keep_their_owner_and_their_readers(
    changing: Callable[..., None], connect: Connect, somebody: str
) -> None:
    with connect(autocommit=True) as admin:
        admin.execute("CREATE SCHEMA reports")
        admin.execute("CREATE VIEW reports.total AS SELECT sum(events) AS events, count(*) AS n FROM metrics.doings")
        admin.execute("GRANT USAGE, CREATE ON SCHEMA reports TO refold_worker")
        admin.execute(sql.SQL("GRANT USAGE, CREATE ON SCHEMA reports TO {}").format(sql.Identifier(somebody)))
        admin.execute(sql.SQL("ALTER VIEW reports.total OWNER TO {}").format(sql.Identifier(somebody)))
        admin.execute("GRANT SELECT (n) ON reports.total TO refold_producer WITH GRANT OPTION")
        admin.execute("GRANT SELECT ON reports.total TO PUBLIC")
        before = admin.execute(READERS).fetchall()
        assert before == [("", None, False), ("n", "refold_producer", True)]
        changing(BY_NUMBER, recreate_foreign=True)
        assert admin.execute(READERS).fetchall() == before
        assert admin.execute(
            "SELECT pg_get_userbyid(relowner) FROM pg_class WHERE oid = 'reports.total'::regclass"
        ).fetchone() == (somebody,)
