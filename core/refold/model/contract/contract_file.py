"""A file of `events/`: the contract of one version of an action."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal, get_args

from refold.errors import DefinitionError, RefoldError
from refold.model.contract.predicate import Predicate, predicate_of
from refold.model.contract.schema import ANNOTATIONS, Object, Problem, schema_of
from refold.model.event.exact_json import kind, parse_json
from refold.model.projection.files import project_files, read_text
from refold.suggest import did_you_mean

Level = Literal["off", "warn", "enforce"]
LEVELS: tuple[Level, ...] = get_args(Level)
ABOUT = "x-refold"
"""The key with what JSON Schema does not know."""
_KEYS = ("version", "level", "owner", "since", "action")
_NAME = re.compile(r"(?P<action>.+?)(?:\.v(?P<version>[1-9][0-9]{0,4}))?")
_REMEDY = f'Write "{ABOUT}": {{"version": 1, "level": "warn"}}.'


@dataclass(frozen=True, slots=True)
class Contract:
    """A version of an action, as its file defines it.

    Args:
        action: the action of the events.
        version: the version that the events say they have.
        level: what happens to events that break it: nothing, they are counted, or they are refused.
        schema: the JSON Schema, without the key `x-refold`.
        shape: what the schema says.
        about: the owner and the day since which it holds, if the file names them.
        path: the file.
    """

    action: str
    version: int
    level: Level
    schema: dict[str, Any]
    shape: Object
    about: Mapping[str, str]
    path: Path | None = None

    @property
    def title(self) -> str:
        """Its name in messages."""
        return f"{self.action} v{self.version}"

    @property
    def digest(self) -> str:
        """A fingerprint of all that the schema checks: descriptions and the order of keys do not count."""
        return digest_of(self.schema)

    @property
    def predicate(self) -> Predicate:
        """What the database evaluates."""
        return predicate_of(self.shape)


def load_contracts(folder: Path, mistakes: list[RefoldError]) -> list[Contract]:
    """Read every `*.json` of a folder, and return the contracts by action and version.

    Args:
        folder: the folder of contracts; it may not exist.
        mistakes: receives an error for everything that is wrong; the files with mistakes are left out.
    """
    found: dict[tuple[str, int], Contract] = {}
    for path in project_files(folder, ".json", wrong=mistakes.append):
        try:
            one = contract_file(path.stem, read_text(path), path, mistakes)
        except DefinitionError as error:
            mistakes.append(error)
            continue
        if one is None:
            continue
        other = found.setdefault((one.action, one.version), one)
        if other is not one:
            mistakes.append(
                DefinitionError(
                    f"{other.path} is the contract {one.title} too",
                    path=path,
                    remedy="Give one of them another version.",
                )
            )
    return [found[key] for key in sorted(found)]


def contract_file(stem: str, source: str, path: Path, mistakes: list[RefoldError]) -> Contract | None:
    """Read the text of a file; return None after mistakes.

    Args:
        stem: the file's name without its extension: `purchase`, or `purchase.v1`.
        source: the text of the file.
        path: the file, for messages.
        mistakes: receives an error for everything that is wrong.

    Raises:
        DefinitionError: the text is not a JSON object.
    """
    try:
        document = parse_json(source)
    except ValueError as error:
        raise DefinitionError(str(error), path=path) from None
    if not isinstance(document, dict):
        raise DefinitionError(f"must be a JSON Schema (an object), not {kind(document)}", path=path)
    problems: list[Problem] = []
    named = _NAME.fullmatch(stem)
    assert named is not None
    about = _about(document.get(ABOUT), named["version"], problems)
    schema = {key: value for key, value in document.items() if key != ABOUT}
    shape = schema_of(schema, problems)
    mistakes += [DefinitionError(f"{one.where}: {one.message}", path=path, remedy=one.remedy) for one in problems]
    if problems or shape is None:
        return None
    action = about.pop("action", named["action"])
    version, level = int(about.pop("version")), about.pop("level", "warn")
    return Contract(str(action), version, level, schema, shape, about, path)


def _about(given: object, named: str | None, problems: list[Problem]) -> dict[str, Any]:
    """Return what the key `x-refold` says, and add what is wrong with it."""

    def wrong(key: str, message: str, remedy: str | None = None) -> None:
        problems.append(Problem((ABOUT, key) if key else (ABOUT,), message, remedy))

    if not isinstance(given, dict):
        wrong("", "is missing" if given is None else f"must be an object, not {kind(given)}", _REMEDY)
        return {}
    for key in given:
        if key not in _KEYS:
            wrong(key, f"is not known.{did_you_mean(key, _KEYS)}", f"The keys are {', '.join(_KEYS)}.")
    version = given.get("version")
    if isinstance(version, bool) or not isinstance(version, int) or not 1 <= version <= 32767:
        wrong("version", "is missing" if version is None else "must be a whole number from 1 to 32767", _REMEDY)
    elif named is not None and int(named) != version:
        wrong("version", f"is {version}, but the file's name says v{named}", "Rename the file, or correct the version.")
    level = given.get("level", "warn")
    if level not in LEVELS:
        near = did_you_mean(level, LEVELS) if isinstance(level, str) else ""
        wrong("level", f"must be off, warn or enforce, not {level!r}.{near}")
    for key in ("owner", "action"):
        if key in given and (not isinstance(given[key], str) or not 1 <= len(given[key]) <= 255):
            wrong(key, "must be a text of 1 to 255 characters")
    if "since" in given and not _is_day(given["since"]):
        wrong("since", "must be a day", 'Write "since": "2026-03-01".')
    return {key: value for key, value in given.items() if key in _KEYS}


def _is_day(value: object) -> bool:
    try:
        return isinstance(value, str) and bool(date.fromisoformat(value))
    except ValueError:
        return False


def digest_of(schema: object) -> str:
    """Return a fingerprint of what a schema checks. Pure."""
    text = json.dumps(_bare(schema), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def differences(old: object, new: object) -> list[str]:
    """Return where two schemas check different things, in words. Pure."""
    return list(_differ(_bare(old), _bare(new), ""))


def _differ(old: Any, new: Any, path: str) -> Iterator[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in dict.fromkeys((*old, *new)):
            where = f"{path}.{key}" if path else key
            if key not in new:
                yield f"{where}: was {_shown(old[key])}, is gone"
            elif key not in old:
                yield f"{where}: is new: {_shown(new[key])}"
            else:
                yield from _differ(old[key], new[key], where)
    elif old != new:
        yield f"{path}: was {_shown(old)}, is {_shown(new)}"


def _shown(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:59]}…"


def _bare(schema: object) -> Any:
    """Return a schema without what checks nothing; `$defs` stay, because references lead there."""
    if not isinstance(schema, dict):
        return _plain(schema)
    found: dict[str, Any] = {}
    for key, value in schema.items():
        if (key in ANNOTATIONS and key != "$defs") or key.startswith("x-"):
            continue
        if key in ("properties", "$defs") and isinstance(value, dict):
            found[key] = {name: _bare(one) for name, one in value.items()}
        elif key == "anyOf" and isinstance(value, list):
            found[key] = [_bare(one) for one in value]
        elif key == "required" and isinstance(value, list):
            found[key] = sorted(value)
        else:
            found[key] = _bare(value) if key == "items" else _plain(value)
    return found


def _plain(value: Any) -> Any:
    """Return a value whose numbers are equal if they are: 1, 1.0 and 1.00 are one."""
    if isinstance(value, list):
        return [_plain(one) for one in value]
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        return value
    number = Decimal(str(value))
    return int(number) if number == number.to_integral_value() else float(number)
