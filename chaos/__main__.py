"""`python -m chaos`: a fault campaign; exit status 0 only if every invariant held."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from random import SystemRandom
from typing import Annotated

import typer
from rich.console import Console

from chaos import campaign
from chaos.broken import VARIANTS
from chaos.report import as_markdown, show


def main(
    seed: Annotated[
        int | None, typer.Option(min=0, help="Decides what happens and when; drawn and printed if not given.")
    ] = None,
    minutes: Annotated[float, typer.Option(min=0.1, help="Minutes under load; the count afterwards takes more.")] = 2,
    breaking: Annotated[
        str | None,
        typer.Option(
            "--break", metavar="VARIANT", help=f"Break refold first, which must be found: {', '.join(VARIANTS)}."
        ),
    ] = None,
    no_duties: Annotated[
        bool, typer.Option("--no-duties", help="Workers heal nothing; a person does, by commands once a minute.")
    ] = False,
    schedule: Annotated[bool, typer.Option("--schedule", help="Print the schedule, and do nothing.")] = False,
    json_: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
    report: Annotated[
        Path | None, typer.Option("--report", metavar="FILE", help="Write the report as Markdown, too.")
    ] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Keep the server's directory also when all holds.")] = False,
) -> None:
    """Run refold under load while everything around it breaks, and count.

    A server, workers and producers of its own are started; nothing else on this machine is touched. Exit status:
    0 every invariant held, 1 one did not (the report says which; the directory is kept).
    """
    if breaking is not None and breaking not in VARIANTS:
        raise typer.BadParameter(f"no variant {breaking}; there are {', '.join(VARIANTS)}")
    chosen = SystemRandom().randrange(1_000_000) if seed is None else seed
    console = Console(stderr=json_)
    console.print(f"seed {chosen}, {minutes:g} minutes" + (f", broken: {breaking}" if breaking else ""))
    for step in campaign.plan(chosen, minutes, breaking):
        console.print(str(step), highlight=False, markup=False)
    if schedule:
        return
    # Told to end, it ends what it has started.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    result = campaign.run(
        chosen,
        minutes,
        breaking=breaking,
        duties=not no_duties,
        converges=15.0 if breaking else campaign.CONVERGES_S,
        keep=keep,
        tell=lambda line: console.print(line, highlight=False, markup=False),
    )
    if report is not None:
        report.write_text(as_markdown(result))
    if json_:
        print(json.dumps(result.as_dict(), indent=2))
    else:
        show(console, result)
    if not result.held:
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
