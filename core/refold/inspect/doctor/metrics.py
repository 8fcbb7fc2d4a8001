"""Checks of metrics: files against builds, lag, workers, duties, and open incidents."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import psycopg

from refold.engine.deployment.plan import Change, changes
from refold.engine.publish.analyst_views import differing
from refold.engine.publish.shown import hidden
from refold.errors import RefoldError, each
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
"""Consecutive failures of a duty that are reported."""
MUCH = 10
"""Multiple of the lag limit beyond which the verdict is `fail`."""


def files(folder: Path | None, conn: psycopg.Connection) -> list[Check]:
    """Compare the projections of a folder with the deployed ones.

    Args:
        folder: folder of projections; None if there is none.
        conn: connection of the login.
    """
    with looking(conn):
        builds = kept(conn) if inspects(conn) else observed(conn)
    if folder is None:
        return [Check("projections", "unseen", "no ./projections here", "Name the folder: --projections DIR.")]
    try:
        definitions = load_directory(folder)
    except RefoldError as error:
        return [Check("projections", "fail", str(one), one.remedy or "Correct the file.") for one in each([error])]
    return [compared(changes(definitions, builds), folder)]


def compared(plan: Sequence[Change], folder: Path) -> Check:
    """Return the verdict on the plan of a deploy. Pure."""
    differing = [f"{one.projection} ({one.action})" for one in plan if one.action != "unchanged"]
    if not differing:
        return Check("projections", "ok", f"{len(plan)} in {folder}, all as deployed")
    told = f"{folder} and the database differ: {', '.join(differing)}"
    return Check("projections", "warn", told, "`refold deploy --dry-run` shows the plan.")


def views(folder: Path | None, conn: psycopg.Connection) -> list[Check]:
    """Compare the views in the schema `metrics` with the live builds and the files of views.

    Args:
        folder: folder of projections; None if there is none.
        conn: connection of the login.
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
    """Return the verdict on views. Pure.

    Args:
        missing: metrics whose view is missing or was replaced.
        other: views that differ from their files.
        wrong: errors in files.
        live: number of live metrics.
        files: number of views with a correct file.
    """
    checks = [
        Check(
            "views",
            "fail",
            f"metrics.{name} is not the view of its metric: it was dropped or replaced",
            "`refold deploy` recreates it.",
        )
        for name in missing
    ]
    checks += [Check("views", "fail", one, "Correct the file.") for one in wrong]
    if other:
        told = f"different from sql/views: {', '.join(f'metrics.{name}' for name in other)}"
        checks.append(Check("views", "warn", told, "`refold deploy` recreates them from their files."))
    beside = f", {files} as in sql/views" if files else ""
    return checks or [Check("views", "ok", f"{live} of metrics, all as refold created them{beside}")]


def failing(conn: psycopg.Connection) -> list[Check]:
    """Check for open incidents, metrics whose pages fail, and duties that keep failing."""
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
        Check("metrics", "fail", f"{table}: {error}", "Correct the file and deploy it.") for table, error in errors
    ] or [Check("metrics", "ok", "no page fails")]
    return checks + [
        Check("duties", "warn", f"{name} has failed {times} times in a row: {error}", "See the workers' log.")
        for name, error, times in duties
    ]


def incidents(opened: Sequence[tuple[Kind, int]]) -> Check:
    """Return the verdict on open incidents: kind and number. Pure."""
    told = ", ".join(f"{number} {kind}" for kind, number in opened)
    if not told:
        return Check("incidents", "ok", "none is open")
    # All else can be made again from the log.
    verdict: Verdict = "fail" if any(kind == "log_damage" for kind, _ in opened) else "warn"
    return Check("incidents", verdict, f"open: {told}", "`refold incidents --open` has the evidence.")


def lag(conn: psycopg.Connection) -> list[Check]:
    """Check the lag of live metrics, also when no worker runs."""
    with looking(conn):
        limit = read_settings(conn).lag_limit
        found = conn.execute(
            """
            SELECT b.projection, u.events,
                   extract(epoch FROM clock_timestamp() - least(u.oldest, refold.replayed_at()))::float8
            FROM refold.builds_now AS b JOIN refold.unread_now() AS u ON u.build_id = b.build_id
            WHERE b.state = 'live' ORDER BY 3 DESC NULLS LAST, 1
            """
        ).fetchall()
    return [behind(found, limit)]


def behind(builds: Sequence[tuple[str, int, float | None]], limit: int) -> Check:
    """Return the verdict on lag: (metric, waiting events, seconds of the oldest), longest first. Pure."""
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
        "See `workers` and `metrics` here. If workers run, start more: `refold worker --processes N`.",
    )


def hot_keys(conn: psycopg.Connection) -> list[Check]:
    """Report the keys that make pages expensive, as detected by workers."""
    with looking(conn):
        opened = [(one.subject, one.evidence) for one in readable(conn, kind="hot_key", open_only=True)]
    return [hot_key(table, evidence) for table, evidence in opened] or [Check("hot keys", "ok", "none is known")]


def hot_key(table: str, evidence: Mapping[str, Any]) -> Check:
    """Return the verdict on a hot key; an observer gets no evidence. Pure."""
    if not evidence:
        told = f"{table} has a hot key, and pages with its events are expensive; refold_inspector sees which"
        return Check("hot keys", "warn", told, REMEDIES["hot_key"])
    remedy = REMEDIES["hot_key"]
    if "without" in evidence:
        remedy = remedy.replace("the WHERE that is shown", str(evidence["without"]))
    key = ", ".join(f"{name} {'NULL' if value is None else value}" for name, value in evidence["key"].items())
    return Check(
        "hot keys",
        "warn",
        f"{table}: {key} has {evidence['events']:,} events ({evidence['share']:.0%} of all), and each page with"
        f" a new one reads them all again, in {evidence['page_seconds']:.1f} s",
        remedy,
    )


def workers(conn: psycopg.Connection) -> list[Check]:
    """Check that workers run and start duties; a frozen worker has a session, too."""
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
    """Return the verdict on workers. Pure.

    Args:
        number: sessions of workers.
        duty: time since the last duty started, seconds; None if none ever did.
    """
    ago = "no duty was ever started" if duty is None else f"last duty started {duty:,.0f} s ago"
    if not number:
        return Check("workers", "warn", f"none, {ago}: no event is applied", "`refold worker` starts one.")
    if duty is not None and duty > DUTIES_LATE:
        remedy = "Resume them (kill -CONT PID) or restart them; their log shows when they stopped."
        return Check("workers", "fail", f"{number} connected but idle, {ago}: frozen, or cut off", remedy)
    return Check("workers", "ok", f"{number} running, {ago}")
