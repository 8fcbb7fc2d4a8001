"""`refold diff`: how two builds of a metric differ."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated

import typer

from refold.cli.app import DRIFT, METRICS, app
from refold.cli.output import as_json, line, note, table
from refold.cli.session import EVIDENCE, AsJson, DatabaseUrl, Projections, folder, session
from refold.prose import counted

if TYPE_CHECKING:
    from refold.engine.diff.result import Diff, OneSided, Sample

NULL = "NULL"


@app.command(rich_help_panel=METRICS)
def diff(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A live projection.")],
    build: Annotated[
        int | None,
        typer.Option(
            "--build", metavar="N", help="Number of the build to compare. Default: the one that waits to go live."
        ),
    ] = None,
    sample: Annotated[int, typer.Option("--sample", min=0, help="Most rows of each kind to show.")] = 20,
    events: Annotated[
        bool, typer.Option("--events", help="For the rows shown, name the events that only one build used.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Agree to --events that read many events.")] = False,
    projections: Projections = None,
    json: AsJson = False,
    database_url: DatabaseUrl = None,
) -> None:
    """Compare the live build of a metric with the build that waits to go live.

    The command counts, in one snapshot, the rows that are identical, modified, added and removed, and says for each
    column in how many rows it differs. All counts are exact. It does not read slices whose checksums agree in both
    builds; there, rows count as refold wrote them, and `refold reconcile` finds rows that were changed by hand. A key
    is in flight if it differs and one build has applied events of it that the other has not reached yet.

    Exit status: 0 the builds are the same, 1 they differ, 2 an error. Keys in flight do not count.

    \b
    Examples:
      refold deploy --no-promote && refold diff event_counts
      refold diff event_counts --events --sample 5
      refold diff event_counts --build 3        a retired build
      refold diff event_counts --json
    """
    from refold.engine.diff.diff import diff as compared
    from refold.inspect.lineage.cost import Bound
    from refold.inspect.lineage.one_sided import diff_with_events
    from refold.store.builds.compiled import Compiler

    with session(database_url, EVIDENCE) as conn:
        compiler = Compiler(folder(projections, quiet=True))
        if events:
            found = diff_with_events(conn, compiler, name, number=build, samples=sample, bound=Bound(agreed=yes))
        else:
            found = compared(conn, compiler, name, number=build, samples=sample)
    if json:
        as_json(found.as_dict())
    else:
        show(found)
    if not found.same:
        raise typer.Exit(DRIFT)


def show(found: Diff) -> None:
    """Print a difference."""
    line(
        f"{found.metric}: {found.before.table} ({found.before.state}) against {found.after.table}"
        f" ({found.after.state})",
        "bold",
    )
    for told in _shape(found):
        line(told)
    line(_rows(found))
    for remark in _remarks(found):
        line(remark)
    if found.columns:
        line()
        table(
            ("COLUMN", "ROWS THAT DIFFER", "SUM OF DIFFERENCES", "GREATEST"),
            [(one.name, one.rows, _signed(one.sum), _number(one.most)) for one in found.columns],
            right=("ROWS THAT DIFFER", "SUM OF DIFFERENCES", "GREATEST"),
        )
    if found.samples:
        line()
        _show_samples(found)
    line()
    if found.same:
        line("The same." if not found.rows.in_flight else "The same, apart from keys in flight.")
    else:
        line("They differ.", "bold red")


def _shape(found: Diff) -> Iterator[str]:
    shape = found.shape
    if not shape.comparable:
        yield f"key: {', '.join(shape.key_before)} → {', '.join(shape.key_after)}; rows cannot be compared"
    for title, columns in (("added", shape.added), ("removed", shape.removed)):
        if columns:
            yield f"columns {title}: {', '.join(f'{name} {kind}' for name, kind in columns)}"
    for one in shape.retyped:
        yield f"column {one.name}: {one.before} → {one.after}"


def _rows(found: Diff) -> str:
    rows, slices = found.rows, found.slices
    unread = ""
    if slices.equal:
        unread = (
            f", and {counted(slices.rows, 'row')} not read, in {counted(slices.equal, 'slice')} with equal checksums"
        )
    return (
        f"rows: {rows.identical:,} identical{unread}; {rows.modified:,} modified, {rows.added:,} added,"
        f" {rows.removed:,} removed, {rows.in_flight:,} in flight"
    )


def _remarks(found: Diff) -> Iterator[str]:
    if found.kept_from is not None:
        yield f"compared from {found.kept_from} on: one of the builds does not keep earlier rows"
    if found.slices.first is not None:
        # Names of slices have a "to" of their own: positions 0 to 16,383.
        if found.slices.last == found.slices.first:
            yield f"slice that differs: {found.slices.first}"
        else:
            yield f"slices that differ: the first is {found.slices.first}, the last {found.slices.last}"
    for side in (found.before, found.after):
        if side.dead_letters:
            yield f"{side.table} leaves out {counted(side.dead_letters, 'dead letter')}."


def _show_samples(found: Diff) -> None:
    shown: dict[str, int] = {}
    for one in found.samples:
        shown[one.kind] = shown.get(one.kind, 0) + 1
    totals = {
        "modified": found.rows.modified,
        "added": found.rows.added,
        "removed": found.rows.removed,
        "in flight": found.rows.in_flight,
    }
    for kind, number in shown.items():
        if number < totals[kind]:
            note(f"{number:,} of {totals[kind]:,} {kind}; --sample shows more")
    cells: list[tuple[object, ...]] = []
    for one in found.samples:
        key = "  ".join(f"{name}={NULL if value is None else value}" for name, value in one.key.items())
        cells.append((one.kind, key, _changes(one)))
        if one.events is not None:
            cells += [("", "", told) for told in _events(one.events)]
    table(("ROW", "KEY", "LIVE → OTHER"), cells)


def _changes(one: Sample) -> str:
    if one.before is None or one.after is None:
        row = one.before or one.after or {}
        told = "  ".join(
            f"{name}={NULL if value is None else value}" for name, value in row.items() if name not in one.key
        )
        # Rows that were added or removed say by their kind which build has them; rows in flight do not.
        side = "" if one.kind != "in flight" else "only live: " if one.after is None else "only the other: "
        return side + (told or "the key alone")
    pairs = [
        f"{name} {NULL if old is None else old} → {NULL if new is None else new}"
        for name, old, new in one.changes()
        if name in one.before and name in one.after
    ]
    return "  ".join(pairs) or "equal in the columns that can be compared"


def _events(events: OneSided) -> Iterator[str]:
    of = " of the log, beside those that were purged" if events.purged else ""
    if not events.before and not events.after:
        yield f"both builds used the same {counted(events.both, 'event')}{of}"
        return
    yield f"both used {counted(events.both, 'event')}{of}"
    for title, number, ids in (
        ("only the live build", events.before, events.before_ids),
        ("only the other build", events.after, events.after_ids),
    ):
        if number:
            named = ", ".join("one that is not in the log any more" if one is None else one for one in ids)
            yield f"{title} used {counted(number, 'event')}: {named}{', …' if len(ids) < number else ''}"


def _signed(value: Decimal | None) -> str:
    return "" if value is None else f"{value:+f}"


def _number(value: Decimal | None) -> str:
    return "" if value is None else f"{value:f}"
