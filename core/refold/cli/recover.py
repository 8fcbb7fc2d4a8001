"""`refold recover`: after a restore, audit and heal every build."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from refold.cli.app import TRUST, app
from refold.cli.bars import progress
from refold.cli.confirm import confirm
from refold.cli.output import as_json, line, note, table
from refold.cli.session import AsJson, DatabaseUrl, Projections, folder, session
from refold.prose import counted

if TYPE_CHECKING:
    from refold.engine.recovery import RecoveryReport, StoreLook, Survey
    from refold.engine.recovery.strategy import BuildOutcome, Strategy

SHOWN = 10
"""Most ids of lost events that are printed; --json gives up to 50."""

_STRATEGIES: dict[Strategy, str] = {
    "prove": "cursors belong to this cluster; ledger and metrics are audited anyway",
    "adopt": "cursors are kept, audited, and assigned to this cluster",
    "rewrite": "every event and cursor gets new transaction ids; then all metrics are audited and healed",
    "wait": "that transaction must end first",
}
_OUTCOMES: dict[BuildOutcome, str] = {
    "audited": "audited against the log; rows that differ are healed",
    "loaded again": "its first load starts again",
    "lost": "its table, or one that it reads, was not restored: `refold deploy` builds it from the log",
    "dropped": "retired and dropped: rollback to it is no longer possible",
}


@app.command(rich_help_panel=TRUST)
def recover(
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the findings and the plan; change nothing.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")] = False,
    projections: Projections = None,
    json: AsJson = False,
    database_url: DatabaseUrl = None,
) -> None:
    """Recover after a restore: audit and heal every metric against the log, then let workers run again.

    A cursor (checkpoint) refers to transaction ids of one cluster. In another cluster it could skip events, so workers
    refuse to run. If the transaction ids continue (pg_upgrade), refold keeps the cursors. If they restart, log and
    cursors get new transaction ids. Recovery then completes the ledger from the log, audits and heals every metric,
    and lets workers run. Producers may append meanwhile. An interrupted recovery can be run again.

    Exit status: 0 recovered, 2 the command failed.

    \b
    Examples:
      refold recover --dry-run
      refold recover
      refold recover --yes --json
    """
    from refold.engine.recovery import look_at_store
    from refold.engine.recovery import recover as bring_back
    from refold.engine.recovery import survey as look

    with session(database_url, name=BY, checked=False, acts=True) as conn:
        where = folder(projections, quiet=True)
        if dry_run:
            found = look(conn, where)
            store = look_at_store(conn, found.decision.strategy)
            as_json({**found.as_dict(), "archive": asdict(store)}) if json else _show_plan(found, store)
            return
        if not yes:
            found = look(conn, where)
            store = look_at_store(conn, found.decision.strategy)
            confirm(
                "Continue?",
                piped="stdin is not a terminal, and recovery needs confirmation",
                remedy="`refold recover --dry-run` prints the plan; `refold recover --yes` runs it.",
                show=lambda: _show_plan(found, store),
            )
        with progress() as bars:
            task = bars.add_task("recovering", total=None, note="")
            report = bring_back(conn, where, progress=lambda step: bars.update(task, description=step))
    as_json(report.as_dict()) if json else _show(report)


BY = "refold recover"


def _show_plan(found: Survey, store: StoreLook) -> None:
    line(f"{found.decision.strategy}: {found.decision.because}")
    line(f"  {_STRATEGIES[found.decision.strategy]}")
    line(f"log: {found.ledger.events:,} events")
    _show_ledger(found, "would be")
    if found.builds:
        order = list(_OUTCOMES)
        builds = sorted(found.builds, key=lambda build: order.index(found.outcomes[build.build_id]))
        table(
            ("PROJECTION", "TABLE", "STATE", "OUTCOME"),
            [(b.projection, b.table_name, b.state, _OUTCOMES[found.outcomes[b.build_id]]) for b in builds],
        )
    _show_store(store)


def _show_store(store: StoreLook) -> None:
    if store.failed is not None:
        note(f"archive: the store could not be asked: {store.failed}")
    elif store.location is not None:
        line(f"archive: {store.location}")
        if store.missing:
            missing = counted(len(store.missing), "file")
            line(f"  it lacks {missing} of the manifest; files that took their place would count")
    if store.erasures:
        line(f"erasures of people: {store.erasures:,} are not in the backup, and would be done again")
    if store.to_claim:
        note("nothing would be archived until you claim the store: `refold archive claim`")


def _show_ledger(found: Survey, done: str) -> None:
    ledger = found.ledger
    if ledger.lost:
        stay = "would stay" if done == "would be" else "stay"
        more = f" and {ledger.lost - SHOWN:,} more" if ledger.lost > SHOWN else ""
        line(f"lost: {ledger.lost:,} events of the ledger are missing from the log; their ids {stay} reserved")
        line(f"  {', '.join(ledger.lost_ids[:SHOWN])}{more}")
    if ledger.unknown:
        line(f"ledger: {ledger.unknown:,} events of the log {done} added")
    if found.cluster.rehashed:
        line(f"hashes: this server has other hash functions; digests and checksums {done} computed again")
    elif ledger.changed:
        line(f"ledger: {ledger.changed:,} digests {done} computed again")


def _show(report: RecoveryReport) -> None:
    found = report.survey
    line(f"{found.decision.strategy}: {found.decision.because}")
    rewritten = f", {report.rewritten:,} with new transaction ids" if found.decision.strategy == "rewrite" else ""
    line(f"log: {found.ledger.events:,} events{rewritten}")
    _show_ledger(found, "were")
    for name, events in report.unread.items():
        line(f"{name}: about {counted(events, 'event')} unread in the backup, applied now")
    for name, lost in report.dead_letters.items():
        line(f"{name}: {len(lost):,} dead letters closed, because their events are not in the log")
    if report.paused:
        note(
            f"sinks deliver nothing until you resume them: {', '.join(report.paused)}. On the database that shall"
            " deliver: `refold sinks claim NAME`"
        )
    if report.archive:
        note(
            "nothing is archived until you claim the store: its files are the original's. On the database that shall"
            " go on: `refold archive claim`; on a copy: `refold archive claim ANOTHER`"
        )
    if report.erased:
        line(f"erasures of people: {report.erased:,} were not in the backup, and are done again")
    if report.not_erased is not None:
        note(f"erasures of people were not done again: {report.not_erased}. Then: `refold erase apply`")
    elif not report.archive:
        note("If people were erased since the backup was made: `refold erase apply FILE`, of `refold erase export`.")
    for build, because in report.unloaded:
        line(f"{build.table_name}: workers load it again, because it cannot be audited: {because}")
    for outcome in ("loaded again", "lost", "dropped"):
        for build in found.of(outcome):
            line(f"{build.table_name}: {_OUTCOMES[outcome]}")
    if report.drift.drift:
        rows = [(name, relation, kind, count) for (name, relation, kind), count in sorted(report.drift.counts.items())]
        table(("PROJECTION", "TABLE", "KIND", "HEALED"), rows, right=("HEALED",))
    line(f"audited: {', '.join(sorted(report.drift.audited)) or 'no metric is live'} ({report.seconds:.1f} s)")
    note("Workers may run again: start them.")
