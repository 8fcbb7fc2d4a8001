"""Prose fits the terminal, or is broken at words; what is one word stays whole."""

from __future__ import annotations

from pathlib import Path

import psycopg
import pytest

from refold.prose import wrapped
from refold.store.incidents import KINDS, detect

from .conftest import Refold

LONG = "what cannot be kept exactly is refused when it is loaded with file and line"


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("short", ["short"]),
        ("", [""]),
        ("one two three four five six seven", ["one two three four", "  five six seven"]),
        ("   one two three four five six", ["   one two three four", "     five six"]),
        # Below what stands behind a label.
        ("log       one two three four five", ["log       one two three four", "          five"]),
        ("see https://example.org/a/long/path there", ["see", "  https://example.org/a/long/path", "  there"]),
        ("run `refold promote daily` again now", ["run", "  `refold promote daily`", "  again now"]),
        ("a\n  b", ["a", "  b"]),
    ],
)
def test_wrapped(text: str, lines: list[str]) -> None:
    assert wrapped(text, 30 if text.startswith("log") else 22).split("\n") == lines


@pytest.fixture
def narrow(bare: Refold, monkeypatch: pytest.MonkeyPatch) -> Refold:
    """The command line where nobody says how wide it may be."""
    monkeypatch.setenv("COLUMNS", "80")
    return bare


def too_wide(text: str) -> list[str]:
    """Lines that could have been broken."""
    return [line for line in text.splitlines() if len(line) > 80 and " " in line.strip()]


@pytest.mark.parametrize(
    "arguments",
    [
        ("deploy",),
        ("status", "--database-url", "postgresql://me@/shop?host=/nowhere/at/all/in/a/very/long/place/for/a/server"),
        ("status", "--database-url", "postgresql://me:a@b@c/x"),
        ("incidents", "--kind", "stalls"),
        ("ingest", "nowhere.csv"),
        ("init", ".", "--starters"),
    ],
)
def test_what_goes_wrong_is_told_in_80_columns(narrow: Refold, arguments: tuple[str, ...]) -> None:
    done = narrow(*arguments)
    assert done.err + done.out
    assert too_wide(done.err + done.out) == []


def test_incidents_in_80_columns(narrow: Refold, database_url: str) -> None:
    with psycopg.connect(database_url, autocommit=True) as conn:
        for kind in KINDS:
            evidence = {"error": LONG * 3, "because": LONG, "slices": [LONG], "remedy": LONG, "event": "e", "key": LONG}
            detect(conn, kind, "daily__1a2b3c4d__1", by="lag and stall", evidence=evidence)
    done = narrow("incidents", "--database-url", database_url)
    assert done.status == 0, done.err
    assert too_wide(done.out) == []
    assert done.out.count("    seen: ") == len(KINDS)
    assert too_wide(narrow("status", "--database-url", database_url).out) == []
    assert too_wide(narrow("deploy", "--projections", str(Path()), "--database-url", database_url).out) == []
