"""The metrics: files against builds, workers, their duties, and open incidents."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import psycopg

from refold.builds.analyst_views import differing
from refold.builds.build import kept
from refold.builds.changes import Change, changes
from refold.builds.shown import hidden
from refold.builds.upkeeper import Upkeepers
from refold.doctor.check import Check, Verdict, acting_as
from refold.errors import RefoldError
from refold.incidents import REMEDIES
from refold.projections.definition import load_directory
from refold.projections.view_file import load_views

FAILED_OFTEN = 3
"""Failures of a duty in a row that are worth a line."""


def files(folder: Path | None, conn: psycopg.Connection) -> list[Check]:
    """The projections of a folder against what is deployed.

    Args:
        folder: where they are; None when there is none here.
        conn: the login's.
    """
    with acting_as(conn, "refold_worker"):
        builds = kept(conn)
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
    if conn.execute("SELECT pg_is_in_recovery()").fetchone() == (True,):
        return [Check("views", "unseen", "this is a standby", "Look on the primary.")]
    mistakes: list[RefoldError] = []
    with conn.transaction(force_rollback=True):
        # Views are tried as temporary ones, and gone again.
        conn.execute("SET LOCAL ROLE refold_worker")
        conn.execute("SET LOCAL search_path = refold, pg_catalog, pg_temp")
        live = [build for build in kept(conn) if build.state == "live"]
        missing = hidden(conn, Upkeepers(folder))
        beside = [] if folder is None else load_views(
            folder.resolve().parent / "sql" / "views", {build.projection for build in live}, mistakes
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
    """Metrics that stand still, duties that keep failing, and incidents that are open."""
    with acting_as(conn, "refold_worker"):
        errors = conn.execute(
            "SELECT table_name, error FROM refold.builds"
            " WHERE error IS NOT NULL AND state IN ('building', 'live') ORDER BY build_id"
        ).fetchall()
        duties = conn.execute(
            "SELECT name, error, failures FROM refold.duties WHERE failures >= %s ORDER BY name", (FAILED_OFTEN,)
        ).fetchall()
        opened = conn.execute(
            "SELECT kind, count(*) FROM refold.incidents WHERE resolved_at IS NULL GROUP BY kind ORDER BY kind"
        ).fetchall()
    checks = [
        Check("metrics", "fail", f"{table}: {error}", "Correct the file and deploy.") for table, error in errors
    ] or [Check("metrics", "ok", "no page fails")]
    checks += [
        Check("duties", "warn", f"{name} has failed {times} times in a row: {error}", "The workers' log says more.")
        for name, error, times in duties
    ]
    told = ", ".join(f"{number} {kind}" for kind, number in opened)
    if told:
        # All else can be made again from the log.
        verdict: Verdict = "fail" if any(kind == "log_damage" for kind, _ in opened) else "warn"
        return [*checks, Check("incidents", verdict, f"open: {told}", "`refold incidents --open` has the evidence.")]
    return [*checks, Check("incidents", "ok", "none is open")]


def hot_keys(conn: psycopg.Connection) -> list[Check]:
    """The keys that make pages expensive, as workers found them."""
    with acting_as(conn, "refold_worker"):
        opened = conn.execute(
            "SELECT subject, evidence FROM refold.incidents"
            " WHERE kind = 'hot_key' AND resolved_at IS NULL ORDER BY incident_id"
        ).fetchall()
    return [hot_key(table, evidence) for table, evidence in opened] or [Check("hot keys", "ok", "none is known")]


def hot_key(table: str, evidence: Mapping[str, Any]) -> Check:
    """The verdict on one of them. Pure."""
    key = ", ".join(f"{name} {'NULL' if value is None else value}" for name, value in evidence["key"].items())
    return Check(
        "hot keys",
        "warn",
        f"{table}: {key} has {evidence['events']:,} events, {evidence['share']:.0%} of all, and a page that brings one"
        f" more reads them again: {evidence['page_seconds']:.1f} s",
        REMEDIES["hot_key"],
    )


def workers(conn: psycopg.Connection) -> list[Check]:
    """Whether anybody keeps the metrics up to date."""
    row = conn.execute(
        "SELECT count(*)::integer FROM pg_stat_activity"
        " WHERE datname = current_database() AND application_name = 'refold worker'"
    ).fetchone()
    assert row is not None
    if row[0]:
        return [Check("workers", "ok", f"{row[0]} at work")]
    return [Check("workers", "warn", "none: nothing is applied, and no duty is done", "`refold worker` starts one.")]
