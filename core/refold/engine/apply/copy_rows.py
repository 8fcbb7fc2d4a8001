"""Writing the rows of a transform by COPY."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import date, datetime
from decimal import Decimal
from enum import Enum
from types import NoneType
from typing import Any
from uuid import UUID

import psycopg
from psycopg.adapt import PyFormat, Transformer
from psycopg.types.json import Jsonb

from refold.model.event.exact_json import metadata_json
from refold.model.projection.failure import FunctionFailed
from refold.model.projection.json_form import is_structure, json_form
from refold.model.stream.copy_text import NULL, escaped, unescaped

TOGETHER = 500
"""Rows that are sent to COPY at once."""


def _json(value: Any) -> str:
    try:
        return escaped(metadata_json(value))
    except TypeError:
        return escaped(metadata_json(json_form(value)))


class _Texts(dict[type, Callable[[Any], str]]):
    """Functions that turn a value into its text, by type; a type that is missing is handled by its base class."""

    def __missing__(self, kind: type) -> Callable[[Any], str]:
        if issubclass(kind, Enum):
            return _of_enum
        return _of_class


def _of_enum(value: Any) -> str:
    return _TEXT[type(value.value)](value.value)


def _of_class(value: Any) -> str:
    if not is_structure(value):
        # psycopg may know the type, and a subclass may have another text.
        raise KeyError(type(value))
    return escaped(metadata_json(json_form(value)))


# The types that most rows consist of.
_TEXT = _Texts(
    {
        NoneType: lambda value: NULL,
        str: escaped,
        int: str,
        bool: lambda value: "t" if value else "f",
        float: repr,
        Decimal: str,
        datetime: datetime.isoformat,
        date: date.isoformat,
        UUID: str,
        dict: _json,
        list: _json,
    }
)


def write_rows(conn: psycopg.Connection, copy_statement: str, rows: Iterable[tuple[Any, ...]]) -> None:
    """Write rows by COPY; a structure becomes jsonb, and an enum its value.

    Args:
        conn: the caller's connection and transaction.
        copy_statement: a COPY … FROM STDIN statement, in text format.
        rows: the values, in the order of the columns of the statement.

    Raises:
        FunctionFailed: a value has no text, such as an integer of 5,000 digits.
    """
    with conn.cursor() as cursor, cursor.copy(copy_statement.encode()) as copy:
        lines: list[str] = []
        for row in rows:
            try:
                lines.append("\t".join([_TEXT[type(value)](value) for value in row]))
            except KeyError:
                _flush(copy, lines)
                _write(copy, row)
            except Exception as error:
                raise FunctionFailed(error) from error
            if len(lines) >= TOGETHER:
                _flush(copy, lines)
        _flush(copy, lines)


def texts(conn: psycopg.Connection, row: tuple[Any, ...]) -> list[str | None]:
    """Return the values of a row as `write_rows` writes them, in Postgres' text form; None is NULL.

    Raises:
        FunctionFailed: a value has no text.
    """
    return [_text(conn, value) for value in row]


def _text(conn: psycopg.Connection, value: Any) -> str | None:
    try:
        written = _TEXT[type(value)](value)
        return None if written == NULL else unescaped(written)
    except KeyError:
        known = _known(value)
        dumped = Transformer(conn).get_dumper(known, PyFormat.TEXT).dump(known)
        return None if dumped is None else bytes(dumped).decode()
    except Exception as error:
        raise FunctionFailed(error) from error


def _write(copy: psycopg.Copy, row: tuple[Any, ...]) -> None:
    try:
        copy.write_row([_known(value) for value in row])
    except psycopg.OperationalError:
        raise
    except Exception as error:
        raise FunctionFailed(error) from error


def _known(value: Any) -> Any:
    """Return a value in a type that psycopg accepts."""
    if isinstance(value, Enum):
        return _known(value.value)
    return Jsonb(json_form(value), dumps=metadata_json) if is_structure(value) else value


def _flush(copy: psycopg.Copy, lines: list[str]) -> None:
    if lines:
        copy.write("\n".join(lines) + "\n")
        lines.clear()
