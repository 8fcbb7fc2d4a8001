"""`python -m benchmarks`: measures everything, or what is named, and says whether the goals are met."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import typer
from rich.console import Console

from benchmarks import (
    appending,
    applying,
    archiving,
    auditing,
    backfilling,
    building,
    capturing,
    delivering,
    diffing,
    exporting,
    exposing,
    freshness,
    held_snapshot,
    hot_key,
    loading,
    memory,
    polling,
    purging,
    receiving,
    serving,
    streaming,
    thawing,
    tracing,
    transforming,
    validating,
)
from benchmarks.report import Figure, as_json, show
from benchmarks.server import Server, serve

BENCHMARKS: dict[str, Callable[[Server, int], list[Figure]]] = {
    "appending": appending.measure,
    "applying": applying.measure,
    "archiving": archiving.measure,
    "auditing": auditing.measure,
    "backfilling": backfilling.measure,
    "building": building.measure,
    "capturing": capturing.measure,
    "delivering": delivering.measure,
    "diffing": diffing.measure,
    "exporting": exporting.measure,
    "exposing": exposing.measure,
    "loading": loading.measure,
    "polling": polling.measure,
    "purging": purging.measure,
    "serving": serving.measure,
    "streaming": streaming.measure,
    "thawing": thawing.measure,
    "tracing": tracing.measure,
    "transforming": transforming.measure,
    "validating": validating.measure,
    "hot_key": hot_key.measure,
    "freshness": freshness.measure,
    "receiving": receiving.measure,
    "memory": memory.measure,
    "held_snapshot": held_snapshot.measure,
}


def main(
    events: Annotated[int, typer.Option(min=20_000, help="Events to measure with.")] = 1_000_000,
    only: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help=f"Only this one (repeatable): {', '.join(BENCHMARKS)}.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print a JSON document instead of a table.")] = False,
    database_url: Annotated[
        str | None,
        typer.Option(metavar="URL", help="A server to measure on, as superuser; by default an embedded one."),
    ] = None,
) -> None:
    """Measure refold against hand-written SQL on the same server, one after the other in turns.

    Every benchmark has a database of its own, which is dropped afterwards. Run it on a machine that does nothing
    else: the ratios bear some disturbance, the times do not.
    """
    unknown = set(only or ()) - set(BENCHMARKS)
    if unknown:
        raise typer.BadParameter(f"no benchmark named {', '.join(sorted(unknown))}; there are {', '.join(BENCHMARKS)}")
    console = Console(stderr=json)
    if not console.is_terminal:
        # A pipe says nothing of its width, and the table needs room.
        console.width = 160
    figures: list[Figure] = []
    with serve(database_url) as server:
        environment = server.describe()
        console.print(", ".join(f"{name} {value}" for name, value in environment.items()), highlight=False)
        for name, measure in BENCHMARKS.items():
            if only and name not in only:
                continue
            with console.status(f"{name}, {events:,} events"):
                figures += measure(server, events)
    if json:
        print(as_json(environment, events, figures))
    else:
        show(console, figures)
    missed = sum(figure.met is False for figure in figures)
    if missed:
        console.print(f"{missed} of {sum(figure.met is not None for figure in figures)} goals missed")


if __name__ == "__main__":
    typer.run(main)
