"""Finding and removing a person in texts and JSON, and what receivers are told of it. Pure.

A place of refold's own tables may hold a person as a whole value, or within a sentence, such as an error of Postgres
that quotes a value. `alice` is found in `no user alice.`, and not in `alice-2` or `malice`, which are others.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from uuid import UUID

ERASED = "erased"
"""What stands in the place of a person in the texts of refold's own tables."""
TOKEN = "erased:"
"""How user ids begin that stand in the place of a person's, and event ids in the place of those that held one."""

_STRING = re.compile(r'"(?:[^"\\]|\\.)*+"')
_INTEGER = re.compile(r"-?\d+")
_JOINS = r"[-.@:/+]"
"""Characters that join words to one name."""


class Sought:
    """What texts are cleaned of."""

    ids: tuple[str, ...]
    """Ids of events that hold a person."""

    @property
    def fields(self) -> tuple[tuple[str, str], ...]:
        """Return the fields that name users, each with the value that is the person."""
        return ()

    @property
    def values(self) -> tuple[str, ...]:
        """Return all values that are the person."""
        return tuple(dict.fromkeys(value for _, value in self.fields))

    @property
    def signs(self) -> list[str]:
        """Return texts of which a column holds one if it holds the person, as text, JSON and arrays are written."""
        found: dict[str, None] = {}
        for one in self.values:
            found |= dict.fromkeys((one, json.dumps(one, ensure_ascii=False)[1:-1], json.dumps(one)[1:-1]))
        return list(found)

    @cached_property
    def _within(self) -> re.Pattern[str]:
        # Also as JSON writes them: a text may be the JSON that a producer sent.
        names = [one for one in self.signs if not _INTEGER.fullmatch(one)]
        numbers = "|".join(one for one in self.values if _INTEGER.fullmatch(one))
        found = [re.escape(one) for one in sorted(self.ids, key=len, reverse=True)]
        found += [_alone(one) for one in sorted(names, key=len, reverse=True)]
        if numbers:
            # Within a sentence a number is mostly a count.
            found.append(rf"\A(?:{numbers})\Z|(?<=['\"])(?:{numbers})(?=['\"])")
        return re.compile("|".join(found))

    @cached_property
    def _numbers(self) -> re.Pattern[str]:
        found = {one for one in self.fields if _INTEGER.fullmatch(one[1])}
        pairs = [rf"{re.escape(json.dumps(name))}\s*:\s*{value}" for name, value in found]
        return re.compile(f"(?:{'|'.join(pairs)})(?![\\d.eE])" if pairs else "(?!)")


@dataclass(frozen=True)
class Person(Sought):
    """By what a person is found.

    Args:
        user_id: the user id, exactly as events have it.
        also: field and value of metadata in which events of others name the person.
        ids: ids of the person's events that hold the user id.
    """

    user_id: str
    also: tuple[tuple[str, str], ...] = ()
    ids: tuple[str, ...] = ()

    @property
    def fields(self) -> tuple[tuple[str, str], ...]:
        return (("user_id", self.user_id), *self.also)


@dataclass(frozen=True)
class HeldBy(Sought):
    """Ids of events that hold a person whom nobody names any more.

    Args:
        ids: the ids; at least one.
    """

    ids: tuple[str, ...]


def _alone(name: str) -> str:
    """Return the pattern of a name that is not a part of another one."""
    before = rf"(?<!\w)(?<!\w{_JOINS})" if re.match(r"\w", name) else ""
    after = rf"(?!\w)(?!{_JOINS}\w)" if re.search(r"\w\Z", name) else ""
    return f"{before}{re.escape(name)}{after}"


def without(sought: Sought, text: str) -> str:
    """Return a text without what is sought in it."""
    return sought._within.sub(ERASED, text)


def json_without(sought: Sought, text: str) -> str:
    """Return JSON, as text, without what is sought: in strings, names, and numbers of a field that names users."""

    def string(found: re.Match[str]) -> str:
        value = json.loads(found[0])
        cleaned = without(sought, value)
        return found[0] if cleaned == value else json.dumps(cleaned, ensure_ascii=False)

    def number(found: re.Match[str]) -> str:
        return f"{found[0].rpartition(':')[0]}: {json.dumps(ERASED)}"

    return _STRING.sub(string, sought._numbers.sub(number, text))


def fields_given(also: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """Return FIELD=VALUE as pairs.

    Raises:
        ValueError: one has no `=`, or nothing on a side of it. The message does not repeat it.
    """
    pairs = [one.partition("=") for one in also]
    if not all(name and mark and value for name, mark, value in pairs):
        raise ValueError("--also takes FIELD=VALUE")
    return tuple(dict.fromkeys((name, value) for name, _, value in pairs))


@dataclass(frozen=True, slots=True)
class ErasureNotice:
    """An erasure that a webhook is to be told of, and not who the person is.

    Args:
        erasure_id: number of the erasure.
        name: names it in every database, export and store.
        mode: `anonymise`: the events are of nobody now; `delete`: they are gone.
        erased_at: when nothing of the person was left in log and metrics, UTC.
        events: events of the person.
        mentions: events of others that named the person.
    """

    erasure_id: int
    name: UUID
    mode: str
    erased_at: datetime
    events: int
    mentions: int
