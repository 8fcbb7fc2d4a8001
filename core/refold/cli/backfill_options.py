"""The options of `refold backfill run` as they are written: a rate, a time, and a time of the day."""

from __future__ import annotations

from datetime import datetime, timedelta

from refold.errors import InputError


def rate_of(text: str | None) -> int | None:
    """Return a rate: None as it was, 0 for auto."""
    if text is None:
        return None
    if text == "auto":
        return 0
    if not text.isdecimal() or not 0 < int(text) < 10**9:
        raise InputError(f"--rate {text}: not a number of records", remedy="For example --rate 5000, or --rate auto.")
    return int(text)


def freshness_of(text: str | None) -> float | None:
    """Return a limit in seconds: None as it was, 0 for auto."""
    if text is None:
        return None
    if text == "auto":
        return 0.0
    number, unit = (text[:-2], 0.001) if text.endswith("ms") else (text.removesuffix("s"), 1.0)
    try:
        seconds = float(number) * unit
    except ValueError:
        seconds = 0.0
    if not 0.01 <= seconds <= 86_400:
        raise InputError(f"--freshness {text}: not a time of 10 ms to a day", remedy="For example 2s, or 500ms.")
    return seconds


def until_of(text: str, now: datetime | None = None) -> datetime:
    """Return the next time at which this machine's clock shows a time of the day."""
    now = now or datetime.now().astimezone()
    try:
        clock = datetime.strptime(text, "%H:%M")
    except ValueError:
        raise InputError(f"--until {text}: not a time of the day", remedy="For example --until 06:00.") from None
    at = now.replace(hour=clock.hour, minute=clock.minute, second=0, microsecond=0)
    return at if at > now else at + timedelta(days=1)
