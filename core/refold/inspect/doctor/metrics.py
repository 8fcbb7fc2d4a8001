"""The metrics: files against builds, workers, their duties, and open incidents."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import psycopg

from refold.engine.deployment.plan import Change, changes
from refold.engine.publish.analyst_views import differing
from refold.engine.publish.shown import hidden
from refold.errors import RefoldError
from refold.inspect.doctor.check import Check, Verdict, looking, member
from refold.inspect.status import DUTIES_LATE
from refold.model.projection.definition import load_directory
from refold.model.projection.view_file import load_views, views_beside
from refold.postgres.rows import one_row
from refold.store.builds.build import kept, observed
from refold.store.builds.compiled import Compiler
from refold.store.incidents import REMEDIES, Kind, inspects, readable
from refold.store.schema.settings import read_settings

FAILED_OFTEN = 3
"""Failures of a duty in a row that are worth a line."""
MUCH = 10
"""A metric that is so many times further behind than it may be is no mere warning."""


def files(folder: Path | None, conn: psycopg.Connection) -> list[Check]:
    """The projections of a folder against what is deployed.

    Args:
        folder: where they are; None when there is none here.
        conn: the login's.
    """
    with looking(conn):
        builds = kept(conn) if inspects(conn) else observed(conn)
    if folder is None:
        return [Check("projections", "unseen", "no ./projections here", "Give the folder: --projections DIR.")]
    try:
        definitions = load_directory(folder)
    except RefoldError as error:
        return [Check("projections", "fail", str(error), error.remedy or "Correct the file.")]
    return [compared(changes(definitions, builds), folder)]


def compared(plan: Sequence[Change], folder: Path) -> Check:
    """The verdict on what a deploy would do. Pure."""
    differing = [f"{one.projection} ({one.action})" for one in plan if one.action != "unchanged"]
    if not differing:
        return Check("projections", "ok", f"{len(plan)} in {folder}, all as deployed")
    told = f"{folder} and the database differ: {', '.join(differing)}"
    return Check("projections", "warn", told, "`refold deploy --dry-run` shows the plan.")


def views(folder: Path | None, conn: psycopg.Connection) -> list[Check]:
    """What stands in the schema `metrics`, against the live builds and the files of views.

    Args:
        folder: where the projections are; None when there is none here.
        conn: the login's.
    """
    if conn.execute("SELECT pg_has_role(session_user, 'refold_worker', %s)", (member(conn),)).fetchone() != (True,):
        return [Check("views", "unseen", "only a login that may act as refold_worker can compare them")]
    mistakes: list[RefoldError] = []
    with conn.transaction(force_rollback=True):
        # Views are tried as temporary ones, and gone again.
        conn.execute("SET LOCAL ROLE refold_worker")
        conn.execute("SET LOCAL search_path = refold, pg_catalog, pg_temp")
        live = [build for build in kept(conn) if build.state == "live"]
        missing = hidden(conn, Compiler(folder))
        beside = [] if folder is None else load_views(
            views_beside(folder), {build.projection for build in live}, mistakes
        )  # fmt: skip
        other = differing(conn, beside)
    return standing(missing, other, [str(one) for one in mistakes], len(live), len(beside))


def standing(missing: Sequence[str], other: Sequence[str], wrong: Sequence[str], live: int, files: int) -> list[Check]:
    """The verdict on views. Pure.

    Args:
        missing: metrics that their views do not show.
        other: views that are not what their files make.
        wrong: what is wrong with files.
        live: how many metrics are live.
        files: how many views have a file that is right.
    """
    checks = [
        Check(
            "views",
            "fail",
            f"metrics.{name} is not the view of its metric: somebody has dropped or replaced it",
            "`refold deploy` makes it again.",
        )
        for name in missing
    ]
    checks += [Check("views", "fail", one, "Correct the file.") for one in wrong]
    if other:
        told = f"not as in sql/views: {', '.join(f'metrics.{name}' for name in other)}"
        checks.append(Check("views", "warn", told, "`refold deploy` makes them what their files say."))
    beside = f", {files} as in sql/views" if files else ""
    return checks or [Check("views", "ok", f"{live} of metrics, all as refold made them{beside}")]


def failing(conn: psycopg.Connection) -> list[Check]:
    """Incidents that are open, metrics that stand still, and duties that keep failing."""
    with looking(conn):
        # What an error says may be of an event; an observer learns what it is called.
        error, why = ("b.error", "error") if inspects(conn) else ("b.failing", "'its error is for refold_inspector'")
        errors = conn.execute(
            f"SELECT b.table_name, {error} FROM refold.builds_now AS b"
            f" WHERE {error} IS NOT NULL AND b.state IN ('building', 'live') ORDER BY b.build_id".encode()
        ).fetchall()
        duties = conn.execute(
            f"SELECT name, {why}, failures FROM refold.duties WHERE failures >= %s ORDER BY name".encode(),
            (FAILED_OFTEN,),
        ).fetchall()
        opened = conn.execute(
            "SELECT kind, count(*) FROM refold.incidents WHERE resolved_at IS NULL GROUP BY kind ORDER BY kind"
        ).fetchall()
    checks = [incidents(opened)]
    checks += [
        Check("metrics", "fail", f"{table}: {error}", "Correct the file and deploy.") for table, error in errors
    ] or [Check("metrics", "ok", "no page fails")]
    return checks + [
        Check("duties", "warn", f"{name} has failed {times} times in a row: {error}", "The workers' log says more.")
        for name, error, times in duties
    ]


def incidents(opened: Sequence[tuple[Kind, int]]) -> Check:
    """The verdict on open incidents: kind and number. Pure."""
    told = ", ".join(f"{number} {kind}" for kind, number in opened)
    if not told:
        return Check("incidents", "ok", "none is open")
    # All else can be made again from the log.
    verdict: Verdict = "fail" if any(kind == "log_damage" for kind, _ in opened) else "warn"
    return Check("incidents", verdict, f"open: {told}", "`refold incidents --open` has the evidence.")


def lag(conn: psycopg.Connection) -> list[Check]:
    """Whether live metrics are further behind than they may be: seen here, not by a worker."""
    with looking(conn):
        limit = read_settings(conn).lag_limit
        found = conn.execute(
            """
            SELECT b.projection, u.events,
                   extract(epoch FROM clock_timestamp() - least(u.oldest, refold.replayed_at()))::float8
            FROM refold.builds_now AS b CROSS JOIN LATERAL refold.unread_of(b.build_id) AS u
            WHERE b.state = 'live' ORDER BY 3 DESC NULLS LAST, 1
            """
        ).fetchall()
    return [behind(found, limit)]


def behind(builds: Sequence[tuple[str, int, float | None]], limit: int) -> Check:
    """The verdict on (metric, events that wait, seconds of the oldest; longest first). Pure."""
    late = [one for one in builds if one[2] is not None and one[2] > limit]
    if not late:
        worst = max((seconds or 0.0 for _, _, seconds in builds), default=0.0)
        return Check("lag", "ok", f"live metrics: {len(builds)}, at most {max(worst, 0.0):.0f} s behind")
    name, events, seconds = late[0]
    more = f", and {len(late) - 1} more of {len(builds)}" if len(late) > 1 else ""
    return Check(
        "lag",
        "fail" if (seconds or 0.0) > MUCH * limit else "warn",
        f"{name} is {seconds:,.0f} s behind, {events:,} events{more}; the limit is {limit} s",
        "See `workers` and `metrics` here; if workers are at work: more of them (`refold worker --processes N`).",
    )


def hot_keys(conn: psycopg.Connection) -> list[Check]:
    """The keys that make pages expensive, as workers found them."""
    with looking(conn):
        opened = [(one.subject, one.evidence) for one in readable(conn, kind="hot_key", open_only=True)]
    return [hot_key(table, evidence) for table, evidence in opened] or [Check("hot keys", "ok", "none is known")]


def hot_key(table: str, evidence: Mapping[str, Any]) -> Check:
    """The verdict on one of them; an observer gets no evidence. Pure."""
    if not evidence:
        told = f"{table} has one, and pages that bring an event of it are expensive; refold_inspector sees which"
        return Check("hot keys", "warn", told, REMEDIES["hot_key"])
    key = ", ".join(f"{name} {'NULL' if value is None else value}" for name, value in evidence["key"].items())
    return Check(
        "hot keys",
        "warn",
        f"{table}: {key} has {evidence['events']:,} events, {evidence['share']:.0%} of all, and a page that brings one"
        f" more reads them again: {evidence['page_seconds']:.1f} s",
        REMEDIES["hot_key"],
    )


def workers(conn: psycopg.Connection) -> list[Check]:
    """Whether anybody keeps the metrics up to date, and does anything: a frozen worker has a session as well."""
    with looking(conn):
        (late,) = one_row(
            conn,
            "SELECT extract(epoch FROM clock_timestamp() - max(started_at))::float8 FROM refold.duties"
            " WHERE started_at <= clock_timestamp()",
        )
    (number,) = one_row(
        conn,
        "SELECT count(*)::integer FROM pg_stat_activity"
        " WHERE datname = current_database() AND application_name = 'refold worker'",
    )
    return [at_work(number, late)]


def at_work(number: int, duty: float | None) -> Check:
    """The verdict on workers. Pure.

    Args:
        number: their sessions.
        duty: how long ago the last duty began, seconds; None when there has been none.
    """
    ago = "no duty was ever done" if duty is None else f"the last duty began {duty:,.0f} s ago"
    if not number:
        return Check("workers", "warn", f"none, {ago}: nothing is applied", "`refold worker` starts one.")
    if duty is not None and duty > DUTIES_LATE:
        remedy = "Wake them up (kill -CONT PID) or start them again; their log says when they stopped."
        return Check("workers", "fail", f"{number} there, doing nothing, {ago}: frozen, or cut off", remedy)
    return Check("workers", "ok", f"{number} at work, {ago}")
