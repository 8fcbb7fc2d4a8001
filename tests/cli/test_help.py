"""Help fits the terminal: no name and no word is broken, and nothing is left out."""

from __future__ import annotations

import re
from typing import Any

import pytest
import typer

from tests.support.commands import COMMANDS


def shown(words: str, columns: int, monkeypatch: pytest.MonkeyPatch) -> str:
    """The help of a command on a terminal of some columns."""
    monkeypatch.setenv("COLUMNS", str(columns))
    command = COMMANDS[words]
    text = command.get_help(typer.Context(command, info_name=words, help_option_names=["-h", "--help"]))
    return re.sub(r"\x1b\[\d+m", "", text)


@pytest.mark.parametrize("columns", [40, 80, 120])
@pytest.mark.parametrize("words", sorted(COMMANDS))
def test_help_of_every_command(words: str, columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    text = shown(words, columns, monkeypatch)
    command: Any = COMMANDS[words]
    laid_out = {line.strip() for part in command.help.split("\n\n") if "\b" in part for line in part.splitlines()}
    for line in text.splitlines():
        # A word that is longer than the line stays whole, and examples stay as they can be copied.
        assert len(line) <= columns or line.strip() in laid_out or " " not in line.strip(), line
    whole = " ".join(text.split())
    for one in command.params:
        for name in (*one.opts, *one.secondary_opts):
            assert not name.startswith("-") or name in text.split() or f"{name}," in text.split(), name
        assert " ".join(one.help.split()) in whole
    for example in laid_out:
        assert example.replace("\b", "") in text


def test_a_wide_name_stands_above_its_description(monkeypatch: pytest.MonkeyPatch) -> None:
    text = shown("refold rebuild", 40, monkeypatch)
    assert "  --database-url URL\n                libpq URL of the\n" in text
    assert "  --database-url URL  libpq URL of the database." in shown("refold rebuild", 120, monkeypatch)
