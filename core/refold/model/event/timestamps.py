"""Conversion of times in many formats to an aware datetime in UTC, to the microsecond.

`from_iso` and `from_epoch_ms` read the two formats that an event may use. `parser` also reads other formats of files,
given a time zone or a format. Every failure is a ValueError whose text completes "ts: …".

Digits beyond the microsecond are truncated, never rounded: `timestamptz` would round, so SQL truncates them before it
casts. The range is 0001-01-01 to 9999-12-31 UTC, which both Python and Postgres support.
"""

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, tzinfo
from decimal import ROUND_FLOOR, Decimal, localcontext
from functools import lru_cache

from refold.model.event.exact_json import kind
from refold.model.event.spellings import as_iso

EARLIEST_MS = -62_135_596_800_000
LATEST_MS = 253_402_300_799_999
"""First and last millisecond since 1970 that an event may carry: years 1 to 9999."""

DATE_PATTERN = "(?!0000)[0-9]{4}-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12][0-9]|3[01])"
TIME_PATTERN = r"(?:[01][0-9]|2[0-3]):[0-5][0-9](?::[0-5][0-9](?:\.[0-9]+)?)?"
OFFSET_PATTERN = "(?:Z|[+-](?:0[0-9]|1[0-5])(?::?[0-5][0-9]|:[0-5][0-9]:[0-5][0-9])?)"
ISO_PATTERN = f"^{DATE_PATTERN}[T ]{TIME_PATTERN}{OFFSET_PATTERN}$"
"""An event's time as text, as a regular expression that means the same in Python and in Postgres.

It does not check days that a month lacks, such as 30 February. Offsets end at ±15:59:59, as in Postgres. Leap seconds
and 24:00 are refused: `timestamptz` and `datetime` cannot store them.
"""

_ISO = re.compile(ISO_PATTERN.removeprefix("^").removesuffix("$")).fullmatch
_LOCAL = re.compile(f"({DATE_PATTERN})(?:[T ]{TIME_PATTERN}({OFFSET_PATTERN})?)?").fullmatch
_NUMBER = re.compile(r"[+-]?[0-9]+(?:\.[0-9]+)?").fullmatch

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_EPOCH_UNITS = {
    "epoch_s": Decimal(1_000_000),
    "epoch_ms": Decimal(1_000),
    "epoch_us": Decimal(1),
    "epoch_ns": Decimal("0.001"),
}
_EXCEL = "excel"
_EXCEL_START = datetime(1899, 12, 30)
_EXCEL_DAYS = (61, 2_958_466)
"""First day, and the day after the last. Before March 1900 spreadsheets disagree: Excel has a 29 February 1900."""
_LIKELY = (datetime(1990, 1, 1, tzinfo=UTC), datetime(2200, 1, 1, tzinfo=UTC))
"""A number without a given unit must be milliseconds between these times: in other units it would lie outside."""
LIKELY_MS = range(*(int(moment.timestamp()) * 1000 for moment in _LIKELY))
_FORMS = f"{', '.join(_EPOCH_UNITS)}, {_EXCEL} or a strptime format"
_EXAMPLE = "2020-01-31T12:00:00Z"
_OUT_OF_RANGE = "is out of range: years 1 to 9999 UTC"

_DIRECTIVES = frozenset("aAwdbBmyYHIpMSfzjUWcxXGuV%")
_YEAR_DIRECTIVES = frozenset("yYG")
_TIME_DIRECTIVES = frozenset("HIMSf")
_COMPOSED = {"c": "abdHMSY", "x": "mdy", "X": "HMS"}


def from_epoch_ms(value: int) -> datetime:
    """Convert whole milliseconds since 1970-01-01 UTC to a datetime in UTC."""
    if not EARLIEST_MS <= value <= LATEST_MS:
        # Python does not print integers of more than 4,300 digits.
        shown = value if abs(value) < 10**30 else "the number"
        raise ValueError(f"{shown} {_OUT_OF_RANGE}, in milliseconds")
    seconds, milliseconds = divmod(value, 1000)
    return _EPOCH + timedelta(0, seconds, milliseconds * 1000)


def from_iso(text: str) -> datetime:
    """Convert ISO 8601 text with an offset, such as 2020-01-31T12:00:00.123456+02:00, to a datetime in UTC."""
    if _ISO(text):
        return _from_valid_iso(text)
    if _LOCAL(text):
        raise ValueError(f"{_short(text)} has no offset from UTC: add Z or ±hh:mm")
    raise ValueError(f"{_short(text)} is not an ISO 8601 time such as {_EXAMPLE}")


