"""`refold status`: the progress of each metric, and what blocks it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import psycopg
import typer

from refold.cli.app import FOUND, TRUST, app
from refold.cli.output import as_json, line, out, table
from refold.cli.session import READERS, AsJson, DatabaseUrl, session
from refold.errors import InputError
from refold.postgres.standby import Standby
from refold.prose import counted, duration
from refold.store.log.blocking_transactions import BlockingTransaction

if TYPE_CHECKING:
    from refold.inspect.archive import ArchiveStatus
    from refold.inspect.sinks import SinkStatus
    from refold.inspect.status import BackfillStatus, BuildStatus, Status
    from refold.store.captures import Gaps

OLD = 1.0
"""Seconds after which status shows an open transaction."""
NAMED = 3
"""Most metrics that one line names; the table lists all."""


@app.command(rich_help_panel=TRUST)
def status(
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Refresh until Ctrl-C.")] = False,
    every: Annotated[
        float, typer.Option("--every", min=0.1, metavar="SECONDS", help="Refresh interval of --watch.")
    ] = 2.0,
    exit_code: Annotated[
        bool, typer.Option("--exit-code", help="Exit with 1 if there is such a problem. Not with --watch.")
    ] = False,
    json: AsJson = False,
    database_url: DatabaseUrl = None,
) -> None:
    """Show every build with its state, lag and rate; the log; and transactions that block events.

    Problems come first: open incidents, metrics that fail, lag beyond refold.settings.lag_limit, excluded events,
    idle workers. The command checks the database itself, so it also works where no worker runs. With --exit-code,
    any of these problems makes the exit status 1. Excluded events alone do not; their open incident does.

    LAG is the number of events not applied yet; refold counts up to 100, and ~ marks an estimate. BEHIND is the age
    of the oldest such event. RATE is events per second while pages were applied; with --watch, since the last refresh.
    PROVED is when an audit last found the metric, and all that it reads, as they must be; --json also says when a deep
    audit did.

    \b
    Examples:
      refold status
      refold status --watch
      refold status --json
      refold status --exit-code > /dev/null || send-alert
    """
    from refold.inspect.status import read

    if watch and exit_code:
        raise InputError("--watch and --exit-code exclude each other", remedy="Omit one of them.")
    with session(database_url, READERS) as conn:
        if watch:
            _watch(conn, every, json=json)
            return
        now = read(conn)
    _print(now, json=json)
    if exit_code and now.alarming:
        raise typer.Exit(FOUND)


def _watch(conn: psycopg.Connection, every: float, *, json: bool) -> None:
    from refold.inspect.status import read

    before = read(conn)
    while True:
        time.sleep(every)
        now = read(conn)
        if out.is_terminal and not json:
            out.clear()
        _print(now.since(before), json=json)
        before = now


def _print(now: Status, *, json: bool) -> None:
    if json:
        as_json(now.as_dict())
    else:
        show(now)


def show(now: Status) -> None:
    """Print a status as text: problems, builds, the log and the workers."""
    if now.standby is not None:
        line(f"standby   {_standby(now.standby)}", "yellow")
    alarms = _alarms(now)
    for text, style in alarms:
        line(text, style)
    if alarms or now.standby is not None:
        line()
    if now.builds:
        table(
            ("PROJECTION", "TABLE", "STATE", "UPKEEP", "READS", "LAG", "BEHIND", "PROVED", "APPLIED", "RATE", "VIEWS"),
            [_build(build) for build in now.builds],
            right=("LAG", "BEHIND", "PROVED", "APPLIED", "RATE"),
            spare=("VIEWS", "UPKEEP", "READS", "RATE", "APPLIED", "TABLE"),
        )
    else:
        line("no metrics yet: `refold deploy` creates them")
    line()
    about = "" if now.events_exact else "about "
    line(f"log       {about}{now.events:,} events, {now.segments} segments, {now.segments_ahead} of them prepared")
    if now.archive is not None:
        line(f"archive   {_archive(now.archive)}", "" if now.archive.claimed else "yellow")
    kept = [f"{one.projection} from {one.kept_from}" for one in now.builds if one.state == "live" and one.kept_from]
    if kept:
        more = f" and {len(kept) - NAMED} more" if len(kept) > NAMED else ""
        line(f"kept      {', '.join(kept[:NAMED])}{more} (`refold retain` lists them)")
    line(f"workers   {_workers(now)}")
    for backfill in now.backfills:
        line(f"backfill  {_backfill(backfill)}", "yellow" if backfill.state in ("paused", "interrupted") else "")
    for number, step in now.erasures.items():
        line(f"erasure   {number} is not finished: {_erasure(step)}", "yellow")
    if now.rejected:
        counts = ", ".join(f"{_counted(count)} {answer}" for answer, count in now.rejected.items())
        line(f"rejected  {counts} (`refold rejected` lists them)")
    for one in now.sessions:
        if one.seconds is None or one.seconds >= OLD:
            line(f"blocked   by session {_holder(one)}; its events become visible when it commits", "yellow")
    for one in now.prepared:
        line(f"blocked   by prepared transaction {_holder(one)}; COMMIT or ROLLBACK PREPARED ends it", "yellow")


def _erasure(step: str) -> str:
    if step == "log":
        return "the log has the person still; `refold erase USER` goes on, and workers that may act as refold_owner"
    return f"the log does not have the person any more; workers go on with the {step}"


def _archive(archive: ArchiveStatus) -> str:
    told = f"{archive.words}, in {archive.location}"
    if not archive.claimed:
        return f"{told}; this database does not own it: `refold archive claim`"
    if archive.failures:
        return f"{told}; {counted(archive.failures, 'attempt')} failed{f': {archive.error}' if archive.error else ''}"
    return told


def _alarms(now: Status) -> list[tuple[str, str]]:
    """Return the problems: text and colour."""
    from refold.model.pressure import Level

    told = []
    if now.incidents:
        counts = ", ".join(f"{count:,} {kind}" for kind, count in now.incidents.items())
        told.append((f"incidents {counts} open (`refold incidents --open` has the evidence)", "red"))
    told += [(f"failing   {build.table}: {build.error}", "red") for build in now.builds if build.error]
    told += [
        (f"hidden    metrics.{name} is missing or was replaced: `refold deploy` recreates it", "red")
        for name in now.hidden
    ]
    told += [
        (
            f"refused   {build.table} is not promoted: {build.refused.rstrip('.')}."
            f" Then run `refold promote {build.projection}`.",
            "yellow",
        )
        for build in now.builds
        if build.refused
    ]
    if now.idle:
        since = duration(now.duties_seconds or 0.0)
        told.append((f"frozen    {now.workers} workers connected, but none has started a duty for {since}", "red"))
    if now.late:
        worst = sorted(now.late, key=lambda build: -(build.lag_seconds or 0.0))
        names = ", ".join(f"{build.projection} ({duration(build.lag_seconds or 0.0)})" for build in worst[:NAMED])
        more = f" and {len(worst) - NAMED} more" if len(worst) > NAMED else ""
        told.append((f"behind    by more than {now.lag_limit} s: {names}{more}", "red"))
    if now.pressure.level is not Level.fine:
        held = "producers are refused" if now.pressure.level is Level.stop else "bulk waits"
        unknown = "" if now.pressure.known else "; no worker measures it now"
        told.append((f"pressure  {held}: {now.pressure.because}{unknown}", "yellow"))
    told += [(_gap(name, gaps), "yellow") for name, gaps in now.gaps.items()]
    told += [(_sink(sink, now), "yellow") for sink in now.sinks if sink.troubled]
    for build in now.builds:
        if build.dead_letters:
            events = "event" if build.dead_letters == 1 else "events"
            by = build.projection if build.state == "live" else f"a build of {build.projection} that is not live"
            text = f"excluded  {build.dead_letters:,} {events} by {by} (`refold deadletters list`)"
            told.append((text, "yellow"))
    return told


def _sink(sink: SinkStatus, now: Status) -> str:
    what = f"sink      {sink.sink}: {sink.grain} of {sink.projection} → {sink.kind}, {sink.state}"
    if sink.condition != "active":
        return f"{what} (`refold sinks show {sink.sink}`)"
    if sink.failing_since is not None and sink.retry_at is not None:
        wait = max(0.0, (sink.retry_at - now.at).total_seconds())
        return f"{what} since {sink.failing_since:%H:%M} UTC, next attempt in {duration(wait)}"
    return f"{what}, {counted(sink.undelivered, 'row')} refused (`refold sinks undelivered {sink.sink}`)"


def _gap(name: str, gaps: Gaps) -> str:
    from refold.store.captures import COUNTED

    more = "at least " if gaps.statements >= COUNTED else ""
    statements = f"{more}{counted(gaps.statements, 'statement')} made no events"
    if not gaps.paused:
        return f"gap       the capture {name}: {statements} (`refold captures backfill {name}` closes the gap)"
    return (
        f"paused    the capture {name}, since {gaps.since:%Y-%m-%d %H:%M} UTC: {statements}"
        f" (`refold captures resume {name}`, then `refold captures backfill {name}`)"
    )


def _backfill(one: BackfillStatus) -> str:
    told = f"{one.name} is {one.state}"
    if one.mark or one.state == "running":
        told += f" behind {one.mark:,} of {counted(one.total, 'record')}"
    if one.per_second:
        told += f", {one.per_second:,.0f}/s, {duration((one.total - one.mark) / one.per_second)} left"
    if one.because:
        told += f": {one.because}"
    return told + (f" (`refold backfill resume {one.name}` goes on)" if one.state == "paused" else "")


def _standby(found: Standby) -> str:
    how = "" if found.connected else ", and is not connected to it"
    behind = f"is {duration(found.seconds)} behind its primary" if found.seconds else "has replayed all it received"
    return f"this server {behind}{how}; workers run on the primary"


def _workers(now: Status) -> str:
    if now.standby is not None:
        return "run on the primary"
    last = "" if now.duties_seconds is None else f", last duty {duration(now.duties_seconds)} ago"
    return f"{now.workers}{last}" if now.workers else "0 (`refold worker` starts one)"


def _counted(number: int) -> str:
    from refold.inspect.status import COUNTED

    return f"{number:,}" if number <= COUNTED else f"more than {COUNTED:,}"


def _holder(one: BlockingTransaction) -> str:
    age = "of unknown age" if one.seconds is None else f"open {duration(one.seconds)}"
    return f"{one.name} ({one.what or 'unnamed'}), {age}"


def _build(build: BuildStatus) -> tuple[object, ...]:
    return (
        build.projection,
        build.table,
        _state(build),
        build.upkeep,
        build.reads,
        build.lag_events if build.lag_exact is not False else f"~{build.lag_events:,}",
        None if build.lag_seconds is None else duration(build.lag_seconds),
        _proved(build),
        build.events_applied,
        None if build.rate is None else f"{build.rate:,.0f}/s",
        _views(build),
    )


def _proved(build: BuildStatus) -> str:
    """Return since when the metric is proved; of one whose view is another, or that is loading, nothing is known."""
    if build.proved_seconds is None or (build.state == "live" and not build.shown):
        return "not proved"
    return f"{duration(build.proved_seconds)} ago"


def _views(build: BuildStatus) -> str:
    """Return whether analysts see the build, and how many views read it; --json has their names."""
    if not build.shown:
        return ""
    return "itself" + (f" + {len(build.views)}" if build.views else "")


def _state(build: BuildStatus) -> str:
    if build.error:
        return f"{build.state}, failed"
    if build.loaded and build.refused:
        return "not promoted"
    if build.state != "live" and build.canary is not None:
        return f"canary, seen by {build.canary} % of readers"
    if build.loaded:
        return build.state if build.state == "live" or build.promotes else "ready to promote"
    steps = f"/{build.load_steps}" if build.load_steps else ""
    return f"loading, step {build.load_step + 1}{steps}"
