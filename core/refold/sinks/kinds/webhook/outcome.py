"""What an answer of a receiver means for the sink. Pure."""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from refold.sinks.receiver import DeliveryError, Gone, Misconfigured, Refused, TooLarge, Unavailable

LONGEST = 3600.0
"""Most seconds that a receiver can ask to wait."""
TRANSIENT = (408, 425, 429)
CONFIGURATION = (401, 403, 404, 405, 407)
SHOWN = 200
"""Most characters of an answer in a message."""


def outcome(
    status: int, retry_after: str | None, location: str | None, said: bytes, now: datetime
) -> DeliveryError | None:
    """Return what is to be raised for an answer; None if the receiver took the rows.

    Args:
        status: its status.
        retry_after: its header Retry-After.
        location: its header Location.
        said: the beginning of its body.
        now: the time, for a Retry-After that is a date.
    """
    code = str(status)
    if 200 <= status < 300:
        return None
    text = printable(said)
    message = f"the receiver answered {status}" + (f": {text}" if text else "")
    if status in TRANSIENT or status >= 500:
        return Unavailable(message, status=code, retry_after=seconds(retry_after, now))
    if status == 413:
        return TooLarge(message, status=code)
    if status == 410:
        return Gone(message, status=code, remedy="Resume it with `refold sinks resume` if that was a mistake.")
    if status < 200 or status < 400:
        to = f" to {printable((location or '').split('?')[0].encode())}" if location else ""
        return Misconfigured(
            f"the receiver redirects{to}, which is not followed", status=code, remedy="Write the final URL."
        )
    if status in CONFIGURATION:
        return Misconfigured(message, status=code, remedy="Check the URL, the secrets and the headers of the sink.")
    return Refused(message, status=code)


def seconds(retry_after: str | None, now: datetime) -> float | None:
    """Return the seconds that a Retry-After asks to wait, from 0 to an hour; None if it is not one."""
    if retry_after is None:
        return None
    text = retry_after.strip()
    if text.isascii() and text.isdigit():
        return min(float(text[:9]), LONGEST)
    try:
        at = parsedate_to_datetime(text)
    except ValueError:
        return None
    if at.tzinfo is None:
        at = at.replace(tzinfo=UTC)
    return min(max((at - now).total_seconds(), 0.0), LONGEST)


def printable(said: bytes) -> str:
    """Return the beginning of a text on one line, without characters that a terminal could obey."""
    text = " ".join(said[: 4 * SHOWN].decode("utf-8", "replace").split())
    return "".join(char if char.isprintable() else "?" for char in text)[:SHOWN]
