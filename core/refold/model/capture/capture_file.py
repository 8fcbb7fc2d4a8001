"""A file of `captures/`: which table, which operations, and what becomes of a row."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from refold.errors import DefinitionError, RefoldError
from refold.model.projection.files import project_files, read_text
from refold.model.toml_text import line_of, parsed
from refold.suggest import did_you_mean

Operation = Literal["insert", "update", "delete", "truncate"]
OPERATIONS: tuple[Operation, ...] = get_args(Operation)
OnError = Literal["fail", "pause"]

FIELDS = ("user", "action", "time", "metadata")
"""Keys with SQL expressions, which a table of an operation may override."""
_KEYS = ("table", "operations", "id", *FIELDS, "columns", "on_error", "two_phase")
_NAME = re.compile(r"[a-z_][a-z0-9_]{0,39}")
_PART = r'(?:[A-Za-z_\u0080-\uffff][\w$]*|"(?:[^"]|"")+")'
_TABLE = re.compile(rf"(?:({_PART})\.)?({_PART})")
_DEFAULTS = {"user": "NULL", "time": "pg_catalog.now()", "metadata": "'{}'::pg_catalog.jsonb"}


@dataclass(frozen=True, slots=True)
class Expressions:
    """SQL expressions over a row, for one operation.

    Args:
        user: the user of the event, as text.
        action: the action of the event, as text.
        time: when it happened, as timestamptz.
        metadata: further attributes, as a jsonb object.
    """

    user: str
    action: str
    time: str
    metadata: str

    def items(self) -> tuple[tuple[str, str], ...]:
        """Return the expressions by their keys in the file."""
        return tuple((field, getattr(self, field)) for field in FIELDS)


@dataclass(frozen=True, slots=True)
class CaptureFile:
    """A capture as its file defines it.

    Args:
        name: the capture, from the file's name.
        path: the file.
        source: the text of the file.
        schema: schema of the table; None looks it up on the search path.
        table: the table.
        expressions: the expressions of each operation that is captured.
        id: columns that identify a row; None takes the primary key.
        columns: columns of which one must change for an UPDATE to be an event; None takes all of them.
        on_error: what becomes of the application's write if the log cannot take the event.
        two_phase: whether writers of the table use PREPARE TRANSACTION.
    """

    name: str
    path: Path
    source: str
    schema: str | None
    table: str
    expressions: Mapping[Operation, Expressions]
    id: tuple[str, ...] | None
    columns: tuple[str, ...] | None
    on_error: OnError
    two_phase: bool

    def wrong(self, key: str, message: str, remedy: str | None = None) -> DefinitionError:
        """Return an error at a key of the file, such as `update.action`."""
        return DefinitionError(f"{key}: {message}", path=self.path, line=line_of(self.source, key), remedy=remedy)

    def key_of(self, operation: Operation, field: str) -> str:
        """Return where the file defines a field of an operation: `action`, or `update.action`."""
        table = tomllib.loads(self.source).get(operation)
        return f"{operation}.{field}" if isinstance(table, dict) and field in table else field


def captures_beside(projections: Path) -> Path:
    """Return the folder of captures that belongs to a folder of projections; it may not exist."""
    return projections.resolve().parent / "captures"


def load_captures(folder: Path, mistakes: list[RefoldError]) -> list[CaptureFile]:
    """Read every `*.toml` of a folder, and return the captures that can be made.

    Args:
        folder: the folder of captures; it may not exist.
        mistakes: receives an error for every key that is wrong; the files with mistakes are left out.
    """
    found = []
    for path in project_files(folder, ".toml", wrong=mistakes.append):
        try:
            one = capture_file(path.stem, read_text(path), path, mistakes)
        except DefinitionError as error:
            mistakes.append(error)
        else:
            found += [] if one is None else [one]
    return found


def capture_file(name: str, source: str, path: Path, mistakes: list[RefoldError]) -> CaptureFile | None:
    """Read the text of a file; return None after mistakes.

    Args:
        name: the capture, from the file's name.
        source: the text of the file.
        path: the file, for messages.
        mistakes: receives an error for every key that is wrong.

    Raises:
        DefinitionError: the text is not TOML.
    """
    given = parsed(source, path, remedy="Write an expression in quotes: action = \"'order placed'\".")
    reading = _Reading(name, source, path, given)
    made = reading.capture()
    mistakes += reading.mistakes
    return None if reading.mistakes else made


class _Reading:
    """The reading of one file, which collects its mistakes."""

    def __init__(self, name: str, source: str, path: Path, given: dict[str, Any]) -> None:
        self.name, self.source, self.path, self.given = name, source, path, given
        self.mistakes: list[RefoldError] = []

    def wrong(self, key: str, message: str, remedy: str | None = None) -> None:
        self.mistakes.append(
            DefinitionError(f"{key}: {message}", path=self.path, line=line_of(self.source, key), remedy=remedy)
        )

    def capture(self) -> CaptureFile | None:
        if not _NAME.fullmatch(self.name):
            self.mistakes.append(
                DefinitionError(
                    f"{self.name!r} cannot name a capture",
                    path=self.path,
                    remedy="Use at most 40 small letters, digits and underscores: the name is part of the events' ids.",
                )
            )
        self._unknown()
        schema, table = self._table()
        expressions = self._expressions(self._operations())
        columns = self._names("columns")
        if columns is not None and "update" not in expressions:
            self.wrong("columns", "there is no update among the operations", "Add it, or remove the columns.")
        on_error = self.given.get("on_error", "fail")
        if on_error not in get_args(OnError):
            self.wrong("on_error", f"must be fail or pause, not {on_error!r}")
        two_phase = self.given.get("two_phase", False)
        if not isinstance(two_phase, bool):
            self.wrong("two_phase", f"must be true or false, not {two_phase!r}")
        return CaptureFile(
            self.name, self.path, self.source, schema, table, expressions, self._names("id"), columns, on_error,
            two_phase is True,
        )  # fmt: skip

    def _unknown(self) -> None:
        for key, value in self.given.items():
            if key in OPERATIONS:
                if not isinstance(value, dict):
                    self.wrong(key, f"must be a table of expressions: [{key}]")
                    continue
                for inner in value:
                    if inner not in FIELDS:
                        self.wrong(
                            f"{key}.{inner}", f"is not known.{did_you_mean(inner, FIELDS)}",
                            f"[{key}] may hold {', '.join(FIELDS)}.",
                        )  # fmt: skip
            elif key not in _KEYS:
                known = (*_KEYS, *OPERATIONS)
                self.wrong(key, f"is not known.{did_you_mean(key, known)}", f"The keys are {', '.join(known)}.")

    def _table(self) -> tuple[str | None, str]:
        given = self.given.get("table")
        if given is None:
            self.wrong("table", "is missing", 'Write table = "schema.name".')
            return None, ""
        found = _TABLE.fullmatch(given.strip()) if isinstance(given, str) else None
        if found is None:
            self.wrong("table", f"must be the name of a table, not {given!r}", 'Write table = "schema.name".')
            return None, ""
        return None if found[1] is None else plain_name(found[1]), plain_name(found[2])

    def _operations(self) -> list[Operation]:
        given = self.given.get("operations", ["insert"])
        if not isinstance(given, list) or not given:
            self.wrong("operations", f"must be a list such as [\"insert\", \"update\"], not {given!r}")  # fmt: skip
            return []
        for one in given:
            if one not in OPERATIONS:
                self.wrong(
                    "operations", f"{one!r} is not known.{did_you_mean(str(one), OPERATIONS)}",
                    f"The operations are {', '.join(OPERATIONS)}.",
                )  # fmt: skip
        for one in OPERATIONS:
            if isinstance(self.given.get(one), dict) and one not in given:
                self.wrong(one, "is not among the operations", "Add it to operations, or remove the table.")
        return [one for one in OPERATIONS if one in given]

    def _expressions(self, operations: list[Operation]) -> dict[Operation, Expressions]:
        made: dict[Operation, Expressions] = {}
        told: set[str] = set()
        for operation in operations:
            texts: dict[str, str] = {}
            own = self.given.get(operation)
            inner = own if isinstance(own, dict) else {}
            # Without a row, expressions over rows mean nothing.
            outer = {} if operation == "truncate" else self.given
            for field in FIELDS:
                key = f"{operation}.{field}" if field in inner else field
                value = inner.get(field, outer.get(field, _DEFAULTS.get(field)))
                if value is None:
                    key = f"{operation}.{field}" if operation == "truncate" else field
                    if key not in told:
                        self.wrong(key, "is missing", "Write an SQL expression: action = \"'order placed'\".")
                elif not isinstance(value, str) or not value.strip() or "\0" in value:
                    if key not in told:
                        self.wrong(key, f"must be the text of an SQL expression, not {value!r}")
                elif "$capture$" in value:
                    self.wrong(key, "must not hold $capture$")
                texts[field] = value if isinstance(value, str) else "NULL"
                told.add(key)
            made[operation] = Expressions(**texts)
        return made

    def _names(self, key: str) -> tuple[str, ...] | None:
        given = self.given.get(key)
        if given is None:
            return None
        if not isinstance(given, list) or not given or not all(isinstance(one, str) and one for one in given):
            self.wrong(key, f"must be a list of columns, not {given!r}")
            return None
        return tuple(given)


def plain_name(text: str) -> str:
    """Return the name that an identifier of SQL means. Pure."""
    return text[1:-1].replace('""', '"') if text.startswith('"') else text.lower()
