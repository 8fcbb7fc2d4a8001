"""docs/reference/cli.md knows every command and option, and none that does not exist; help teaches by examples."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tests.support.commands import COMMANDS

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "docs" / "reference" / "cli.md"


def options(command: Any) -> set[str]:
    """The long options of a command."""
    return {name for one in command.params for name in [*one.opts, *one.secondary_opts] if name.startswith("--")}


def sections() -> dict[str, str]:
    """The reference by command: what stands below its heading."""
    parts = re.split(r"^#+ `(refold[^`]*)`.*$", REFERENCE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_there_are_commands() -> None:
    assert {"refold deploy", "refold worker", "refold ingest", "refold demo", "refold server stop"} <= set(COMMANDS)


def test_the_reference_has_every_command_and_no_other() -> None:
    assert set(sections()) == set(COMMANDS)


@pytest.mark.parametrize("words", sorted(COMMANDS))
def test_the_reference_has_every_option_and_no_other(words: str) -> None:
    # --help and --database-url are explained once, for all.
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", sections()[words]))
    assert options(COMMANDS[words]) - {"--help", "--database-url"} <= named
    # An example may use options of the other commands that it calls.
    everything = set().union(*map(options, COMMANDS.values()))
    assert named <= everything


@pytest.mark.parametrize("words", sorted(COMMANDS))
def test_the_reference_has_an_example_of_every_command(words: str) -> None:
    examples = "\n".join(re.findall(r"```console\n(.*?)```", sections()[words], flags=re.DOTALL))
    assert re.search(rf"\$ .*{re.escape(words)}\b", examples)


@pytest.mark.parametrize("words", sorted(COMMANDS))
def test_help_says_what_for_and_shows_how(words: str) -> None:
    command = COMMANDS[words]
    assert command.help
    assert words in command.help.split("\n", 1)[1], "an example"
    assert [one.name for one in command.params if not getattr(one, "help", None)] == []
    # Longer ones are broken in the middle on a terminal of 80 columns.
    assert [line for line in command.help.splitlines() if line.startswith("  ") and len(line) > 78] == []


@pytest.mark.parametrize("document", sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]), ids=lambda p: p.name)
def test_no_document_calls_a_command_or_option_that_does_not_exist(document: Path) -> None:
    for call in re.findall(
        r"(?:^\$ |`|&& )(refold [a-z][^`\n|]*)", document.read_text(encoding="utf-8"), flags=re.MULTILINE
    ):
        for part in call.split("&&"):
            words = part.split()
            if words[0] != "refold":
                continue
            known = [name for name in COMMANDS if part.strip().startswith(name)]
            groups = {name.rsplit(" ", 1)[0] for name in COMMANDS}
            assert known or " ".join(words[:2]) in groups, part
            if known:
                used = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", part))
                assert used <= options(COMMANDS[max(known, key=len)]) | {"--help"}, part
