"""Ids for events whose source has none; they are the same on every run.

`row`: the source's name and the row's number. A second run meets only duplicates, a grown file adds its new
rows, a changed row is a conflict, and equal rows stay separate events.

Columns: their values, joined so that different values never give the same id.
"""

from dataclasses import dataclass
from decimal import Decimal
from pathlib import PurePath

from refold.errors import InputError
from refold.sources.files.lookup import Lookup
from refold.sources.files.packing import unpacked_name

STDIN = "-"

_MAX_SOURCE_CHARACTERS = 200  # leaves room for the row number in the 255 characters of an id


@dataclass(frozen=True, slots=True)
class IdFrom:
    """The derivation of ids: from these columns, or from the row number without columns."""

    columns: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: str) -> "IdFrom":
        """Parse `row` or `column,column`; paths such as `source.lsn` are columns too.

        A column that is called row needs `--map id=row`.
        """
        columns = tuple(name.strip() for name in text.split(","))
        if columns == ("row",):
            return cls()
        if not all(columns):
            raise InputError(f"--id-from {text!r} has an empty name", remedy="Write row, or columns: a,b.")
        return cls(columns)


def source_name(path: str, name: str | None = None) -> str:
    """Return a source's name: the given one, or the file's base name without .gz or .zst: unpacking changes no id."""
    chosen = name if name is not None else STDIN if path == STDIN else unpacked_name(PurePath(path).name)
    try:
        chosen.encode()
    except UnicodeEncodeError:
        raise InputError(f"the name {chosen!a} is not UTF-8", remedy="Choose another with --source.") from None
    if not chosen or "\0" in chosen or len(chosen) > _MAX_SOURCE_CHARACTERS:
        raise InputError(
            f"a source's name has 1 to {_MAX_SOURCE_CHARACTERS} characters, not {len(chosen)}",
            remedy="Choose another with --source.",
        )
    return chosen


def row_id(source: str, row: int) -> str:
    """Return the id of the event in one data row, counted from 1."""
    return f"{source}:{row}"


def joined_id(columns: tuple[str, ...], fields: dict[str, object]) -> str:
    """Join values with ':'; in them, '%' and ':' become %25 and %3A, so that the join can be undone.

    Raises ValueError if a value is absent, null or not a string or a number, or if all are empty.
    """
    values = []
    for column in columns:
        value = fields[column] if column in fields else _looked_up(column, fields)
        if isinstance(value, bool) or not isinstance(value, (str, int, float, Decimal)):
            what = "has no value" if value is None else "is neither text nor a number"
            raise ValueError(f"id: {column!r} (of --id-from) {what}")
        values.append(str(value).replace("%", "%25").replace(":", "%3A"))
    if not any(values):
        raise ValueError(f"id: {', '.join(columns)} (of --id-from) are empty")
    return ":".join(values)


def _looked_up(column: str, fields: dict[str, object]) -> object:
    found = Lookup.parse(column).find(fields)
    return None if found is None else found[1]
