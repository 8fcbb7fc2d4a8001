"""From the many ways of writing a time to one: an aware datetime in UTC, to the microsecond.

`from_iso` and `from_epoch_ms` are the two forms that an event may use; `parser` also reads what files hold
once a time zone or a format is given. Every failure is a ValueError whose text completes "ts: …".

Digits beyond the microsecond are cut off, never rounded: `timestamptz` would round, so SQL cuts them off
before it casts. The range is 0001-01-01 to 9999-12-31 UTC, which Python and Postgres share.
"""

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, tzinfo
from decimal import ROUND_FLOOR, Decimal
from functools import lru_cache

from refold.exact_json import kind

EARLIEST_MS = -62_135_596_800_000
LATEST_MS = 253_402_300_799_999
"""First and last millisecond since 1970 that an event may carry: years 1 to 9999."""

DATE_PATTERN = "(?!0000)[0-9]{4}-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12][0-9]|3[01])"
TIME_PATTERN = r"(?:[01][0-9]|2[0-3]):[0-5][0-9](?::[0-5][0-9](?:\.[0-9]+)?)?"
OFFSET_PATTERN = "(?:Z|[+-](?:0[0-9]|1[0-5])(?::?[0-5][0-9]|:[0-5][0-9]:[0-5][0-9])?)"
ISO_PATTERN = f"^{DATE_PATTERN}[T ]{TIME_PATTERN}{OFFSET_PATTERN}$"
"""An event's time as text, as a regular expression that Python and Postgres read alike.

What it leaves to check is 30 February. Offsets end at ±15:59:59, as in Postgres; leap seconds and 24:00 have
no place in `timestamptz` or `datetime` and are refused.
"""

_ISO = re.compile(ISO_PATTERN.removeprefix("^").removesuffix("$")).fullmatch
_LOCAL = re.compile(f"({DATE_PATTERN})(?:[T ]{TIME_PATTERN}({OFFSET_PATTERN})?)?").fullmatch
_NUMBER = re.compile(r"[+-]?[0-9]+(?:\.[0-9]+)?").fullmatch

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_EPOCH_UNITS = {"epoch_s": 1_000_000, "epoch_ms": 1_000}
_EXAMPLE = "2020-01-31T12:00:00Z"
_OUT_OF_RANGE = "is out of range: years 1 to 9999 UTC"

_DIRECTIVES = frozenset("aAwdbBmyYHIpMSfzjUWcxXGuV%")
_YEAR_DIRECTIVES = frozenset("yYcxG")
_TIME_DIRECTIVES = frozenset("HIMSfcX")


def from_epoch_ms(value: int) -> datetime:
    """Convert whole milliseconds since 1970-01-01 UTC."""
    if not EARLIEST_MS <= value <= LATEST_MS:
        # Not every integer can be shown: Python prints no more than 4,300 digits.
        shown = value if abs(value) < 10**30 else "the number"
        raise ValueError(f"{shown} {_OUT_OF_RANGE}, in milliseconds")
    seconds, milliseconds = divmod(value, 1000)
    return _EPOCH + timedelta(0, seconds, milliseconds * 1000)


def from_iso(text: str) -> datetime:
    """Convert ISO 8601 text with an offset, such as 2020-01-31T12:00:00.123456+02:00."""
    if _ISO(text):
        return _from_valid_iso(text)
    if _LOCAL(text):
        raise ValueError(f"{_short(text)} has no offset from UTC: add Z or ±hh:mm")
    raise ValueError(f"{_short(text)} is not an ISO 8601 time such as {_EXAMPLE}")


def to_utc(moment: datetime) -> datetime:
    """Convert an aware datetime to UTC; a naive one is refused."""
    if moment.tzinfo is None or moment.utcoffset() is None:
        raise ValueError(f"{_short(moment.isoformat())} has no offset from UTC: give the datetime a tzinfo")
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise ValueError(f"{moment.isoformat()} {_OUT_OF_RANGE}") from None


def parse(value: str | int, *, timezone: tzinfo | None = None, ts_format: str | None = None) -> datetime:
    """Convert one time as a file holds it; `parser` explains the arguments."""
    return parser(timezone, ts_format)(value)


