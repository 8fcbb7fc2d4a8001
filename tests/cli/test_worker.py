"""`refold worker` as a command; tests/test_pool.py has its processes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg

from tests.conftest import ServerUnderTest

from .conftest import Refold

TRANSFORM = """
from pydantic import BaseModel
from refold import Event, transform

class Loud(BaseModel):
    event_id: str
    action: str

@transform(reads="events")
def loud(event: Event) -> Loud:
    return Loud(event_id=event.event_id, action=event.action.upper())
"""


def test_drain_says_what_it_did(
    refold: Refold, metric: Callable[[str, str], Path], record: Callable[..., None]
) -> None:
    metric("counts", "SELECT action, count(*) AS events FROM events GROUP BY action")
    refold("deploy")
    record("view=ann", "view=bob")
    first = refold("worker", "--drain", "--poll", "0.1")
    assert (first.status, first.out.split(" in ")[0]) == (0, "drained: 2 events applied to 1 metric")
    assert refold("worker", "--drain").out.startswith("drained: 0 events applied")


def test_drain_counts_an_event_of_the_log_once(
    refold: Refold, metric: Callable[[str, str], Path], record: Callable[..., None]
) -> None:
    metric("views", "SELECT event_id, user_id FROM events WHERE action = 'view'")
    metric("users", "SELECT user_id, count(*) AS n FROM views GROUP BY user_id")
    metric("counts", "SELECT action, count(*) AS events FROM events GROUP BY action")
    refold("deploy")
    record("view=ann", "view=bob", "buy=bob")
    assert refold("worker", "--drain").out.startswith("drained: 3 events applied to 3 metrics in ")


def test_a_transform_that_this_worker_does_not_have(refold: Refold, record: Callable[..., None]) -> None:
    Path("projections").mkdir()
    Path("projections/loud.py").write_text(TRANSFORM)
    assert refold("deploy").status == 0
    record("view=ann")
    Path("elsewhere").mkdir()
    done = refold("worker", "--drain", "--projections", "elsewhere")
    assert done.status == 2
    assert "the transform loud is not in elsewhere" in done.err
    assert refold("worker", "--drain").status == 0
    assert refold("query", "SELECT action FROM loud", "--csv").out.split() == ["action", "VIEW"]


CUTS = """
    CREATE FUNCTION public.cut() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN
        PERFORM pg_terminate_backend(pid, 10000) FROM pg_stat_activity
        WHERE application_name = 'refold worker figures' AND datname = current_database();
        RETURN NULL;
    END $$;
    CREATE TRIGGER cut AFTER INSERT ON refold_builds.{} EXECUTE FUNCTION public.cut();
"""


def test_drain_goes_on_when_the_connection_of_its_figures_breaks(
    refold: Refold,
    metric: Callable[[str, str], Path],
    record: Callable[..., None],
    admin: psycopg.Connection[tuple[Any, ...]],
) -> None:
    metric("counts", "SELECT action, count(*) AS events FROM events GROUP BY action")
    refold("deploy")
    [(table,)] = admin.execute("SELECT table_name FROM refold.builds").fetchall()
    admin.execute(CUTS.format(table).encode())
    record("view=ann", "view=bob")
    done = refold("worker", "--drain")
    assert (done.status, done.out.split(" in ")[0]) == (0, "drained: 2 events applied to 1 metric"), done.err


def test_options_out_of_range(refold: Refold) -> None:
    for options in (["--processes", "0"], ["--poll", "0"]):
        assert refold("worker", *options).status == 2


def test_draining_a_database_without_refold(bare: Refold, server: ServerUnderTest) -> None:
    """It is not installed; that is another thing than a schema that is too old."""
    done = bare("worker", "--drain", "--database-url", server.url_of(server.maintenance_dbname))
    assert done.status == 2
    assert "refold is not installed" in done.err