def to_utc(moment: datetime) -> datetime:
    """Convert an aware datetime to UTC; refuse a naive datetime."""
    if moment.tzinfo is None or moment.utcoffset() is None:
        raise ValueError(f"{_short(moment.isoformat())} has no offset from UTC: give the datetime a tzinfo")
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise ValueError(f"{moment.isoformat()} {_OUT_OF_RANGE}") from None


def parse(value: str | int, *, timezone: tzinfo | None = None, ts_format: str | None = None) -> datetime:
    """Convert one time from a file to a datetime in UTC; `parser` explains the arguments."""
    return parser(timezone, ts_format)(value)


def parser(timezone: tzinfo | None = None, ts_format: str | None = None) -> Callable[[object], datetime]:
    """Return the function that converts the times of one source to datetimes in UTC.

    Args:
        timezone: the time zone of times without an offset. A local time that a clock change skipped is refused; one
            that occurred twice means the first. A date alone means the start of that day.
        ts_format: `epoch_s`, `epoch_ms`, `epoch_us`, `epoch_ns` (fractions allowed), `excel` (days since 1899-12-30,
            as spreadsheets count them, to the millisecond) or a format of `datetime.strptime`. Without it, text is ISO
            8601 (see `spellings`) and an integer is milliseconds since 1970, if that lies between 1990 and 2200.

    Raises:
        ValueError: the format cannot work. The returned function raises it for a time that it cannot read.
    """
    if ts_format is None:
        return lambda value: _read_plain(value, timezone)
    if ts_format in _EPOCH_UNITS:
        unit = _EPOCH_UNITS[ts_format]
        return lambda value: _read_epoch(value, unit)
    if ts_format == _EXCEL:
        if timezone is None:
            raise ValueError("the days of a spreadsheet have no offset from UTC: name the time zone with --timezone")
        return lambda value: _read_excel(value, timezone)
    directives = _directives(ts_format)
    _check_sense(ts_format, directives)
    if "z" not in directives and timezone is None:
        raise ValueError(f"the format {ts_format!r} has no %z (offset): name the time zone with --timezone")
    whole_days = not _TIME_DIRECTIVES & set(directives)

    # Files repeat their times (a day, a second), and strptime takes 6 µs.
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
            return _from_unmarked(value)
        remedy = f": {name_it(str(value))}" if isinstance(value, (float, Decimal)) else ""
        raise ValueError(f"must be a string or an integer, not {kind(value)}{remedy}")
    written = text = value.strip()
    form = _LOCAL(text)
    if form is None:
        text = as_iso(written)
        form = _LOCAL(text)
    if form is None:
        if not text:
            raise ValueError("is empty")
        remedy = name_it(text) if _NUMBER(text) else "name its format with --ts-format (a strptime format)"
        raise ValueError(f"{_short(written)} is not an ISO 8601 time: {remedy}")
    if form[2]:
        return _from_valid_iso(text)
    if timezone is None:
        raise ValueError(f"{_short(written)} has no offset from UTC: name its time zone with --timezone")
    return _localise(_from_iso_digits(text), timezone, whole_day=len(text) == len(form[1]))


def _from_unmarked(value: int) -> datetime:
    """Convert an integer without a given format from milliseconds; refuse one that probably has another format."""
    try:
        moment = from_epoch_ms(value)
    except ValueError as error:
        raise ValueError(f"{error}: {name_it(str(value))}" if abs(value) < 10**30 else str(error)) from None
    if value not in LIKELY_MS:
        raise ValueError(f"{value} would be {moment.date()} as milliseconds: {name_it(str(value))}")
    return moment


def name_it(number: str) -> str:
    """Return a remedy that names the format that a number probably has: one that gives a year from 1990 to 2199."""
    for form in (*_EPOCH_UNITS, _EXCEL, "%Y%m%d", "%Y%m%d%H%M", "%Y%m%d%H%M%S"):
        try:
            moment = parser(UTC, form)(number)
        except ValueError:
            continue
        exact = form[0] != "%" or moment.strftime(form) == number
        if exact and _LIKELY[0] <= moment < _LIKELY[1]:
            return f"name its format (--ts-format {form} makes it {moment.date()})"
    return f"name its format with --ts-format ({_FORMS})"


