"""The mapping from records to events.

A column goes where `--map` sends it; one that is called like a field of the event, and that `--map` does not
mention, fills that field; the rest go into metadata under their own names. Empty CSV values count as absent.
A path (`actor.id`) reads from an object, which stays in metadata whole; of several places (`a|b`), the first that has
a value fills the field, and the others stay in metadata.
JSON lines without `--map` must have the shape of events already: there a field too many is an error.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import repeat
from typing import Any

from pydantic import ValidationError

from refold.errors import InputError
from refold.model.event import timestamps
from refold.model.event.exact_json import encode, parse_json_line, string
from refold.model.event.jsonb_limits import SURELY_SMALL
from refold.model.event.source_event import MAX_VERSION, SourceEvent, reasons
from refold.model.event.spellings import as_iso
from refold.model.event.wire import (
    WireEvent,
    are_ordinary,
    are_ordinary_ids,
    are_ordinary_users,
    convert,
    quick,
    quick_times,
    wire,
)
from refold.sources.files.identity import STDIN, joined_id, row_id
from refold.sources.files.lookup import EMPTY, Lookup
from refold.sources.files.mapping import FIELDS, ID_REMEDY, IN_METADATA, Mapping, did_you_mean
from refold.sources.files.records import Record, Records, Source

_REMEDIES = {
    "id": ID_REMEDY,
    "action": "Add --map action=COLUMN, or --set action=VALUE for all rows",
    "ts": "Add --map ts=COLUMN",
}
_INTEGER = re.compile("[+-]?[0-9]{1,9}").fullmatch
_MAX_PLANS = 1000


@dataclass(frozen=True, slots=True)
class _Plan:
    """The target of each column of a record."""

    fields: tuple[tuple[str, str], ...]
    """(field of the event, column), metadata excepted."""
    metadata: str | None
    """Column that holds a whole metadata object."""
    keys: tuple[tuple[str, str], ...]
    """(key in metadata, column)."""
    lookups: tuple[tuple[str, Lookup], ...]
    """(target, place) of paths and choices, which each record answers anew."""


@dataclass(frozen=True, slots=True)
class _Row:
    """The columns of the fields of an event, and the values that all events have."""

    id: str | None
    user: str | None
    action: str | None
    ts: str | None
    fixed_user: Any
    fixed_action: Any
    fixed_ts: str | None
    version: Any
    start: str
    """The constant part of the metadata, as JSON without braces."""
    keys: tuple[tuple[str, str], ...]
    """(key in metadata as JSON with its colon, column)."""

    def metadata(self, columns: Sequence[Sequence[str]], count: int) -> list[str]:
        """Return the metadata of rows as JSON; empty values are left out.

        Args:
            columns: the values of each key. What was decoded from UTF-8 has no half characters, and a line has no NUL.
            count: number of rows.
        """
        names = [key for key, _ in self.keys]
        texts = [list(map(string, values)) for values in columns]
        if not names:
            return ["{" + self.start + "}"] * count
        if not any("" in values for values in columns):
            form = ",".join(([_literal(self.start)] if self.start else []) + [_literal(name) + "%s" for name in names])
            return ["{" + form % one + "}" for one in zip(*texts, strict=True)]
        cells = [
            [name + text if text != '""' else "" for text in column] for name, column in zip(names, texts, strict=True)
        ]
        return ["{" + ",".join(filter(None, one)) + "}" for one in zip([self.start] * count, *cells, strict=True)]


def _literal(text: str) -> str:
    """Return a text as a part of a format."""
    return text.replace("%", "%%")


class Mapper:
    """A mapper that converts the records of one source to events; `mapper(record)` returns a SourceEvent or a reason.

    The constructor raises InputError for a column that the source lacks, and for a field that no column fills.
    """

    def __init__(self, mapping: Mapping, source: Source) -> None:
        self._mapping = mapping
        self._source = source.name
        self._columns = source.columns
        self._is_text = source.is_text
        self._absent = source.absent
        self._convert: dict[str, Callable[[Any], object]] = {
            "ts": _named("ts", timestamps.parser(mapping.timezone, mapping.ts_format)),
            "version": _named("version", _version),
            "metadata": _named("metadata", _object),
        }
        by_row = mapping.id_from is not None and not mapping.id_from.columns
        if by_row and source.name == STDIN:
            raise InputError("--id-from row needs the name of the source", remedy="Add --source NAME.")
        self._constants, self._constant_keys = self._read_constants()
        self._plans: dict[tuple[str, ...], _Plan] = {}
        self._fixed_plan = None if source.columns is None else self._plan(source.columns)
        shaped = source.columns is None and not mapping.map
        self._shape = self._as_it_is if shaped else self._mapped
        self._row = None if self._fixed_plan is None else self._row_of(self._fixed_plan)
        constant = self._constants or self._constant_keys
        self._unchanged = shaped and not (constant or mapping.id_from or mapping.timezone or mapping.ts_format)
        # Numbers in events of this shape may count something else than milliseconds.
        self._unmarked = shaped and not (mapping.timezone or mapping.ts_format or "ts" in self._constants)

    def wire(self, records: Records | list[Record]) -> list[WireEvent | str]:
        """Return what each record is, as `mapper(record)` does, in the form that goes to Postgres."""
        if isinstance(records, Records):
            return [*convert(records, self._together, self._alone)]
        return [self._alone(record) for record in records]

    def _together(self, records: Records) -> list[WireEvent] | None:
        """Return records as events if all are valid for certain; None says nothing about any."""
        if self._row is not None:
            return self._quick_rows(self._row, records)
        try:
            found = quick(
                records.values
                if self._unchanged
                else [self._shape(record, record.fields) for record in records if record.fields is not None]
            )
        except (ValueError, InputError):
            return None
        if found is not None and self._unmarked and any(self._is_doubtful(fields["ts"]) for fields in records.values):
            return None
        return found

    def _alone(self, record: Record) -> WireEvent | str:
        if record.fields is not None:
            try:
                found = quick([self._shape(record, record.fields)])
            except (ValueError, InputError) as error:
                return str(error)
            if found is not None and not (self._unmarked and self._is_doubtful(record.fields["ts"])):
                return found[0]
        event = self(record)
        return event if isinstance(event, str) else wire(event)

    def _row_of(self, plan: _Plan) -> _Row | None:
        """Return how a row of text becomes an event without a look at each field; None if it does not."""
        fields = dict(plan.fields)
        constants = self._constants
        if not self._is_text or plan.lookups or plan.metadata or "version" in fields or "metadata" in constants:
            return None
        try:
            start = encode(self._constant_keys)[1:-1]
            keys = tuple((encode(key) + ":", column) for key, column in plan.keys)
            (start + "".join(key for key, _ in keys)).encode()
        except ValueError:
            return None
        fixed = quick_times([constants.get("ts")]) or []
        return _Row(
            fields.get("id"), fields.get("user_id"), fields.get("action"), fields.get("ts"),
            constants.get("user_id"), constants.get("action"), next(iter(fixed), None),
            constants.get("version", 1), start, keys,
        )  # fmt: skip

    def _quick_rows(self, row: _Row, records: Records) -> list[WireEvent] | None:
        """Return rows of text as events if all are valid for certain; None says nothing about any."""
        columns = dict(zip(records.columns or (), zip(*records.values, strict=True), strict=True))
        try:
            ids = self._quick_ids(row, records, columns)
            times = [row.fixed_ts] * len(records) if row.ts is None else self._times(columns[row.ts])
        except (ValueError, KeyError):
            return None
        actions = [row.fixed_action] * len(records) if row.action is None else columns[row.action]
        users = [row.fixed_user] * len(records)
        if row.user is not None:
            users = [user or row.fixed_user for user in columns[row.user]]
        if times[0] is None or not are_ordinary_ids(ids) or not are_ordinary(actions) or not are_ordinary_users(users):
            return None
        texts = row.metadata([columns[column] for _, column in row.keys], len(records))
        if max(map(len, texts)) >= SURELY_SMALL:
            return None
        fields = zip(ids, users, actions, times, texts, repeat(row.version), strict=False)
        return [*map(WireEvent._make, fields)]

    def _quick_ids(self, row: _Row, records: Records, columns: dict[str, tuple[str, ...]]) -> Sequence[str]:
        if row.id is not None:
            return columns[row.id]
        of = self._mapping.id_from.columns if self._mapping.id_from is not None else ()
        if not of:
            return [row_id(self._source, at) for at in range(records.row, records.row + len(records))]
        values = zip(*(columns[column] for column in of), strict=True)
        return [joined_id(of, dict(zip(of, one, strict=True))) for one in values]

    def _times(self, values: Sequence[str]) -> Sequence[str]:
        """Return times of a column as text for Postgres; it raises ValueError like the conversion of each source."""
        found = quick_times(values) if self._mapping.ts_format is None else None
        return found or [self._convert["ts"](value).isoformat() for value in values]  # type: ignore[attr-defined]

    @staticmethod
    def _is_doubtful(ts: object) -> bool:
        """Return whether a number may count something else than milliseconds."""
        return type(ts) is int and ts not in timestamps.LIKELY_MS

    def __call__(self, record: Record) -> SourceEvent | str:
        if record.fields is None:
            return record.error or "cannot be read"
        try:
            shape = self._shape(record, record.fields)
            try:
                event = SourceEvent.model_validate(shape)
            except ValidationError:
                written = shape.get("ts")
                if not self._unmarked or not isinstance(written, str) or as_iso(written) == written:
                    raise
                # Only files spell their times so.
                event = SourceEvent.model_validate({**shape, "ts": self._convert["ts"](written)})
            ts = record.fields["ts"] if self._unmarked else None
            if type(ts) is int and ts not in timestamps.LIKELY_MS:
                self._convert["ts"](ts)  # says what it is
            return event
        except ValidationError as error:
            return self._explained(error, record.fields)
        except (ValueError, InputError) as error:
            return str(error)

    def _explained(self, error: ValidationError, fields: dict[str, object]) -> str:
        """Return the errors of an event, with a suggestion."""
        wrong = {detail["loc"][0] for detail in error.errors(include_url=False) if detail["loc"]}
        told = reasons(error)
        if "version" in wrong:
            told += self._otherwise("version")
        ts = fields.get("ts")
        if self._unmarked and "ts" in wrong and type(ts) in (int, float, Decimal) and abs(ts) < 10**30:  # type: ignore[arg-type]
            told += f"; {timestamps.name_it(str(ts))}"
        return told

    def _converted(self, target: str, value: object) -> object:
        """Convert a column's value to the value of a field."""
        try:
            return self._convert[target](value)
        except ValueError as error:
            raise ValueError(f"{error}{self._otherwise(target)}") from None

    def _otherwise(self, target: str) -> str:
        """Return the remedy for a column that fills a field only because of its name."""
        if target not in ("version", "metadata") or target in self._mapping.map or target in self._constants:
            return ""
        return f"; if the column has another meaning: --map metadata.{target}={target}"

    def _mapped(self, record: Record, fields: dict[str, object]) -> dict[str, object]:
        plan = self._fixed_plan or self._plan_for(tuple(fields))
        absent = self._absent
        event = self._constants.copy()
        for target, column in plan.fields:
            value = fields[column]
            if value == absent:
                if target in _REMEDIES:
                    raise ValueError(f"{target}: the column {column!r} is empty")
                continue
            event[target] = self._value(target, value)
        metadata = self._constant_keys.copy()
        if self._columns is not None:
            metadata.update([(key, value) for key, column in plan.keys if (value := fields[column]) != absent])
        else:
            metadata.update([(key, fields[column]) for key, column in plan.keys if column in fields])
        whole = fields[plan.metadata] if plan.metadata else absent
        if plan.lookups:
            whole = self._look_up(plan.lookups, fields, event, metadata, whole)
        if whole not in (absent, ""):
            metadata = _merged(self._converted("metadata", whole), metadata)
        event["metadata"] = _merged(event["metadata"], metadata) if "metadata" in event else metadata
        self._add_id(event, record, fields)
        return event

    def _value(self, target: str, value: object) -> object:
        if target in self._convert:
            return self._converted(target, value)
        return value if self._is_text else _integer_as_text(value)

    def _look_up(
        self,
        lookups: tuple[tuple[str, Lookup], ...],
        fields: dict[str, object],
        event: dict[str, object],
        metadata: dict[str, object],
        whole: object,
    ) -> object:
        """Fill fields and metadata from paths and choices; return the value of the whole metadata."""
        found = {target: lookup.find(fields) for target, lookup in lookups}
        for one in found.values():
            # The column that fills a field is not repeated in metadata.
            if one is not None and one[0] in fields:
                metadata.pop(one[0], None)
        for target, lookup in lookups:
            one = found[target]
            if one is None or one[1] == self._absent:
                if target in _REMEDIES:
                    raise ValueError(f"{target}: the record has no value for {lookup.text!r}")
            elif target == "metadata":
                whole = one[1]
            elif target in FIELDS:
                event[target] = self._value(target, one[1])
            else:
                key = target.removeprefix(IN_METADATA)
                if metadata.get(key) not in EMPTY:
                    raise ValueError(f"metadata: would get {key!r} twice: map that column to another key")
                metadata[key] = one[1]
        return whole

    def _as_it_is(self, record: Record, fields: dict[str, object]) -> dict[str, object]:
        event = {**self._constants, **fields}
        for target in self._constants:
            if target in fields:
                raise ValueError(f"{target}: the record has it, but --set {target} is given, too")
        if self._mapping.id_from and "id" in fields:
            raise ValueError("id: the record has an id, but --id-from is given, too")
        if self._constant_keys:
            event["metadata"] = _merged(event.get("metadata", {}), self._constant_keys)
        if "ts" in event and (self._mapping.timezone or self._mapping.ts_format):
            event["ts"] = self._convert["ts"](event["ts"])
        if "id" not in event and self._mapping.id_from is None:
            raise ValueError(f"id: is missing. {ID_REMEDY}")
        self._add_id(event, record, fields)
        return event

    def _add_id(self, event: dict[str, object], record: Record, fields: dict[str, object]) -> None:
        id_from = self._mapping.id_from
        if id_from is not None:
            columns = id_from.columns
            event["id"] = joined_id(columns, fields) if columns else row_id(self._source, record.row)

    def _read_constants(self) -> tuple[dict[str, object], dict[str, object]]:
        """Convert the values of --set once, and refuse values that would make every row invalid."""
        given = self._mapping.constants
        keys: dict[str, object] = {
            target.removeprefix(IN_METADATA): value for target, value in given.items() if target not in FIELDS
        }
        try:
            constants = {
                target: self._convert[target](value) if target in self._convert else value
                for target, value in given.items()
                if target in FIELDS
            }
            whole = _merged(constants.get("metadata", {}), keys)
            SourceEvent.model_validate({"id": "-", "action": "-", "ts": 0, **constants, "metadata": whole})
        except ValidationError as error:
            raise InputError(f"--set {reasons(error)}") from None
        except ValueError as error:
            raise InputError(f"--set {error}") from None
        return constants, keys

    def _plan_for(self, columns: tuple[str, ...]) -> _Plan:
        """Plan a JSON record; records with the same keys share the plan."""
        plan = self._plans.get(columns)
        if plan is None:
            if len(self._plans) >= _MAX_PLANS:
                self._plans.clear()
            plan = self._plans[columns] = self._plan(columns)
        return plan

    def _plan(self, columns: Sequence[str]) -> _Plan:
        wanted = dict(self._mapping.map)
        places = {text: Lookup.parse(text) for text in wanted.values()}
        mentioned = {place for lookup in places.values() for place in (lookup.text, *lookup.places)}
        by_name = set(FIELDS) - wanted.keys() - self._constants.keys()
        if self._mapping.id_from:
            by_name.discard("id")
        wanted |= {name: name for name in columns if name in by_name and name not in mentioned}
        self._check_columns(columns, wanted)
        lookups = tuple(
            (target, places[text])
            for target, text in wanted.items()
            if text not in columns and not places[text].is_simple()
        )
        direct = {target: text for target, text in wanted.items() if target not in dict(lookups)}
        taken = set(direct.values())
        keys = [(t.removeprefix(IN_METADATA), c) for t, c in direct.items() if t not in FIELDS]
        keys += [(column, column) for column in columns if column not in taken]
        names = [*self._constant_keys, *(key for key, _ in keys)]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise InputError(
                f"metadata would get {twice!r} twice", remedy=f"Rename one of them: --map metadata.OTHER={twice}"
            )
        return _Plan(
            tuple((t, c) for t, c in direct.items() if t in FIELDS and t != "metadata"),
            direct.get("metadata"),
            tuple(keys),
            lookups,
        )

    def _check_columns(self, columns: Sequence[str], wanted: dict[str, str]) -> None:
        fixed = self._columns is not None
        what = "column" if fixed else "field"
        needed = [(f"--map {t}=…", c) for t, c in wanted.items() if t in FIELDS or fixed]
        needed += [("--id-from", c) for c in (self._mapping.id_from.columns if self._mapping.id_from else ())]
        for option, column in needed:
            lookup = Lookup.parse(column)
            if not fixed and not lookup.is_simple():
                continue  # each record has it or lacks it
            if not lookup.in_columns(tuple(columns), nested=not self._is_text):
                joined = fixed and len(columns) == 1 and re.search("[,;|\t]", columns[0])
                named = " or ".join(repr(place) for place in lookup.places)
                raise InputError(
                    f"there is no {what} {named} for {option}{did_you_mean(column, columns)}",
                    remedy=f"Add --delimiter {joined[0]!r}." if joined else f"The {what}s are: {', '.join(columns)}.",
                )
        filled = wanted.keys() | self._constants.keys() | ({"id"} if self._mapping.id_from else set())
        for target, remedy in _REMEDIES.items():
            if target not in filled:
                raise InputError(
                    f"no {what} or option gives the events a value for {target}",
                    remedy=f"{remedy}. The {what}s are: {', '.join(columns)}.",
                )


def _named(target: str, convert: Callable[[Any], object]) -> Callable[[Any], object]:
    """Prefix the errors of a conversion with the field's name."""

    def converted(value: Any) -> object:
        try:
            return convert(value)
        except ValueError as error:
            raise ValueError(f"{target}: {error}") from None

    return converted


def _object(value: object) -> object:
    return parse_json_line(value) if isinstance(value, str) else value


def _version(value: object) -> object:
    if not isinstance(value, str):
        return value
    if not _INTEGER(value.strip()):
        raise ValueError(f"must be a whole number from 1 to {MAX_VERSION}, not {value[:40]!r}")
    return int(value)


def _integer_as_text(value: object) -> object:
    """Convert an integer to text, because many sources number their users."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _merged(whole: object, keys: dict[str, object]) -> dict[str, object]:
    if not isinstance(whole, dict):
        raise ValueError("metadata: must be an object")
    clash = next((key for key in keys if key in whole), None)
    if clash is not None:
        raise ValueError(f"metadata: would get {clash!r} twice: map that column to another key")
    return {**whole, **keys}
