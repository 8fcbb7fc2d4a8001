"""`refold scrub`: verify that the log is unchanged since it was written."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import psycopg
import typer

from refold.cli.app import DRIFT, TRUST, app
from refold.cli.bars import progress
from refold.cli.command_group import CommandGroup
from refold.cli.output import as_json, line, note, table
from refold.cli.session import AsJson, DatabaseUrl, session
from refold.errors import InputError
from refold.prose import counted
from refold.suggest import did_you_mean

if TYPE_CHECKING:
    from refold.store.log.integrity import Damage

if TYPE_CHECKING:
    from refold.engine.scrub.accept import Accepted
    from refold.engine.scrub.scrub import Scrubbed

SHOWN = 50
"""Most faults that are printed; --json gives more."""

group = CommandGroup(invoke_without_command=True)
app.add_typer(group, name="scrub", rich_help_panel=TRUST)


@group.callback()
def scrub(ctx: typer.Context, json: AsJson = False, database_url: DatabaseUrl = None) -> None:
    """Verify the log: every event against the ledger, and full slices against their sealed checksums.

    The command also compares the cold ledger, which has the ids of purged events, with its checksums.

    The command names every event that was changed, lost or added outside of refold. Damage is an incident (log_damage)
    until the events are restored. Until then refold heals no metric from the damaged segment. Restore the events from
    a backup, or accept the loss with `refold scrub accept`. Workers verify the log too, portion by portion.

    Before that, the command seals slices: 16,384 positions that are full and closed to writers. It stores a checksum
    of each, and later scrubs compare the slice with that checksum.

    Exit status: 0 the log is intact, 1 it is damaged, 2 it could not be verified.

    \b
    Examples:
      refold scrub
      refold scrub --json
      refold scrub accept refold.events_000000000000001 --dry-run
    """
    from refold.engine.scrub.scrub import scrub as verify
    from refold.store.log.seal import seal

    if ctx.invoked_subcommand is not None:
        return
    from refold.store import archives
    from refold.store.log.cold_ledger import TABLE

    with session(database_url) as conn, progress() as bars:
        seal(conn)
        task = bars.add_task("verifying", total=None, note="")
        found = verify(conn, progress=lambda done, total: bars.update(task, completed=done, total=total))
        damaged = {one.segment for one in found.damage}
        archived = sorted(damaged & {TABLE, *(one.segment for one in archives.proved_ones(conn))})
    if json:
        as_json(asdict(found) | {"damage": [asdict(one) for one in found.damage], "archived": archived})
    else:
        _show(found, archived)
    if found.damage:
        raise typer.Exit(DRIFT)


@group.command()
def accept(
    segment: Annotated[str, typer.Argument(metavar="SEGMENT", help="Segment, as `refold scrub` names it.")],
    reason: Annotated[
        str | None, typer.Option("--reason", metavar="TEXT", help="Reason; recorded permanently.", show_default=False)
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List what would be accepted; change nothing.")] = False,
    json: AsJson = False,
    database_url: DatabaseUrl = None,
) -> None:
    """Accept the damage of a segment: its present content becomes valid.

    refold.acceptances records user, time, reason and the damage. The ledger keeps the ids of missing events, so an
    event that is sent again is refused as a conflict. The ledger adopts the content of changed events and the ids of
    unknown ones, and refold computes the sealed checksums again. Metrics are then healed to match the log: within a
    minute where events were added or lost, by `refold reconcile` where their content changed.

    The login must be allowed to act as refold_owner.

    \b
    Examples:
      refold scrub accept refold.events_000000000000001 --dry-run
      refold scrub accept refold.events_000000000000001 --reason "disk 3"
    """
    from refold.engine.scrub.accept import accept as accept_damage
    from refold.engine.scrub.accept import would_accept

    if not dry_run and not (reason or "").strip():
        raise InputError(
            "--reason is missing: accepting damage cannot be undone",
            remedy='Give a reason (--reason "…"), or list the damage first (--dry-run).',
        )
    with session(database_url, acts=True) as conn:
        name = _known(conn, segment)
        found = would_accept(conn, name) if dry_run else accept_damage(conn, name, (reason or "").strip())
    if json:
        as_json(asdict(found))
    else:
        _show_accepted(found, dry_run=dry_run)


def _known(conn: psycopg.Connection, name: str) -> str:
    """Return the full name of a segment given with or without its schema."""
    from refold.engine.scrub.accept import damaged as damaged_segments
    from refold.store.log.seal import segments

    open_ones = damaged_segments(conn)
    names = [*open_ones, *(one.name for one in segments(conn) if one.name not in open_ones)]
    for one in (name, f"refold.{name}"):
        if one in names:
            return one
    raise InputError(
        f"the log has no segment {name}.{did_you_mean(name, names)}",
        remedy=f"Damaged segments: {', '.join(open_ones) or 'none known; run `refold scrub`'}.",
    )


def _show_accepted(found: Accepted, *, dry_run: bool) -> None:
    if not found.damage:
        line(f"{found.segment} is intact: there is nothing to accept")
        return
    done = "would be accepted (--dry-run)" if dry_run else "accepted; refold.acceptances records it"
    parts = [
        f"{counted(number, 'event')} {fault}"
        for number, fault in ((found.missing, "missing"), (found.changed, "changed"), (found.unknown, "unknown"))
        if number
    ]
    line(f"{found.segment}: {', '.join(parts) or counted(len(found.slices), 'sealed checksum')} {done}")
    _table(found.damage)
    if not dry_run:
        note("Run `refold reconcile` to heal the metrics.")


def _show(found: Scrubbed, archived: list[str]) -> None:
    checked = f"{found.events:,} events in {found.segments:,} segments, {found.sealed:,} of the events sealed"
    if found.purged:
        checked += f"; and the checksums of {counted(found.purged, 'purged event')}"
    if not found.damage:
        line(f"the log is intact: {checked}")
        return
    line(
        f"damaged: {counted(len(found.damage), 'fault')} in {checked}. refold heals nothing from them: restore the "
        "events from a backup, or run `refold scrub accept SEGMENT --reason …`."
    )
    _table(found.damage)
    if archived:
        note(
            f"The archive has them: `refold archive restore {archived[0]}`"
            + (f", and {', '.join(archived[1:])}" if archived[1:] else "")
        )


def _table(damage: list[Damage]) -> None:
    table(
        ("SEGMENT", "FAULT", "EVENT", "POSITION", ""),
        [(one.segment, one.fault, one.event_id, one.position, one.detail) for one in damage[:SHOWN]],
        right=("POSITION",),
    )
    if len(damage) > SHOWN:
        note(f"showing the first {SHOWN} of {len(damage):,}; --json lists more")
