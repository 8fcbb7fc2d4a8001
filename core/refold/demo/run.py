"""The demo from beginning to end; it leaves nothing behind, or with --keep the server."""

from __future__ import annotations

import shutil

import psycopg
from rich.console import Console

from refold.demo.play import Play
from refold.demo.show import Show
from refold.demo.stage import Stage
from refold.errors import RefoldError


def demo(console: Console, *, seed: int, events: int, processes: int, keep: bool) -> bool:
    """Play the demo, and return whether all results were correct.

    Args:
        console: the console to print on.
        seed: seed of the shop; the same seed gives the same events and the same metrics.
        events: number of deliveries of the day, at least 500.
        processes: number of worker processes.
        keep: whether to leave the server running at the end.

    Raises:
        refold.errors.RefoldError: the server or the workers cannot be started, or the schema cannot be installed.
        KeyboardInterrupt: the user pressed Ctrl-C; nothing is left behind.
    """
    show = Show(console)
    stage = Stage(keep=keep)
    kept = False
    try:
        play = Play(show, stage, seed)
        play.set_up(events, processes)
        try:
            play.run()
        except (RefoldError, psycopg.Error) as error:
            show.fail(f"{type(error).__name__}: {error}")
            for hand in stage.hands:
                show.say(f"worker {hand.pid}: {stage.log_of(hand)}")
        play.verdict()
        if keep:
            stage.leave()
            kept = True
            _how_to_go_on(show, stage)
    finally:
        if not kept:
            stage.close()
    return not show.failures


def _how_to_go_on(show: Show, stage: Stage) -> None:
    """Print the commands to go on with after --keep."""
    show.print()
    show.print("[bold]The server stays[/] (the workers do not). In this shell:")
    show.command(f"export REFOLD_DATABASE_URL='{stage.url}'")
    for command, what in (
        ("refold status", "live metrics and their freshness"),
        ("refold query 'TABLE funnel_conversion'", "the funnel, as an analyst sees it"),
        ("refold explain event_counts", "how a metric is kept up to date"),
        ("refold rejected", "input that was rejected, with reasons"),
        ("refold reconcile", "run the proof again"),
        ("refold up", "keep the metrics up to date, with the dashboard on http://127.0.0.1:8642"),
        *([('psql "$REFOLD_DATABASE_URL"', "all tables and views")] if shutil.which("psql") else []),
    ):
        show.command(f"{command:<40} # {what}")
    show.print("To stop it and remove every trace:")
    show.command(f"REFOLD_HOME={stage.home} refold server stop && rm -r {stage.home}")
