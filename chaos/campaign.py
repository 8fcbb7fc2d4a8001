"""A campaign: load, faults by the schedule, then silence, then the count."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime

import psycopg

from chaos import archived, backfilled, canaries, contracted, erased, explained, invariants, journal, kept, receivers
from chaos.archived import EVERYTHING
from chaos.broken import break_database, break_process
from chaos.by_hand import Operator, toil_of
from chaos.faults import FAULTS, ROOMS, Injected, inject
from chaos.faults.archive import take_lease
from chaos.findings import Findings
from chaos.oracle import Event
from chaos.probe import Probe
from chaos.report import FaultLine, Report
from chaos.schedule import EXPOSED, Step, schedule
from chaos.stage import PAUSED, Stage

JOIN_S = 400.0
"""Seconds that a fault may go on after the load: damage is waited for until somebody has noticed it."""
CONVERGES_S = 90.0
"""Seconds after the end of the load within which every metric must be up to date."""
PRODUCERS_END_S = 75.0
"""Seconds that a producer has for its last batch: longer than the retries of a Log."""
DELIVERED_S = 120.0
"""Seconds that receivers have to be given what they lack."""
CLOSES_S = 90.0
"""Seconds after the last audit within which every incident must be over: duties run every minute."""
SHOWN_S = 3.0
"""A fault that lasts longer must be seen in `status`."""

BREAKING_FAULTS = {
    "two-transactions": ("worker killed",),
    "no-unique": ("connections cut",),
    "naive-cursor": ("transaction left open",),
    "early-answer": ("door killed",),
    "stale-cursor": ("connections cut",),
    "unproved": ("archive lied to",),
    "mark-apart": ("backfill",),
    "canary-left": ("canary",),
    "purge-unproved": ("purge",),
    "unfolded": ("purge",),
    "forgetful": ("erasure",),
    "skips-all": ("purge",),
    "restored-blind": ("segment lost",),
    "rows-stay": ("retention",),
}
"""What happens in a campaign with a broken product: enough to show it, and nothing that would hide it."""


def plan(seed: int, minutes: float, breaking: str | None = None) -> list[Step]:
    """The schedule of a campaign. Pure."""
    if breaking is not None:
        steps = schedule(seed, minutes, BREAKING_FAULTS[breaking])
        return steps[:1] if steps[0].fault in ("purge", "erasure", "segment lost") else steps
    return schedule(seed, minutes, tuple(FAULTS), tuple(ROOMS))


def run(
    seed: int,
    minutes: float,
    *,
    breaking: str | None = None,
    duties: bool = True,
    converges: float = CONVERGES_S,
    keep: bool = False,
    tell: Callable[[str], None] = lambda line: None,
) -> Report:
    """Runs a campaign from the start of a server to the report.

    Args:
        seed: decides the schedule and the events.
        minutes: of load.
        breaking: how the product is broken on purpose; one of `chaos.broken.VARIANTS`.
        duties: whether workers heal; without, a person does by commands (`chaos.by_hand`).
        converges: seconds that the metrics have after the load.
        keep: keep the directory also when all holds.
        tell: told what happens.
    """
    report = Report(seed, minutes, breaking=breaking, duties=duties)
    found = Findings()
    stage = Stage(seed, breaking, duties=duties)
    operator: Operator | None = None
    try:
        stage.install()
        with stage.connect() as conn:
            report.server = (conn.info.parameter_status("server_version") or "").split(" ")[0]
            if breaking is not None:
                break_database(conn, breaking)
                # Rows are explained in this process.
                break_process(breaking)
        began = datetime.now(UTC)
        operator = None if duties else Operator(stage)
        happened = _load(stage, plan(seed, minutes, breaking), minutes, report, found, tell)
        stalled = _settle(stage, converges, report, found, tell)
        if breaking is None:
            _rest(stage)
        if operator is not None:
            operator.close()
        report.toil = toil_of(stage, began)
        _count(stage, stalled, converges, report, found, tell)
        _time_healing(stage, happened, report)
    finally:
        if operator is not None:
            operator.close()
        failed = bool(found.violations) or not report.attempted
        stage.close(keep=keep or failed)
    report.violations = dict(sorted(found.violations.items()))
    report.lost, report.double = found.lost, found.double
    if keep or failed:
        report.directory = str(stage.home)
    return report


def _load(
    stage: Stage, steps: list[Step], minutes: float, report: Report, found: Findings, tell: Callable[[str], None]
) -> list[Injected]:
    """Producers, workers and faults, for as long as there is load."""
    started = time.monotonic()
    happened: list[Injected] = []

    def happen(step: Step) -> None:
        try:
            done = inject(stage, step)
        except Exception as error:
            # The campaign itself is wrong: no result is worth anything then.
            found.add("I6", f"the fault {step} could not be made: {type(error).__name__}: {error}")
            return
        happened.append(done)
        line = f"{done.began - started:7.1f}–{done.ended - started:.1f} {step.fault}: {done.note}".rstrip(": ")
        report.events.append(line)
        tell(line)

    stage.work()
    stage.produce()
    probe = Probe(stage)
    explainer = explained.Explainer(stage)
    threads = []
    try:
        for step in steps:
            time.sleep(max(0.0, started + step.at - time.monotonic()))
            threads.append(threading.Thread(target=happen, args=(step,), name=step.fault))
            threads[-1].start()
        time.sleep(max(0.0, started + minutes * 60 - time.monotonic()))
        stage.over.set()
        tell("the load ends")
        # Faults that take many commands have the machine for themselves now.
        told = stage.stop_producing(PRODUCERS_END_S)
        # A producer that was told to end, and had just prepared, would keep the log from a purge.
        stage.ask(lambda conn: _commit_prepared(conn, "two-phases-%"))
        for thread in threads:
            thread.join(JOIN_S)
        stage.calm()
        resumed = stage.refold("sinks", "resume", PAUSED)
        if resumed.status != 0:
            found.add("I9", f"refold sinks resume ended with {resumed.status}: {resumed.err[-500:]}")
        for one in told:
            found.add("I7" if "refold ingest" in one else "I6", one)
        # What happened last has yet to be recovered from.
        time.sleep(3)
    finally:
        explainer.close()
        probe.close()
    explainer.tell(happened, found)
    report.explained_under_load, report.explained_in_run = explainer.explained, explainer.in_run
    report.faults = _by_kind(happened, probe, found)
    report.tampered = sum(done.drift for done in happened)
    return happened


def _commit_prepared(conn: psycopg.Connection, like: str) -> None:
    """Commits what somebody has prepared and left."""
    for (gid,) in conn.execute("SELECT gid FROM pg_prepared_xacts WHERE gid LIKE %s", (like,)).fetchall():
        with suppress(psycopg.Error):
            conn.execute(f"COMMIT PREPARED '{gid}'".encode())


def _by_kind(happened: list[Injected], probe: Probe, found: Findings) -> list[FaultLine]:
    lines: dict[str, FaultLine] = {}
    for done in happened:
        line = lines.setdefault(done.step.fault, FaultLine(done.step.fault))
        line.times += 1
        for invariant, told in done.wrong:
            found.add(invariant, told)
        if (recovered := probe.caught_up(done.ended)) is not None:
            line.recovered.append(round(recovered, 2))
        shown = None if done.shows is None else probe.first(done.began, done.shows)
        lasted = done.ended - done.began
        if done.detected is not None:
            line.detected.append(round(done.detected, 2))
        elif shown is not None and shown <= lasted + 1:
            line.detected.append(round(shown, 2))
        elif done.must_show and lasted >= SHOWN_S and probe.asked(done.began, done.ended):
            found.add("I8", f"{done.step.fault}, {lasted:.0f} s from {done.step.at} s on: `status` never showed it")
    return sorted(lines.values(), key=lambda line: list(FAULTS | ROOMS).index(line.fault))


def _settle(stage: Stage, converges: float, report: Report, found: Findings, tell: Callable[[str], None]) -> set[str]:
    """I6: the workers, whom nobody helps, bring every metric up to date. Answers those that are not."""
    with stage.connect() as conn:
        _commit_prepared(conn, "%")
        started = time.monotonic()
        while True:
            behind = conn.execute(
                "SELECT b.projection, b.state, u.events, b.error FROM refold.builds_now AS b"
                " CROSS JOIN LATERAL refold.unread(b.done, b.target, b.progress_txid, b.progress_position) AS u"
                " JOIN refold.deployments AS d USING (deployment)"
                " WHERE b.state = 'live' AND (u.events > 0 OR b.target IS NOT NULL)"
                "    OR b.state = 'building' AND d.promote"
            ).fetchall()
            if not behind:
                report.converged = round(time.monotonic() - started, 2)
                tell(f"up to date after {report.converged:.1f} s")
                return set()
            if time.monotonic() - started > converges:
                found.add("I6", f"after {converges:.0f} s there is still to do: {behind}")
                return {projection for projection, *_ in behind}
            time.sleep(0.1)


def _rest(stage: Stage) -> None:
    """Waits until whoever heals has closed what the faults have opened, for some time at most."""
    end = time.monotonic() + CLOSES_S
    with stage.connect() as conn:
        while time.monotonic() < end and invariants.open_incidents(conn):
            time.sleep(0.5)


def _count(
    stage: Stage, stalled: set[str], converges: float, report: Report, found: Findings, tell: Callable[[str], None]
) -> None:
    """Everything is compared with the producers' files: before anything is healed, and after."""
    count = journal.read(sorted(stage.journals.glob("*.journal")))
    report.attempted, report.acknowledged = count.attempted, len(count.acknowledged)
    tell(f"{report.attempted:,} events attempted, {report.acknowledged:,} acknowledged; counting")
    names = invariants.live(stage)
    with stage.connect() as conn:
        erased.finish(stage, found)
        kept.finish(stage, found)
        report.restored, report.retained = stage.restored, len(stage.kept)
        report.erased = sum(one.done for one in stage.asked)
        conn.execute("SET search_path = refold, pg_catalog")
        report.purged_under_load, report.let_go = sum(stage.purged), len(stage.let_go)
        report.purged = archived.gather(conn, stage.archive, found)
        erased.forget(conn, stage.asked, count, found)
        events = invariants.check_log(conn, count, found, EVERYTHING)
        witnesses = [name for name in names if name not in EXPOSED]
        _count_purged(stage, conn, witnesses, events, stalled, report, found, "before reconcile")
        report.backfilled = len(stage.files), sum(len(file.names) for file in stage.files)
        backfilled.check(conn, stage.files, found, EVERYTHING)
        contracted.check(conn, count, stage.uncertain, found, EVERYTHING)
        report.archived = archived.check(conn, stage.archive, stage.damaged, events, found)
        canaries.check_left(conn, found, seconds=converges)
        # A base from which events are missing is found by an audit.
        if report.breaking is not None and found.violations.keys() - ({"I10"} if report.purged else set()):
            return
        # What was damaged of purged events nothing else can heal.
        first = stage.refold("reconcile", "--archive", "--json")
        if first.status not in (0, 1):
            found.add("I6", f"refold reconcile ended with {first.status}: {first.err[-500:]}")
        second = stage.refold("reconcile", "--json")
        if second.status != 0:
            found.add("I3", f"a second reconcile found drift again: {(second.out or second.err)[:1000]}")
        report.found = invariants.check_repairs(conn, found)
        invariants.check_bases(conn, stage.asked, found)
        invariants.check_dead_letters(conn, events, stalled, found)
        scrubbed = stage.refold("scrub", "--json")
        if scrubbed.status != 0:
            found.add("I5", f"refold scrub ended with {scrubbed.status}: {(scrubbed.out or scrubbed.err)[:1000]}")
        receivers.check(stage, conn, found, seconds=DELIVERED_S)
        _archive_the_rest(stage, conn, found)
        erased.check(stage, conn, found)
        report.archived = archived.check(conn, stage.archive, set(), events, found)
        canaries.check(stage, conn, events, found, seconds=CLOSES_S)
        report.explained = explained.check(stage, found)
        invariants.check_incidents(conn, found, seconds=CLOSES_S)
        after = Findings()
        _count_purged(stage, conn, names, events, stalled, report, after, "after reconcile")
        report.left = sum(len(told) for told in after.violations.values())
        for invariant, told in after.violations.items():
            for one in told:
                found.add(invariant, one)


