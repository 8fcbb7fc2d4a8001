"""The question before what destroys."""

from __future__ import annotations

import sys
from collections.abc import Callable

import typer

from refold.errors import InputError


def confirm(question: str, *, piped: str, remedy: str, show: Callable[[], None] = lambda: None) -> None:
    """Ask on the terminal, and end the command with status 1 if the answer is not yes.

    Args:
        question: what is asked.
        piped: what is wrong if there is nobody to ask.
        remedy: how to go on then.
        show: prints what the question is about.

    Raises:
        InputError: stdin is not a terminal.
    """
    if not sys.stdin.isatty():
        raise InputError(piped, remedy=remedy)
    show()
    if not typer.confirm(question, err=True):
        raise typer.Exit(1)
