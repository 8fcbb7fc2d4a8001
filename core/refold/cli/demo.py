"""`refold demo`: a demonstration of refold in one command."""

from __future__ import annotations

import logging
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Annotated

import typer

from refold.cli.app import INTERRUPTED, START, app
from refold.cli.output import err, out

NOT_RIGHT = 1
"""Exit status when a result of the demo is wrong."""


@app.command(rich_help_panel=START)
def demo(
    seed: Annotated[
        int, typer.Option("--seed", help="Seed of the random numbers: the same seed gives the same events.")
    ] = 1,
    events: Annotated[
        int, typer.Option("--events", min=500, max=1_000_000, help="Number of messages that the shop receives.")
    ] = 20_000,
    keep: Annotated[bool, typer.Option("--keep", help="Keep the server running afterwards.")] = False,
    processes: Annotated[int, typer.Option("--processes", "-n", min=1, max=32, help="Number of worker processes.")] = 2,
) -> None:
    """Run a half-minute demo on a throwaway PostgreSQL: a shop's events, three faults, and the final audit.

    The demo needs no database and changes none of yours: its server lives in a temporary directory, which is removed
    at the end. The exit status is 1 if a result is not exactly right.

    \b
    Examples:
      refold demo
      refold demo --keep                    query it afterwards
      refold demo --events 200000 --seed 7
    """
    from refold.demo.run import demo as play

    logging.getLogger("refold").setLevel(logging.WARNING)
    try:
        with _cleaning_up():
            right = play(out, seed=seed, events=events, processes=processes, keep=keep)
    except KeyboardInterrupt:
        err.print("Stopped; the server and its files are removed.")
        raise typer.Exit(INTERRUPTED) from None
    if not right:
        raise typer.Exit(NOT_RIGHT)


@contextmanager
def _cleaning_up() -> Iterator[None]:
    """Make SIGTERM and SIGHUP end the demo as Ctrl-C does, with nothing left behind."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
