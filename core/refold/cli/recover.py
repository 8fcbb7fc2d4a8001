"""`refold recover`: after a restore, every build back under the law."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from refold.cli.app import TRUST, app
from refold.cli.bars import progress
from refold.cli.output import as_json, counted, line, note, table
from refold.cli.session import AsJson, DatabaseUrl, Projections, folder, session
from refold.engine.recovery import RecoveryReport, Survey
from refold.engine.recovery import recover as bring_back
from refold.engine.recovery import survey as look
from refold.engine.recovery.strategy import BuildOutcome, Strategy
from refold.errors import InputError

SHOWN = 10
"""Ids of lost events that are listed on the screen; --json gives up to 50."""

_STRATEGIES: dict[Strategy, str] = {
    "prove": "nothing is wrong with the coordinates: ledger and metrics are audited all the same",
    "adopt": "cursors are kept, audited, and then this cluster's",
    "rewrite": "every event and cursor gets new coordinates; then all metrics are audited and healed",
    "wait": "that transaction has to end first",
}
_OUTCOMES: dict[BuildOutcome, str] = {
    "audited": "audited against the log, healed where it differs",
    "loaded again": "its first load starts over",
    "lost": "its table, or that of what it reads, was not restored: `refold deploy` builds it from the log",
    "dropped": "retired: no rollback to it",
}


@app.command(rich_help_panel=TRUST)
def recover(
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what was found and would be done; do nothing.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    projections: Projections = None,
    json: AsJson = False,
    database_url: DatabaseUrl = None,
) -> None:
    """After a restore: bring every metric back under its query over the log, then let workers run again.

    Cursors speak of a cluster's transactions. Restored into another cluster they would skip events, so workers
    refuse to run. Where transaction ids went on (pg_upgrade), cursors are kept; where they started again, log and
    cursors get new coordinates. The ledger is made to know what is in the log, every metric is audited and healed,
    and only then do workers run. Producers may append all the time. Killed at any point, it can be run again.

    Exit status: 0 done (whatever had to be healed), 2 it could not be done.

    \b
    Examples:
      refold recover --dry-run
      refold recover
      refold recover --yes --json
    """
    with session(database_url, name=BY, checked=False) as conn:
        where = folder(projections, quiet=True)
        if dry_run:
            found = look(conn, where)
            as_json(found.as_dict()) if json else _show_plan(found)
            return
        if not yes:
            _ask(look(conn, where))
        with progress() as bars:
            task = bars.add_task("recovering", total=None, note="")
            report = bring_back(conn, where, progress=lambda step: bars.update(task, description=step))
    as_json(report.as_dict()) if json else _show(report)


BY = "refold recover"


def _ask(found: Survey) -> None:
    if not sys.stdin.isatty():
        raise InputError(
            "nobody is there to be asked, and a recovery rewrites what cursors mean",
            remedy="`refold recover --dry-run` says what would be done; `refold recover --yes` does it.",
        )
    _show_plan(found)
    if not typer.confirm("Go on?", err=True):
        raise typer.Exit(1)


def _show_plan(found: Survey) -> None:
    line(f"{found.decision.strategy}: {found.decision.because}")
    line(f"  {_STRATEGIES[found.decision.strategy]}")
    line(f"log: {found.ledger.events:,} events")
    _show_ledger(found, "would be")
    if found.builds:
        order = list(_OUTCOMES)
        builds = sorted(found.builds, key=lambda build: order.index(found.outcomes[build.build_id]))
        table(
            ("PROJECTION", "TABLE", "STATE", "WHAT BECOMES OF IT"),
            [(b.projection, b.table_name, b.state, _OUTCOMES[found.outcomes[b.build_id]]) for b in builds],
        )


def _show_ledger(found: Survey, done: str) -> None:
    ledger = found.ledger
    if ledger.lost:
        stay = "would stay" if done == "would be" else "stay"
        more = f" and {ledger.lost - SHOWN:,} more" if ledger.lost > SHOWN else ""
        line(f"lost: {ledger.lost:,} events that the ledger knows are not in the log; their ids {stay} taken")
        line(f"  {', '.join(ledger.lost_ids[:SHOWN])}{more}")
    if ledger.unknown:
        line(f"ledger: {ledger.unknown:,} events of the log {done} entered")
    if found.cluster.rehashed:
        line(f"hashes: this server has other hash functions; digests and checksums {done} taken anew")
    elif ledger.changed:
        line(f"ledger: {ledger.changed:,} digests {done} made anew")


def _show(report: RecoveryReport) -> None:
    found = report.survey
    line(f"{found.decision.strategy}: {found.decision.because}")
    rewritten = f", {report.rewritten:,} with new coordinates" if found.decision.strategy == "rewrite" else ""
    line(f"log: {found.ledger.events:,} events{rewritten}")
    _show_ledger(found, "were")
    for name, events in report.unread.items():
        line(f"{name}: about {counted(events, 'event')} that it had not read in the backup, read now")
    for name, lost in report.dead_letters.items():
        line(f"{name}: {len(lost):,} dead letters ended, their events are not in the log")
    for build, because in report.unloaded:
        line(f"{build.table_name}: loaded anew by the workers, because it cannot be audited: {because}")
    for outcome in ("loaded again", "lost", "dropped"):
        for build in found.of(outcome):
            line(f"{build.table_name}: {_OUTCOMES[outcome]}")
    if report.drift.drift:
        rows = [(name, relation, kind, count) for (name, relation, kind), count in sorted(report.drift.counts.items())]
        table(("PROJECTION", "TABLE", "KIND", "HEALED"), rows, right=("HEALED",))
    line(f"in order: {', '.join(sorted(report.drift.audited)) or 'no metric is live'} ({report.seconds:.1f} s)")
    note("Workers run again here: start them.")
