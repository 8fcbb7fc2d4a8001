"""The event: an immutable fact, validated completely before it is sent to the database.

Postgres can store every valid SourceEvent. `refold.append(jsonb)` in SQL has the same rules, and the shared cases in
`tests/cases/events.json` test both.
"""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PlainValidator, ValidationError
from pydantic_core import ErrorDetails

from refold.model.event import timestamps
from refold.model.event.exact_json import kind, metadata_json, parse_json_line
from refold.model.event.jsonb_limits import problem, text_problem
from refold.suggest import closest

__all__ = ["Answer", "SourceEvent", "metadata_json", "parse_json_line", "reasons"]

MAX_CHARACTERS = 255
"""Greatest length of id, user_id and action, in characters (code points): it always fits an index."""

MAX_VERSION = 32_767


class Answer(StrEnum):
    """The outcome of appending one event."""

    accepted = "accepted"
    duplicate = "duplicate"
    """An event with the same id and the same content is in the log already."""
    conflict = "conflict"
    """An event with the same id and other content is in the log already; the new event is rejected."""
    invalid = "invalid"
    """The event breaks a rule of SourceEvent, or its contract; it is rejected with the reason."""

    @property
    def rejected(self) -> bool:
        """Return whether the input is in `refold.rejected` and not in the log."""
        return self in (Answer.conflict, Answer.invalid)


def _instant(value: object) -> datetime:
    if type(value) is str:
        return timestamps.from_iso(value)
    if type(value) is int:
        return timestamps.from_epoch_ms(value)
    if type(value) is datetime:
        return timestamps.to_utc(value)
    if isinstance(value, datetime):
        # A subclass may hold more than a datetime (nanoseconds) or less (pandas' NaT), so its text is read.
        return timestamps.from_iso(value.isoformat())
    raise ValueError(f"must be ISO 8601 text or whole milliseconds since 1970, not {kind(value)}")


def _storable(value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"must be an object, not {kind(value)}")
    found = problem(value)
    if found is not None:
        raise ValueError(found)
    return value.copy()


RESERVED = "capture:"
"""Beginning of the ids of captured rows, which only the database chooses."""


def _own_id(value: str) -> str:
    if value.startswith(RESERVED):
        raise ValueError(f'must not begin with "{RESERVED}", which is reserved for events of captured tables')
    return value


Text = Annotated[str, Field(min_length=1, max_length=MAX_CHARACTERS, pattern=r"^[^\x00]*$")]


class SourceEvent(BaseModel):
    """An event as its source reports it.

    Types are strict: "7" is an id, but the number 7 is not.

    Raises:
        pydantic.ValidationError: a field is wrong; `reasons` turns the error into one line.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    id: Annotated[Text, AfterValidator(_own_id)]
    """The permanent id of the event: the log accepts each id once."""
    user_id: Text | None = None
    """The user who acted; null if the user is unknown."""
    action: Text
    """The kind of event, such as `buy`."""
    ts: Annotated[datetime, PlainValidator(_instant, json_schema_input_type=int | str)]
    """The time of the event, UTC. Input: milliseconds since 1970 or ISO 8601 with offset; see `timestamps`."""
    metadata: Annotated[dict[str, Any], PlainValidator(_storable)] = Field(default_factory=dict)
    """Further data, as a JSON object within the limits of `jsonb_limits`."""
    version: Annotated[int, Field(ge=1, le=MAX_VERSION)] = 1
    """The version of the source's schema."""


def reasons(error: ValidationError) -> str:
    """Return one line that names each wrong field, its mistake, and what would be valid; at most 1,000 characters."""
    lines = [_reason(detail) for detail in error.errors(include_url=False)]
    return "; ".join(dict.fromkeys(lines))[:1000]


def _reason(detail: ErrorDetails) -> str:
    value = detail["input"]
    if not detail["loc"]:
        if detail["type"] == "string_unicode":
            return _unknown_field(str(value))
        return f"an event must be an object, not {kind(value)}"
    field = str(detail["loc"][0])
    match detail["type"]:
        case "extra_forbidden":
            return _unknown_field(field)
        case "missing":
            return f"{field}: is missing"
        case "string_type":
            return f"{field}: must be a string, not {kind(value)}"
        case "string_too_short" | "string_too_long":
            null = " (null if unknown)" if field == "user_id" and not value else ""
            return f"{field}: must have 1 to {MAX_CHARACTERS} characters, not {len(value)}{null}"
        case "string_unicode" | "string_pattern_mismatch":
            return f"{field}: {text_problem(value)}"
        case "value_error":
            return f"{field}: {detail['ctx']['error']}"
        case _ if field == "version":
            return f"version: must be a whole number from 1 to {MAX_VERSION}, not {_number_or_kind(value)}"
        case _:
            return f"{field}: {detail['msg']}"


def _unknown_field(name: str) -> str:
    close = closest(name, SourceEvent.model_fields)
    hint = f"did you mean '{close}'?" if close else "put it into metadata"
    return f"unknown field {name[:60]!a}: {hint}"


def _number_or_kind(value: object) -> str:
    shown = isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 10**9
    return str(value) if shown else kind(value)
