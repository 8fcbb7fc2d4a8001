"""Times that files spell in other ways than events do mean the same, and nothing else becomes a time."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest

from refold.model.event.spellings import as_iso
from refold.model.event.timestamps import from_iso, parse

BERLIN = ZoneInfo("Europe/Berlin")


def utc(*parts: int) -> datetime:
    return datetime(2026, 3, 1, *parts, tzinfo=UTC)  # type: ignore[arg-type, misc]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-03-01t09:00:00z", utc(9)),
        ("2026-03-01 09:00:00z", utc(9)),
        ("2026-03-01t09:00+01:00", utc(8)),
        ("2026-03-01 09:00:00 UTC", utc(9)),
        ("2026-03-01 09:00:00.123456 UTC", utc(9, 0, 0, 123456)),
        ("2026-03-01T09:00:00UTC", utc(9)),
        ("2026-03-01 09:00:00 +0100", utc(8)),
        ("2026-03-01 09:00:00 Z", utc(9)),
        ("20260301T090000Z", utc(9)),
        ("20260301t090000z", utc(9)),
        ("20260301T0900Z", utc(9)),
        ("20260301T090000.5+0100", utc(8, 0, 0, 500000)),
        ("20260301T090000,25Z", utc(9, 0, 0, 250000)),
        ("2026-03-01T09:00:00,25Z", utc(9, 0, 0, 250000)),
        ("2026-03-01 09:00:00,999", utc(9, 0, 0, 999000)),
        ("2026-03-01T09:00:00.1Z", utc(9, 0, 0, 100000)),
        ("2026-03-01T09:00:00.12345678Z", utc(9, 0, 0, 123456)),
        ("2026-03-01T09:00:00.123456999Z", utc(9, 0, 0, 123456)),
        ("2026-03-01T09:00:00.999999999Z", utc(9, 0, 0, 999999)),
        ("20260301T090000,999999999Z", utc(9, 0, 0, 999999)),
    ],
)
def test_spellings_of_files(text: str, expected: datetime) -> None:
    assert parse(text, timezone=UTC) == expected


def test_local_times_follow_the_time_zone() -> None:
    assert parse("20260301T090000", timezone=BERLIN) == utc(8)
    assert parse("2026-03-01t09:00:00,5", timezone=BERLIN) == utc(8, 0, 0, 500000)
    for text in ("20260301T090000", "2026-03-01t09:00:00"):
        with pytest.raises(ValueError, match="has no offset from UTC: name its time zone with --timezone"):
            parse(text)


@pytest.mark.parametrize(
    "text",
    [
        "20260301", "20260301090000", "2026-0301T09:00:00Z", "20260301T09:00:00Z", "2026-03-01T090000Z",
        "2026-03-01T09:00:00 CET", "2026-03-01T09:00:00 utc", "2026-03-01T09:00:00  UTC", "2026-03-01 UTC",
        "2026-03-01T09,5Z", "2026-03-01T09:00,5Z", "2026-03-01T09:00:00,Z", "20260301T09Z", "20260301 090000Z",
        "2026-03-01T24:00:00z", "20260230T090000Z", "20261301T090000Z", "2026-03-01T09:00:60z", "00000101T000000Z",
        "2026-03-01T09:00:00z\n1", "", "T", "\u0662\u0660\u0662\u06660301T090000Z",
    ],
)  # fmt: skip
def test_what_is_no_time_stays_none(text: str) -> None:
    with pytest.raises(ValueError):
        parse(text, timezone=UTC)


def test_events_have_one_spelling() -> None:
    """As in SQL: the new spellings are for files."""
    for text in ("2026-03-01t09:00:00z", "2026-03-01 09:00:00 UTC", "20260301T090000Z", "2026-03-01T09:00:00,5Z"):
        assert as_iso(text) != text
        with pytest.raises(ValueError, match="is not an ISO 8601 time"):
            from_iso(text)
