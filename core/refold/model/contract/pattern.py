"""Regular expressions that mean the same in JSON Schema (ECMAScript) and in Postgres."""

from __future__ import annotations

import re

_PUNCTUATION = frozenset(r"\^$.[]()|?*+{}/-")
_CLASSES = {"d": "0-9", "w": "A-Za-z0-9_"}
_CHARACTERS = {"n": "\n", "t": "\t", "r": "\r"}
_ANY_CHARACTER = "[^\n\r\u2028\u2029]"
_COUNT = re.compile(r"\{(\d{1,3})(?:(,)(\d{1,3})?)?\}")
_MOST = 255
"""Most repetitions that Postgres counts."""


class _Foreign(ValueError):
    pass


def portable(pattern: str) -> tuple[str, str | None]:
    """Return a pattern for Postgres, and why there is none.

    Only what both dialects read alike is taken: characters, classes, groups, alternatives, anchors, and counts.
    ECMAScript's `.`, `\\d` and `\\w` are written out, because Postgres takes more characters for them.
    """
    try:
        text = _translated(pattern)
        re.compile(text)
    except _Foreign as error:
        return "", str(error)
    except re.error as error:
        return "", f"is no regular expression: {error.msg}"
    return text, None


def _translated(pattern: str) -> str:
    out: list[str] = []
    at = 0
    # Whether a count may follow.
    repeats = False
    while at < len(pattern):
        char = pattern[at]
        count = _COUNT.match(pattern, at)
        if char in "*+?" or count:
            if not repeats:
                raise _Foreign(f"has {char!r} at a place where nothing can be repeated")
            if count and max(int(count[1]), int(count[3] or 0)) > _MOST:
                raise _Foreign(f"counts to more than {_MOST}")
            word = count[0] if count else char
            out.append(word)
            at += len(word)
            repeats = False
            continue
        repeats = char not in "^$(|"
        if char == "\\":
            text, at = _escape(pattern, at)
            out.append(f"[{text}]" if len(text) > 2 else text)
        elif char == "[":
            text, at = _bracket(pattern, at)
            out.append(text)
        elif char == "(":
            if pattern.startswith("(?", at) and not pattern.startswith("(?:", at):
                raise _Foreign("looks around, names a group, or sets an option")
            word = "(?:" if pattern.startswith("(?:", at) else "("
            out.append(word)
            at += len(word)
        elif char in "]{}":
            raise _Foreign(f"has a bare {char!r}: write \\{char}")
        elif char == "\0":
            raise _Foreign("holds the character NUL")
        else:
            out.append(_ANY_CHARACTER if char == "." else char)
            at += 1
    return "".join(out)


def _escape(pattern: str, at: int) -> tuple[str, int]:
    """Return what an escape stands for, as Postgres writes it, and the place behind it."""
    if at + 1 == len(pattern):
        raise _Foreign("ends with a backslash")
    char = pattern[at + 1]
    if char in _PUNCTUATION:
        return f"\\{char}", at + 2
    if char in _CLASSES:
        return _CLASSES[char], at + 2
    if char in _CHARACTERS:
        return _CHARACTERS[char], at + 2
    raise _Foreign(f"has \\{char}, which Postgres reads differently")


def _bracket(pattern: str, at: int) -> tuple[str, int]:
    """Return a class of characters, and the place behind it."""
    at += 1
    out = "["
    if pattern.startswith("^", at):
        out, at = "[^", at + 1
    # Whether a range may go on from the last character.
    begins = False
    items = 0
    while at < len(pattern) and pattern[at] != "]":
        char = pattern[at]
        if char == "[":
            raise _Foreign("has a bare '[' in a class: write \\[")
        if char == "\\":
            text, at = _escape(pattern, at)
            out += text
            begins = len(text) <= 2
        elif char == "-" and begins and at + 1 < len(pattern) and pattern[at + 1] != "]":
            if pattern[at + 1] in "\\[-":
                raise _Foreign("has a range that ends in an escape")
            out += f"-{pattern[at + 1]}"
            at += 2
            begins = False
        else:
            out += f"\\{char}" if char in "-^&~|" else char
            at += 1
            begins = True
        items += 1
    if at == len(pattern):
        raise _Foreign("does not close a class")
    if not items:
        raise _Foreign("has an empty class")
    return out + "]", at + 1
