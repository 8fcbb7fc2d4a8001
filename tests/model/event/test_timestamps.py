"""Times as files hold them."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from refold.model.event.timestamps import EARLIEST_MS, LATEST_MS, from_epoch_ms, from_iso, parse, parser

BERLIN = ZoneInfo("Europe/Berlin")
SAO_PAULO = ZoneInfo("America/Sao_Paulo")
APIA = ZoneInfo("Pacific/Apia")


def utc(*parts: int) -> datetime:
    return datetime(*parts, tzinfo=UTC)  # type: ignore[arg-type, misc]


@pytest.mark.parametrize(
    ("text", "zone", "expected"),
    [
        ("2020-01-31 12:00:00", UTC, utc(2020, 1, 31, 12)),
        ("2019-11-01 17:59:13.273932", UTC, utc(2019, 11, 1, 17, 59, 13, 273932)),
        ("2020-01-31T12:00", BERLIN, utc(2020, 1, 31, 11)),
        ("2020-07-31", BERLIN, utc(2020, 7, 30, 22)),
        ("  2020-07-31 ", UTC, utc(2020, 7, 31)),
        ("2020-01-31T12:00:00+02:00", BERLIN, utc(2020, 1, 31, 10)),
        ("2020-01-31T12:00:00Z", None, utc(2020, 1, 31, 12)),
        ("1880-01-01T00:00:00+00:19:32", None, utc(1879, 12, 31, 23, 40, 28)),
        ("1880-01-01T00:00:00", ZoneInfo("Europe/Amsterdam"), utc(1879, 12, 31, 23, 40, 28)),
        (1_577_836_800_123, BERLIN, utc(2020, 1, 1, 0, 0, 0, 123000)),
    ],
)
def test_without_format(text: str | int, zone: ZoneInfo | None, expected: datetime) -> None:
    assert parse(text, timezone=zone) == expected
    assert parse(text, timezone=zone).tzinfo is UTC


@pytest.mark.parametrize(
    ("text", "zone", "expected"),
    [
        # Of an hour that the clocks showed twice, the first.
        ("2020-10-25T02:30:00", BERLIN, utc(2020, 10, 25, 0, 30)),
        ("2020-10-25T03:00:00", BERLIN, utc(2020, 10, 25, 2)),
        # Midnight was skipped: the day began at one o'clock.
        ("2018-11-04", SAO_PAULO, utc(2018, 11, 4, 3)),
    ],
)
def test_clock_changes(text: str, zone: ZoneInfo, expected: datetime) -> None:
    assert parse(text, timezone=zone) == expected


@pytest.mark.parametrize(
    ("text", "zone"),
    [
        ("2020-03-29T02:30:00", BERLIN),
        ("2018-11-04T00:00:00", SAO_PAULO),
        # Samoa went over the date line: this day never was.
        ("2011-12-30", APIA),
    ],
)
def test_times_that_never_were(text: str, zone: ZoneInfo) -> None:
    with pytest.raises(ValueError, match="does not exist in"):
        parse(text, timezone=zone)


@pytest.mark.parametrize(
    ("text", "zone", "reason"),
    [
        ("2020-01-31T12:00:00", None, "--timezone"),
        ("2020-01-31", None, "--timezone"),
        ("19970101", UTC, "name its format (--ts-format %Y%m%d makes it 1997-01-01)"),
        ("1577836800000", UTC, "name its format (--ts-format epoch_ms makes it 2020-01-01)"),
        ("7", UTC, "--ts-format (epoch_s, epoch_ms, epoch_us, epoch_ns, excel or a strptime format)"),
        (7, UTC, "7 would be 1970-01-01 as milliseconds: name its format with --ts-format"),
        (10**40, UTC, "the number is out of range"),
        ("31.01.2020", UTC, "--ts-format (a strptime format)"),
        ("", UTC, "is empty"),
        ("infinity", UTC, "is not an ISO 8601 time"),
        ("2020-02-30", UTC, "is not a day of the calendar"),
        ("2020-02-30T00:00:00Z", None, "is not a day of the calendar"),
        ("0001-01-01", ZoneInfo("Asia/Tokyo"), "out of range"),
        ("9999-12-31T23:00:00", ZoneInfo("America/New_York"), "out of range"),
        (True, UTC, "not a boolean"),
        (1.5, UTC, "not a number"),
        (None, UTC, "not null"),
        ("x" * 1000, UTC, "xxx…"),
    ],
)
def test_refuses(text: object, zone: ZoneInfo | None, reason: str) -> None:
    with pytest.raises(ValueError) as caught:
        parser(zone)(text)
    assert reason in str(caught.value)
    assert len(str(caught.value)) < 160


@pytest.mark.parametrize(
    ("value", "ts_format", "expected"),
    [
        ("19970101", "%Y%m%d", utc(1996, 12, 31, 23)),
        (19970101, "%Y%m%d", utc(1996, 12, 31, 23)),
        ("01/Feb/2020:10:00:00 +0000", "%d/%b/%Y:%H:%M:%S %z", utc(2020, 2, 1, 10)),
        ("2019-10-01 00:00:00 UTC", "%Y-%m-%d %H:%M:%S UTC", utc(2019, 9, 30, 22)),
        ("1577836800", "epoch_s", utc(2020, 1, 1)),
        ("1577836800.1234569", "epoch_s", utc(2020, 1, 1, 0, 0, 0, 123456)),
        (" 1577836800 ", "epoch_s", utc(2020, 1, 1)),
        (1577836800.5, "epoch_s", utc(2020, 1, 1, 0, 0, 0, 500000)),
        (Decimal("-0.0000010001"), "epoch_s", utc(1969, 12, 31, 23, 59, 59, 999998)),
        ("1577836800000.5", "epoch_ms", utc(2020, 1, 1, 0, 0, 0, 500)),
        (1577836800000, "epoch_ms", utc(2020, 1, 1)),
        (1577836800123456, "epoch_us", utc(2020, 1, 1, 0, 0, 0, 123456)),
        ("1577836800123456789", "epoch_ns", utc(2020, 1, 1, 0, 0, 0, 123456)),
        (1577836800123456789, "epoch_ns", utc(2020, 1, 1, 0, 0, 0, 123456)),
        (1577836800123456999, "epoch_ns", utc(2020, 1, 1, 0, 0, 0, 123456)),
        ("1577836800999999999", "epoch_ns", utc(2020, 1, 1, 0, 0, 0, 999999)),
        ("1577836800123456", "epoch_us", utc(2020, 1, 1, 0, 0, 0, 123456)),
        (-1, "epoch_ns", utc(1969, 12, 31, 23, 59, 59, 999999)),
        # More digits than a Decimal usually keeps are not rounded up.
        ("1577836800.999999" + "9" * 40, "epoch_s", utc(2020, 1, 1, 0, 0, 0, 999999)),
        (Decimal("1577836800123456.999999999999999999999"), "epoch_us", utc(2020, 1, 1, 0, 0, 0, 123456)),
        (43831, "excel", utc(2019, 12, 31, 23)),
        ("43831.5208333333", "excel", utc(2020, 1, 1, 11, 30)),
        (43831.520833333336, "excel", utc(2020, 1, 1, 11, 30)),
        (61, "excel", datetime(1900, 2, 28, 23, tzinfo=UTC)),
        ("31.01.2020 01:05 PM", "%d.%m.%Y %I:%M %p", utc(2020, 1, 31, 12, 5)),
        ("060-2020 13:05", "%j-%Y %H:%M", utc(2020, 2, 29, 12, 5)),
        ("2020-W09-6", "%G-W%V-%u", utc(2020, 2, 28, 23)),
        ("Sat Feb 29 13:05:06 2020", "%c", utc(2020, 2, 29, 12, 5, 6)),
        ("2020-02", "%Y-%m", utc(2020, 1, 31, 23)),
    ],
)
def test_with_format(value: object, ts_format: str, expected: datetime) -> None:
    assert parser(BERLIN, ts_format)(value) == expected


@pytest.mark.parametrize(
    ("value", "ts_format", "reason"),
    [
        ("1997-01-01", "%Y%m%d", "does not have the format '%Y%m%d'"),
        ("19970230", "%Y%m%d", "does not have the format"),
        ("2020-03-29 02:30", "%Y-%m-%d %H:%M", "does not exist in"),
        ("60", "excel", "is not a day of a spreadsheet, from 61 to 2958465"),
        ("43831,5", "excel", "is not a day of a spreadsheet"),
        ("43919.1041666667", "excel", "does not exist in"),
        ("1e9", "epoch_s", "is not a number in the unit"),
        ("nan", "epoch_s", "is not a number in the unit"),
        ("٣", "epoch_ms", "is not a number in the unit"),
        (str(LATEST_MS + 1), "epoch_ms", "out of range"),
        ("253402300800", "epoch_s", "out of range"),
        (True, "epoch_s", "not a boolean"),
        (None, "%Y", "not null"),
    ],
)
def test_refuses_with_format(value: object, ts_format: str, reason: str) -> None:
    with pytest.raises(ValueError) as caught:
        parser(BERLIN, ts_format)(value)
    assert reason in str(caught.value)


@pytest.mark.parametrize(
    ("ts_format", "reason"),
    [
        ("%Y-%m-%d", "name the time zone with --timezone"),
        ("%Y %Q", "unknown directive %Q"),
        ("%Y %", "unknown directive %"),
        ("%Y %H %Z", "is ambiguous"),
        ("%H:%M %z", "no year"),
        ("epoch", "no year"),
        ("excel", "name the time zone with --timezone"),
        ("%s", "unknown directive %s: seconds since 1970 are epoch_s"),
        ("%Y-%m-%d %H:%M %p", "%p (AM or PM) beside %H"),
        ("%x %X %p", "%p (AM or PM) beside %H"),
        ("%Y-%m-%d %I:%M", "%I, hours to 12, without %p"),
        ("%Y-%m-%d %H %I", "has the same field twice: %H and %I"),
        ("%Y-%m-%d %p", "%p (AM or PM) without an hour"),
        ("%Y-%M-%d", "%M, the minute, without an hour: the month is %m"),
        ("%Y-%m-%d %H:%m", "has the same field twice: %m and %m"),
        ("%Y-%m-%d %H:%M:%M", "has the same field twice: %M and %M"),
        ("%d.%m.%Y %y", "has the same field twice: %Y and %y"),
        ("%Y-%m-%d %H:%S", "%S, the second, without a minute"),
        ("%Y-%m-%d %H:%M.%f", "%f, parts of a second, without a second"),
        ("%d %Y", "%d, the day of the month, without a month"),
        ("%Y %H:%M", "has a time without a day"),
        ("%Y-%m %H:%M", "has a time without a day"),
        ("%Y week %W", "the number of a week without its day"),
        ("%G %V", "cannot be read again: ISO year directive '%G' must be used with"),
    ],
)
def test_formats_that_cannot_work(ts_format: str, reason: str) -> None:
    with pytest.raises(ValueError) as caught:
        parser(None, ts_format)
    assert reason in str(caught.value)


@given(st.integers(EARLIEST_MS, LATEST_MS))
def test_milliseconds_are_exact(value: int) -> None:
    moment = from_epoch_ms(value)
    assert (moment - utc(1970, 1, 1)) == timedelta(milliseconds=value)
    assert from_iso(moment.isoformat()) == moment


def test_the_range_is_years_1_to_9999() -> None:
    assert from_epoch_ms(EARLIEST_MS) == utc(1, 1, 1)
    assert from_epoch_ms(LATEST_MS) == utc(9999, 12, 31, 23, 59, 59, 999000)
    for value in (EARLIEST_MS - 1, LATEST_MS + 1):
        with pytest.raises(ValueError, match="out of range"):
            from_epoch_ms(value)


@given(st.datetimes(), st.sampled_from([BERLIN, SAO_PAULO, APIA, ZoneInfo("UTC"), ZoneInfo("Asia/Kathmandu")]))
def test_a_local_time_is_shown_by_the_clock_it_came_from(moment: datetime, zone: ZoneInfo) -> None:
    try:
        instant = parse(moment.isoformat(sep=" "), timezone=zone)
    except ValueError as error:
        assert "does not exist" in str(error) or "out of range" in str(error)
    else:
        assert instant.astimezone(zone).replace(tzinfo=None) == moment
        if instant > utc(1, 1, 3):
            an_hour_before = (instant - timedelta(hours=1)).astimezone(zone).replace(tzinfo=None)
            assert an_hour_before != moment
