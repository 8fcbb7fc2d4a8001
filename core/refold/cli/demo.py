"""`refold demo`: everything in one command."""

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
from refold.demo.run import demo as play

NOT_RIGHT = 1
"""Exit status when something did not come out as it must."""


@app.command(rich_help_panel=START)
def demo(
    seed: Annotated[int, typer.Option("--seed", help="The same seed gives the same events and figures.")] = 1,
    events: Annotated[
        int, typer.Option("--events", min=500, max=1_000_000, help="Messages that the shop gets on its day.")
    ] = 20_000,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the server running afterwards, to play with.")] = False,
    processes: Annotated[int, typer.Option("--processes", "-n", min=1, max=32, help="Worker processes.")] = 2,
) -> None:
    """See it work, in half a minute: a shop's day on a throwaway PostgreSQL, three accidents, and the proof.

    Needs nothing and touches nothing: the server lives in a temporary directory, which is removed at the end.
    Exit status 1 if anything does not come out exactly as it must.

    \b
    Examples:
      refold demo
      refold demo --keep                    play with it afterwards
      refold demo --events 200000 --seed 7
    """
    logging.getLogger("refold").setLevel(logging.WARNING)
    try:
        with _cleaning_up():
            right = play(out, seed=seed, events=events, processes=processes, keep=keep)
    except KeyboardInterrupt:
        err.print("Stopped; the server and its files are gone.")
        raise typer.Exit(INTERRUPTED) from None
    if not right:
        raise typer.Exit(NOT_RIGHT)


@contextmanager
def _cleaning_up() -> Iterator[None]:
    """Makes a polite kill or a closed terminal end the demo as Ctrl-C does: with nothing left behind."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
