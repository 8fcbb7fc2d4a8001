"""Files sinks as tests use them: a shape, rows of it, and the receiver of a folder."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from refold.sinks.kinds.files import Files, Options
from refold.sinks.receiver import Change, Column, Owner, Shape, Version

ONE = Version(1, 1)
TWO = Version(1, 2)


def shape(*columns: tuple[str, str], sink: str = "lake", projection: str = "purchases") -> Shape:
    """The shape of rows; the first column is the key."""
    named = tuple(Column(*column) for column in columns)
    return Shape(sink, projection, named, (named[0].name,))


PURCHASES = shape(("day", "date"), ("users", "bigint"), ("amount", "numeric(10,2)"), ("note", "text"))


def change(of: Shape, *values: str | None, json_text: str | None = None, slice_: int = 1) -> Change:
    """A row; its JSON has all values as texts unless it is given."""
    row = dict(zip((column.name for column in of.columns), values, strict=True))
    key = json.dumps({name: row[name] for name in of.key}, ensure_ascii=False)
    return Change(key, slice_, values, json.dumps(row, ensure_ascii=False) if json_text is None else json_text)


def purchases(*days: int, note: str | None = "x") -> list[Change]:
    """Rows of PURCHASES, one for each day of March 2026."""
    return [
        change(
            PURCHASES, f"2026-03-{day:02}", str(day), f"{day}.50", note,
            json_text=json.dumps({"day": f"2026-03-{day:02}", "users": day, "amount": -1, "note": note}).replace(
                "-1", f"{day}.50"
            ),
        )
        for day in days
    ]  # fmt: skip


def folder(path: Path | str, of: Shape = PURCHASES, owner: str = "", **options: Any) -> Files:
    """The receiver of a folder, opened."""
    files = Files(Options(url=str(path), **options))
    files.open(of, Owner(owner, frozenset()))
    return files


def values(changes: Sequence[Change]) -> list[tuple[str | None, ...]]:
    """The values of rows, as `Files.rows` yields them."""
    return [tuple(one.values) for one in changes if one.values is not None]


def names(path: Path) -> list[str]:
    """The names of all that a folder holds."""
    return sorted(one.name for one in path.iterdir())
