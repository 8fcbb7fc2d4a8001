"""The user's options for a source: which column fills which field, how to read times, and how to derive ids."""

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, tzinfo
from zoneinfo import ZoneInfo, available_timezones

from refold.errors import InputError
from refold.model.event import timestamps
from refold.model.event.source_event import SourceEvent
from refold.sources.files.identity import IdFrom
from refold.suggest import closest

FIELDS = tuple(SourceEvent.model_fields)
IN_METADATA = "metadata."
ID_REMEDY = "Choose --id-from row, --id-from COLUMN,… or --map id=COLUMN"


@dataclass(frozen=True, slots=True)
class Mapping:
    """The options for one source; the constructor raises InputError for options that are wrong for any source."""

    map: dict[str, str] = field(default_factory=dict)
    """Target to source column; targets are the fields of an event and `metadata.KEY`."""
    constants: dict[str, str] = field(default_factory=dict)
    """Target to the value that every event gets."""
    timezone: tzinfo | None = None
    """Time zone of times without an offset."""
    ts_format: str | None = None
    """See `timestamps.parser`."""
    id_from: IdFrom | None = None
    """None: the source has ids."""

    @classmethod
    def parse(
        cls,
        *,
        map: Sequence[str] = (),
        set: Sequence[str] = (),
        timezone: str | None = None,
        ts_format: str | None = None,
        id_from: str | None = None,
    ) -> "Mapping":
        """Read the options of the command line.

        map: `target=column,target=column`, several times over if wanted. A part with a comma in it is
            quoted as in CSV: `ts=time,"user_id=name, first"`.
        set: `target=value`, in the same way.
        timezone: a name of the IANA database, such as Europe/Berlin.
        """
        return cls(
            {target: column.strip() for target, column in _pairs("--map", map)},
            dict(_pairs("--set", set)),
            None if timezone is None else find_timezone(timezone),
            ts_format,
            None if id_from is None else IdFrom.parse(id_from),
        )

    def __post_init__(self) -> None:
        for target in (*self.map, *self.constants):
            if target not in FIELDS and target.removeprefix(IN_METADATA) in ("", target):
                raise InputError(
                    f"events have no field {target!r}{did_you_mean(target, FIELDS)}",
                    remedy=f"Choose from {', '.join(FIELDS)}, metadata.KEY.",
                )
        both = sorted(self.map.keys() & self.constants.keys())
        if both:
            raise InputError(f"{both[0]} is in --map and in --set", remedy="Omit one of them.")
        if "id" in self.constants:
            raise InputError("--set id gives every event the same id", remedy=ID_REMEDY)
        if self.id_from and "id" in self.map:
            raise InputError("--id-from and --map id=… exclude each other", remedy="Omit one of them.")
        try:
            timestamps.parser(self.timezone, self.ts_format)
        except ValueError as error:
            raise InputError(f"--ts-format: {error}") from None


def find_timezone(name: str) -> tzinfo:
    """Look a time zone up by its IANA name."""
    if name == "UTC":
        return UTC  # there even where no time zone database is installed
    try:
        return ZoneInfo(name)
    except (ValueError, OSError, KeyError):
        hint = did_you_mean(name, available_timezones())
        raise InputError(f"unknown time zone {name!r}{hint}", remedy="Use a name such as Europe/Berlin.") from None


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Complete a message about an unknown name with the one that comes closest, if any does."""
    names = {candidate.lower(): candidate for candidate in known}
    close = closest(name.lower(), names)
    return f" (did you mean {names[close]!r}?)" if close else ""


def _pairs(option: str, texts: Sequence[str]) -> list[tuple[str, str]]:
    pairs: dict[str, str] = {}
    for text in texts:
        for part in next(csv.reader([text], skipinitialspace=True), []):
            target, equals, value = part.partition("=")
            target = target.strip()
            what = "COLUMN" if option == "--map" else "VALUE"
            if not target or not equals:
                raise InputError(
                    f"{option} {part!r} is not of the form FIELD={what}",
                    remedy=f"Write {option} {(target or part.strip('= ')) or 'FIELD'}={what}.",
                )
            if not value.strip():
                other = f" If the column {target} has another meaning: --map metadata.{target}={target}."
                raise InputError(
                    f"{option} {part.strip()} names no {what.lower()}",
                    remedy=f"Write {option} {target}={what}."
                    + (other if (option, target) == ("--map", "version") else ""),
                )
            if target in pairs:
                raise InputError(f"{option} gives {target} twice", remedy="Omit one of them.")
            pairs[target] = value
    return list(pairs.items())