def _read_excel(value: object, timezone: tzinfo) -> datetime:
    text = _text(value)
    if not _NUMBER(text) or not _EXCEL_DAYS[0] <= Decimal(text) < _EXCEL_DAYS[1]:
        raise ValueError(f"{_short(text)} is not a day of a spreadsheet, from {_EXCEL_DAYS[0]} to {_EXCEL_DAYS[1] - 1}")
    # As a binary fraction of a day, a time is slightly off: round it to the millisecond.
    milliseconds = int((Decimal(text) * 86_400_000).to_integral_value())
    moment = _EXCEL_START + timedelta(milliseconds=milliseconds)
    return _localise(moment, timezone, whole_day=not milliseconds % 86_400_000)


def _read_epoch(value: object, microseconds: Decimal) -> datetime:
    text = _text(value)
    if not _NUMBER(text):
        raise ValueError(f"{_short(text)} is not a number in the unit that --ts-format names")
    # Exact by its digits: a product of more than 28 would be rounded, and the microsecond up.
    with localcontext(prec=len(text) + 8):
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
        raise ValueError(f"{moment.isoformat()} does not exist in {timezone}: a clock change skipped it")
    return instant


def _directives(ts_format: str) -> str:
    """Return the letters of a format's directives, in order, with %c, %x and %X expanded."""
    found = re.findall(r"%(.?)", ts_format, re.DOTALL)
    unknown = sorted(set(found) - _DIRECTIVES)
    if "Z" in found:
        raise ValueError("%Z (a zone's name) is ambiguous: write the name as plain text, and give --timezone")
    if unknown:
        hint = ": seconds since 1970 are epoch_s" if unknown[0] == "s" else ""
        raise ValueError(f"the format {ts_format!r} has the unknown directive %{unknown[0]}{hint}")
    said = "".join(_COMPOSED.get(one, one) for one in found if one != "%")
    if not _YEAR_DIRECTIVES & set(said):
        raise ValueError(f"the format {ts_format!r} has no year: times need one, such as %Y")
    return said


def _check_sense(ts_format: str, said: str) -> None:
    """Refuse a format with which strptime would silently read a wrong time."""
    wrong = _contradiction(said)
    if wrong is None:
        try:
            datetime.strptime(datetime(2004, 2, 29, 13, 5, 6, tzinfo=UTC).strftime(ts_format), ts_format)
        except (ValueError, re.error) as error:
            wrong = f"cannot be read again: {error}"
    if wrong is not None:
        raise ValueError(f"the format {ts_format!r} {wrong}")


def _contradiction(said: str) -> str | None:
    """Return what is wrong with the directives of a format; None if nothing is. Pure.

    Args:
        said: the letters of the directives.
    """
    has = set(said)
    hour = has & set("HI")
    day = has & set("dj") or (has & set("UWV") and has & set("aAwu"))
    twice = next((group for group in ("yYG", "HI", *"mbBdpMSfjz") if sum(said.count(one) for one in group) > 1), None)
    rules: tuple[tuple[object, str], ...] = (
        ("H" in has and "p" in has, "has %p (AM or PM) beside %H, which counts to 24 and ignores it: write %I"),
        (twice, f"has the same field twice: {' and '.join(f'%{one}' for one in said if one in (twice or ''))}"),
        ("I" in has and "p" not in has, "has %I, hours to 12, without %p (AM or PM): write %H, or add %p"),
        ("p" in has and not hour, "has %p (AM or PM) without an hour: add %I"),
        ("M" in has and not hour, "has %M, the minute, without an hour: the month is %m"),
        ("S" in has and "M" not in has, "has %S, the second, without a minute: add %M"),
        ("f" in has and "S" not in has, "has %f, parts of a second, without a second: add %S"),
        ("d" in has and not has & set("mbB"), "has %d, the day of the month, without a month: add %m, %b or %B"),
        (has & set("UW") and not day, "has the number of a week without its day: add %a, %A, %w or %u"),
        (hour and not day, "has a time without a day: add %m and %d, or %j"),
    )
    return next((wrong for found, wrong in rules if found), None)


def _text(value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, (str, int, float, Decimal)):
        raise ValueError(f"must be a string or a number, not {kind(value)}")
    return str(value).strip()


def _short(value: object) -> str:
    text = ascii(value)
    return text if len(text) <= 50 else f"{text[:47]}…"
