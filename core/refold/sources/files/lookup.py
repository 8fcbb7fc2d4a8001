"""Where a value stands in a record: under a column, in nested objects, or in the first of several such places."""

from dataclasses import dataclass
from typing import Any

EMPTY: tuple[object, ...] = (None, "")
"""Values that make the first of several places give way to the next."""


@dataclass(frozen=True, slots=True)
class Lookup:
    """A place of a value, as `--map` and `--id-from` name it."""

    text: str
    """As the user wrote it."""
    places: tuple[str, ...]
    """Columns or paths (`actor.id`), in order."""

    @classmethod
    def parse(cls, text: str) -> "Lookup":
        """Read `column`, `object.key` or `column|column`."""
        places = tuple(place.strip() for place in text.split("|"))
        return cls(text, places if all(places) else (text,))

    def is_simple(self) -> bool:
        """Return whether only a column can be meant: the text has neither a path nor a choice."""
        return len(self.places) == 1 and "." not in self.text

    def find(self, fields: dict[str, Any]) -> tuple[str, object] | None:
        """Return the place that has the value, and the value; None if no place has one.

        A key that is written like the whole text wins. Of several places, those that are null or empty text give way.

        Args:
            fields: the record.
        """
        if self.text in fields:
            return self.text, fields[self.text]
        for place in self.places:
            found = value_at(fields, place)
            if found is not None and (len(self.places) == 1 or found[0] not in EMPTY):
                return place, found[0]
        return None

    def in_columns(self, columns: tuple[str, ...], *, nested: bool) -> bool:
        """Return whether at least one place may have a value in a file with these columns.

        Args:
            columns: names of the columns.
            nested: whether columns can hold objects.
        """
        return self.text in columns or any(
            start in columns for place in self.places for start in (_starts(place) if nested else (place,))
        )


def value_at(fields: dict[str, Any], path: str) -> tuple[object] | None:
    """Return the value at a path into nested objects, in a tuple; None if it is absent.

    At every level, a key that contains dots itself wins over a deeper object.

    Args:
        fields: the outermost object.
        path: keys, joined by dots.
    """
    for start in _starts(path):
        if start not in fields:
            continue
        value = fields[start]
        if len(start) == len(path):
            return (value,)
        if isinstance(value, dict) and (found := value_at(value, path[len(start) + 1 :])) is not None:
            return found
    return None


def _starts(path: str) -> list[str]:
    """Return a path and its beginnings that end before a dot, the longest first."""
    return [path, *(path[:place] for place in range(len(path) - 1, 0, -1) if path[place] == ".")]
