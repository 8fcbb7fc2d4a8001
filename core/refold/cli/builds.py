"""What the commands that change the live builds share: options, progress bars, and what they print."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import psycopg
import typer
from rich.progress import TaskID

from refold.cli.bars import progress
from refold.cli.output import line, note
from refold.store.schema.resources import projections_dir

if TYPE_CHECKING:
    from refold.engine.deployment.run import Progress
    from refold.engine.verify.silent import Silence
    from refold.store.builds.build import Build

DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the plan; change nothing.")]
NoPromote = Annotated[
    bool,
    typer.Option("--no-promote", help="Do not switch to the new builds; `refold promote` does that later."),
]
RecreateViews = Annotated[
    bool,
    typer.Option(
        "--recreate-views",
        help="If a metric's columns change, also drop and recreate dependent views outside the schema `metrics`.",
    ),
]


@contextmanager
def bars() -> Iterator[Callable[[Progress], None]]:
    """Show a progress bar for each build."""
    with progress() as shown:
        tasks: dict[int, TaskID] = {}

        def report(step: Progress) -> None:
            key = step.build.build_id
            if key not in tasks:
                tasks[key] = shown.add_task(step.build.projection, total=None, note="")
            total = max(step.total, step.events) if step.total else None
            shown.update(tasks[key], completed=step.events, total=total, note=step.stage)

        yield report


def tell_outcome(
    builds: Sequence[Build], *, promoted: bool, nothing: str, silent: Mapping[int, Silence] | None = None
) -> None:
    if not builds:
        line(nothing)
    for build in builds:
        found = (silent or {}).get(build.build_id)
        what = f"{'live' if promoted else 'built'}: {build.projection}"
        line(f"{what}, 0 rows: {found.why}" if found is not None and found.empty else f"{what}  ({build.table_name})")
        if found is not None and not found.empty:
            note(f"{build.projection}: {found.why}")
        if build.dead_letters:
            note(f"{build.projection} excludes {build.dead_letters:,}: `refold deadletters list {build.projection}`")
    if builds and not promoted:
        line("The builds are not live yet. `refold promote` switches to them.")


def tell_views(conn: psycopg.Connection, names: Sequence[str]) -> None:
    from refold.engine.publish.views import without_barrier

    if names:
        line(f"views: {', '.join(names)}")
    for name in without_barrier(conn, names):
        note(
            f"view {name} filters rows, but a reader can reveal them with a function in WHERE. To hide them: "
            "CREATE OR REPLACE VIEW … WITH (security_barrier) AS …"
        )


def tidy(conn: psycopg.Connection) -> None:
    """Drop tables that no rollback can use any more."""
    from refold.engine.publish.switch import drop_superseded

    try:
        drop_superseded(conn)
    except psycopg.errors.LockNotAvailable:
        note("a superseded table is still being read; the next deploy drops it")


def files_of(projections: Path, name: str) -> list[Path]:
    """Return the files that define a projection, in the user's own folder and the folders in it."""
    from refold.model.projection.definition import EXTENSIONS
    from refold.model.projection.files import files_named

    return [] if projections == projections_dir() else files_named(projections, name, *EXTENSIONS)


def build_as_dict(build: Build) -> dict[str, object]:
    return {"projection": build.projection, "table": build.table_name, "upkeep": build.upkeep}
