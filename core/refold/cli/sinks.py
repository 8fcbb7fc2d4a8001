"""`refold sinks`: list, show, pause, resume, replay, skip, test, claim and drop sinks; what receivers refused."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from refold.cli.app import DATA, app
from refold.cli.builds import DryRun
from refold.cli.command_group import CommandGroup
from refold.cli.output import as_json, line, note, table
from refold.cli.session import READERS, AsJson, DatabaseUrl, session
from refold.cli.sink_skip import Name, skip
from refold.errors import InputError
from refold.inspect.sinks import SinkStatus, sink_statuses
from refold.model.sink import state as steps
from refold.model.stream.cursor import EMPTY, Cursor
from refold.prose import counted
from refold.sinks.refused import give_again
from refold.store import sinks as store
from refold.store import undelivered as letters

sinks = CommandGroup(
    no_args_is_help=True,
    help="List, pause, resume, replay, skip, test and drop sinks, which deliver metrics to receivers.",
)
app.add_typer(sinks, name="sinks", rich_help_panel=DATA)


@sinks.command("list")
def list_(json: AsJson = False, database_url: DatabaseUrl = None) -> None:
    """List sinks with their state, and what waits for them.

    \b
    Examples:
      refold sinks list
      refold sinks list --json
    """
    with session(database_url, READERS) as conn:
        store.insist_on_tables(conn)
        found = sink_statuses(conn)
    if json:
        as_json([one.as_dict() for one in found])
        return
    if not found:
        note("no sink: write sinks/NAME.toml, and run `refold deploy`")
        return
    table(
        ("SINK", "DELIVERS", "TO", "STATE", "WAITING", "REFUSED", "DELIVERED"),
        [
            (one.sink, f"{one.grain} of {one.projection}", one.kind, one.state, one.waiting or None,
             one.undelivered or None, one.delivered)
            for one in found
        ],
        right=("WAITING", "REFUSED", "DELIVERED"),
    )  # fmt: skip
    for one in found:
        if one.error:
            note(f"{one.sink}: {one.error}")


@sinks.command()
def show(name: Name, json: AsJson = False, database_url: DatabaseUrl = None) -> None:
    """Show one sink: its circuit, what waits, what the receiver said, and its file.

    \b
    Examples:
      refold sinks show crm
    """
    with session(database_url, READERS) as conn:
        sink = store.known(conn, name)
        one = next(status for status in sink_statuses(conn) if status.sink == name)
    if json:
        as_json(one.as_dict() | {"definition": sink.definition})
        return
    for label, value in _told(one):
        line(f"{label:<12} {value}")


@sinks.command()
def pause(name: Name, json: AsJson = False, database_url: DatabaseUrl = None) -> None:
    """Pause a sink. Its messages wait; if they become too many, it compares slices when it is resumed.

    \b
    Examples:
      refold sinks pause crm
    """
    _step(name, "paused", steps.paused, database_url, json)


@sinks.command()
def resume(name: Name, json: AsJson = False, database_url: DatabaseUrl = None) -> None:
    """Resume a sink that is paused or stopped, or try one at once whose receiver fails.

    \b
    Examples:
      refold sinks resume crm
    """
    _step(name, "active", steps.resumed, database_url, json)


@sinks.command()
def claim(name: Name, json: AsJson = False, database_url: DatabaseUrl = None) -> None:
    """Claim a receiver for this database: after a restore, or when a copy of the database has delivered to it.

    The sink is resumed, and gives the receiver all slices again. One that gives rows once goes on where it was.

    \b
    Examples:
      refold sinks claim crm
    """
    from refold.sinks.receiver import ANY

    with session(database_url, acts=True) as conn, conn.transaction():
        sink = store.known(conn, name)
        store.step(
            conn,
            sink.sink_id,
            lambda now, at: steps.claimed(steps.switched(now, now.build_id, store.epoch_at(at), once=sink.once), ANY),
        )
        if not sink.once:
            store.forget_checksums(conn, sink.sink_id)
    _tell(name, "active", json)


@sinks.command()
def replay(
    name: Name,
    slice_: Annotated[
        list[int] | None, typer.Option("--slice", metavar="NUMBER", help="Only these slices. Default: all.")
    ] = None,
    json: AsJson = False,
    database_url: DatabaseUrl = None,
) -> None:
    """Give the receiver all rows again, or those of some slices.

    A sink of grain events that gives rows once reads its stream from the start again.

    \b
    Examples:
      refold sinks replay crm
      refold sinks replay crm --slice 20421
    """
    with session(database_url, acts=True) as conn, conn.transaction():
        sink = store.known(conn, name)
        from_the_start = sink.once and not slice_

        def again(now: steps.SinkState, _: object) -> steps.SinkState:
            new = steps.collapsed(now)
            return steps.at_cursor(new, Cursor(EMPTY)) if from_the_start else new

        store.step(conn, sink.sink_id, again)
        if slice_:
            store.confirm(conn, sink.sink_id, [(one, None, None) for one in slice_])
        else:
            store.forget_checksums(conn, sink.sink_id)
    _tell(name, "reading from the start" if from_the_start else "comparing slices", json)


sinks.command()(skip)


@sinks.command()
def undelivered(
    name: Name,
    retry: Annotated[bool, typer.Option("--retry", help="Deliver them again.")] = False,
    drop: Annotated[bool, typer.Option("--drop", help="Drop them; needs --reason.")] = False,
    reason: Annotated[str | None, typer.Option("--reason", metavar="TEXT", help="Why they are dropped.")] = None,
    json: AsJson = False,
    database_url: DatabaseUrl = None,
) -> None:
    """List rows that the receiver refused; deliver them again, or drop them.

    A row that changes is delivered again by itself.

    \b
    Examples:
      refold sinks undelivered crm
      refold sinks undelivered crm --retry
      refold sinks undelivered crm --drop --reason "deleted there"
    """
    if drop and (retry or not reason):
        raise InputError("--drop needs --reason, and cannot be combined with --retry")
    with session(database_url, acts=retry or drop) as conn:
        sink = store.known(conn, name)
        found = letters.every(conn, sink.sink_id)
        done = 0
        if retry:
            done = give_again(conn, sink.sink_id)
        elif drop:
            done = letters.drop(conn, sink.sink_id, reason or "")
    if json:
        as_json(
            [
                {"key": one.key, "attempts": one.attempts, "status": one.status, "error": one.error,
                 "first_failed_at": one.first_failed_at, "last_failed_at": one.last_failed_at}
                for one in found
            ]
        )  # fmt: skip
        return
    if retry or drop:
        line(f"{name}: {counted(done, 'row')} {'will be delivered again' if retry else 'dropped'}")
        return
    if not found:
        note(f"{name}: the receiver refused no row")
        return
    table(
        ("KEY", "ATTEMPTS", "STATUS", "ERROR"),
        [(one.key, one.attempts, one.status, one.error) for one in found],
        right=("ATTEMPTS",),
    )


@sinks.command()
def test(name: Name, json: AsJson = False, database_url: DatabaseUrl = None) -> None:
    """Reach the receiver once, from this machine, without delivering a row.

    \b
    Examples:
      refold sinks test crm
    """
    from refold.sinks.trial import ping

    with session(database_url) as conn:
        said = ping(conn, store.known(conn, name))
    if json:
        as_json({"sink": name, "answer": said})
    else:
        line(f"{name}: {said}")


@sinks.command()
def drop(name: Name, dry_run: DryRun = False, json: AsJson = False, database_url: DatabaseUrl = None) -> None:
    """Drop a sink and its queue. What the receiver has stays there.

    \b
    Examples:
      refold sinks drop crm --dry-run
    """
    from refold.sinks import deploy

    with session(database_url, acts=True) as conn:
        sink = store.known(conn, name)
        if not dry_run:
            deploy.drop(conn, sink)
    if json:
        as_json({"sink": name, "dropped": not dry_run})
        return
    line(f"{'would drop' if dry_run else 'dropped'} the sink {name} and its queue; the receiver keeps its rows")
    path = Path("sinks") / f"{name}.toml"
    if not dry_run and path.exists():
        note(f"{path} still defines it: remove the file too, or the next `refold deploy` creates the sink again")


def _step(name: str, word: str, to: object, url: str | None, json: bool) -> None:
    with session(url, acts=True) as conn, conn.transaction():
        sink = store.known(conn, name)
        store.step(conn, sink.sink_id, lambda now, _: to(now))  # type: ignore[operator]
    _tell(name, word, json)


def _tell(name: str, word: str, json: bool) -> None:
    if json:
        as_json({"sink": name, "state": word})
    else:
        line(f"{name}: {word}")


def _told(one: SinkStatus) -> list[tuple[str, str]]:
    rows = [
        ("delivers", f"{one.grain} of {one.projection} to {one.kind}"),
        ("state", one.state),
        (
            "delivered",
            f"{one.delivered:,} rows"
            + (f", last {one.delivered_at:%Y-%m-%d %H:%M:%S} UTC" if one.delivered_at else ""),
        ),
    ]
    if one.messages is not None:
        age = "" if one.oldest_s is None else f", the oldest {one.oldest_s:.0f} s old"
        rows.append(("waiting", f"{one.waiting or 'nothing'}{age}"))
    if one.failures and one.failing_since and one.retry_at:
        rows.append(("failing", f"since {one.failing_since:%H:%M:%S} UTC, {counted(one.failures, 'failure')};"
                     f" next attempt {one.retry_at:%H:%M:%S} UTC"))  # fmt: skip
    if one.error:
        rows.append(("receiver", one.error))
    if one.undelivered:
        rows.append(("refused", f"{counted(one.undelivered, 'row')} (`refold sinks undelivered {one.sink}`)"))
    return rows