def _count_purged(
    stage: Stage,
    conn: psycopg.Connection,
    names: list[str],
    events: list[Event],
    stalled: set[str],
    report: Report,
    found: Findings,
    when: str,
) -> None:
    """Metrics are compared with all events; where some have left the log, that is I15, too."""
    off = Findings()
    invariants.check_metrics(conn, names, events, stalled, off, when, stage.kept)
    found.lost, found.double = found.lost + off.lost, found.double + off.double
    for invariant, told in off.violations.items():
        for one in told:
            found.add(invariant, one)
            if report.purged:
                found.add("I15", one)


def _archive_the_rest(stage: Stage, conn: psycopg.Connection, found: Findings) -> None:
    """All sealed segments have a file, and all files are what was written."""
    stage.seal()
    looked = stage.refold("archive", "verify", "--deep", "--json")
    if looked.status not in (0, 1):
        found.add("I11", f"refold archive verify --deep ended with {looked.status}: {looked.err[-500:]}")
    for attempt in range(2):
        ran = stage.refold("archive", "run", "--now", "--json")
        if ran.status == 0:
            break
        if attempt or not take_lease(conn):
            found.add("I11", f"refold archive run ended with {ran.status}: {ran.err[-500:]}")
    again = stage.refold("archive", "verify", "--deep", "--json")
    if again.status != 0:
        found.add("I11", f"refold archive verify --deep ended with {again.status}: {(again.out or again.err)[-500:]}")
    row = conn.execute(
        "SELECT count(*) FROM refold.segments AS g"
        " WHERE (g.upper_position - 1) >> 14 <="
        "       (SELECT max(slice) FROM refold.sealed_slices WHERE sealed_at IS NOT NULL)"
        "   AND NOT EXISTS (SELECT FROM refold.archives AS a"
        "                   WHERE a.lower_position = g.lower_position AND a.state = 'verified')"
    ).fetchone()
    if row != (0,):
        found.add("I11", f"{row} sealed segments have no verified file")


def _time_healing(stage: Stage, happened: list[Injected], report: Report) -> None:
    """How long what was tampered with stood wrong: until it was found and healed, which is one transaction."""
    tampered = next((line for line in report.faults if line.fault == "tampered"), None)
    if tampered is None:
        return
    # That everything was applied says nothing of rows that were changed behind it.
    tampered.recovered.clear()
    with stage.connect() as conn:
        for done in happened:
            if done.drift:
                row = conn.execute(
                    "SELECT extract(epoch FROM min(repaired_at) - %(began)s)::float8 FROM refold.repairs"
                    " WHERE projection = %(name)s AND repaired_at > %(began)s",
                    {"began": done.clock, "name": done.step.parameters["projection"]},
                ).fetchone()
                if row is not None and row[0] is not None:
                    tampered.detected.append(round(row[0], 2))
                    tampered.recovered.append(round(row[0], 2))