def parser(timezone: tzinfo | None = None, ts_format: str | None = None) -> Callable[[object], datetime]:
    """Make the function that reads the times of one source.

    timezone: where times without an offset were written down. A time that the clocks there skipped is
        refused; of one that they showed twice, the first is meant. A date alone means the start of that day.
    ts_format: `epoch_s`, `epoch_ms` (fractions allowed) or a format of `datetime.strptime`. Without it, text
        is ISO 8601 and an integer is milliseconds since 1970.

    Raises ValueError for a format that cannot work; the function raises it for a time it cannot read.
    """
    if ts_format is None:
        return lambda value: _read_plain(value, timezone)
    if ts_format in _EPOCH_UNITS:
        unit = _EPOCH_UNITS[ts_format]
        return lambda value: _read_epoch(value, unit)
    directives = _directives(ts_format)
    if "z" not in directives and timezone is None:
        raise ValueError(f"the format {ts_format!r} has no %z (offset): say where, with --timezone")
    whole_days = not _TIME_DIRECTIVES & directives

    # Files repeat their times (a day, a second), and strptime costs 6 µs.
    @lru_cache(maxsize=4096)
    def read(text: str) -> datetime:
        try:
            moment = datetime.strptime(text, ts_format)
        except ValueError:
            raise ValueError(f"{_short(text)} does not have the format {ts_format!r}") from None
        if moment.tzinfo is not None or timezone is None:
            return to_utc(moment)
        return _localise(moment, timezone, whole_days)

    return lambda value: read(_text(value))


def _read_plain(value: object, timezone: tzinfo | None) -> datetime:
    if not isinstance(value, str):
        if isinstance(value, int) and not isinstance(value, bool):
            return from_epoch_ms(value)
        raise ValueError(f"must be a string or an integer, not {kind(value)}")
    text = value.strip()
    form = _LOCAL(text)
    if form is None:
        if not text:
            raise ValueError("is empty")
        hint = "epoch_ms, epoch_s or a strptime format" if _NUMBER(text) else "a strptime format"
        raise ValueError(f"{_short(text)} is not an ISO 8601 time: name its form with --ts-format ({hint})")
    if form[2]:
        return _from_valid_iso(text)
    if timezone is None:
        raise ValueError(f"{_short(text)} has no offset from UTC: say where it was written, with --timezone")
    return _localise(_from_iso_digits(text), timezone, whole_day=len(text) == len(form[1]))


def _read_epoch(value: object, microseconds: int) -> datetime:
    text = _text(value)
    if not _NUMBER(text):
        raise ValueError(f"{_short(text)} is not a number of seconds or milliseconds, as --ts-format says")
    since = (Decimal(text) * microseconds).to_integral_value(ROUND_FLOOR)
    if not EARLIEST_MS * 1000 <= since <= LATEST_MS * 1000 + 999:
        raise ValueError(f"{_short(text)} {_OUT_OF_RANGE}")
    return _EPOCH + timedelta(microseconds=int(since))


def _from_valid_iso(text: str) -> datetime:
    return to_utc(_from_iso_digits(text))


def _from_iso_digits(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{_short(text)} is not a day of the calendar") from None


def _localise(moment: datetime, timezone: tzinfo, whole_day: bool) -> datetime:
    if timezone is UTC:
        return moment.replace(tzinfo=UTC)
    try:
        instant = moment.replace(tzinfo=timezone).astimezone(UTC)
        shown = instant.astimezone(timezone).replace(tzinfo=None)
    except OverflowError:
        raise ValueError(f"{moment.isoformat()} {_OUT_OF_RANGE}") from None
    if shown != moment and not (whole_day and shown.date() == moment.date()):
        raise ValueError(f"{moment.isoformat()} never was on the clocks of {timezone}: they were put forward")
    return instant


def _directives(ts_format: str) -> set[str]:
    found = set(re.findall(r"%(.?)", ts_format, re.DOTALL))
    unknown = sorted(found - _DIRECTIVES)
    if "Z" in found:
        raise ValueError("%Z (a zone's name) is ambiguous: write the name as plain text and give --timezone")
    if unknown:
        raise ValueError(f"the format {ts_format!r} has the unknown directive %{unknown[0]}")
    if not found & _YEAR_DIRECTIVES:
        raise ValueError(f"the format {ts_format!r} has no year: times need one, such as %Y")
    return found


def _text(value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, (str, int, float, Decimal)):
        raise ValueError(f"must be a string or a number, not {kind(value)}")
    return str(value).strip()


def _short(value: object) -> str:
    text = ascii(value)
    return text if len(text) <= 50 else f"{text[:47]}…"
