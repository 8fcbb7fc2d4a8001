"""What an answer, or its absence, means for a delivery. Pure."""

from __future__ import annotations

import re
import socket
import ssl
from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import NamedTuple
from urllib.parse import urlsplit

from refold.sinks.receiver import DeliveryError, Gone, Misconfigured, Refused, TooLarge, Unavailable

LONGEST_WAIT_S = 3_600.0
"""Most seconds that a receiver can ask to wait."""
SHOWN = 200
"""Most characters of an answer's body in a message."""

_SECONDS = re.compile(r"[+-]?[0-9]{1,18}")
_MASK = "***"
_REMEDIES = {
    401: "Check the secrets and the headers of the sink: the receiver does not accept them.",
    403: "Check the secrets and the headers of the sink: the receiver does not accept them.",
    404: "Check the path of the url.",
    405: "Check the url: it must take POST.",
}


class Answer(NamedTuple):
    """What a receiver answered.

    Args:
        status: the status of HTTP.
        headers: by names in small letters; of headers with the same name, the last.
        body: the beginning of the body, as it was sent.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes


def of_answer(answer: Answer, who: str, now: datetime, hidden: Collection[str] = ()) -> DeliveryError | None:
    """Return the error that an answer means; None if the receiver has confirmed.

    Args:
        answer: what the receiver answered.
        who: words for the receiver, to begin messages with.
        now: the time, for a `Retry-After` with a date.
        hidden: texts that no message may show, if the receiver repeats them.
    """
    status = answer.status
    if 200 <= status < 300:
        return None
    if 300 <= status < 400:
        return Misconfigured(
            f"{who} answers {status}, a redirect{_location(answer, hidden)}; webhooks follow none",
            status=str(status),
            remedy="Write the url that finally answers.",
        )
    said = excerpt(answer, hidden)
    message = f"{who} answers {status}" + (f": {said}" if said else "")
    if status in (408, 425, 429) or status >= 500:
        wait = retry_after(answer.headers.get("retry-after", ""), now)
        return Unavailable(message, status=str(status), retry_after=wait)
    if status == 413:
        return TooLarge(message, status="413")
    if status == 410:
        return Gone(message, status="410", remedy="Drop the sink, or resume it if the receiver wants calls again.")
    if status in _REMEDIES or status < 200:
        return Misconfigured(message, status=str(status), remedy=_REMEDIES.get(status, "Check the url."))
    return Refused(message, status=str(status))


def of_error(error: Exception, who: str, hidden: Collection[str] = ()) -> DeliveryError:
    """Return what an error on the way to an answer means.

    Args:
        error: a DeliveryError, which is returned; or an error of the name service, the connection, or TLS.
        who: words for the receiver, to begin messages with.
        hidden: texts that no message may show.
    """
    match error:
        case DeliveryError():
            return error
        case TimeoutError():
            return Unavailable(f"{who} does not answer in time", status="timeout")
        case ssl.SSLCertVerificationError():
            reason = one_line(getattr(error, "verify_message", None) or str(error))
            return Misconfigured(
                _masked(f"{who} has no valid certificate: {reason}", hidden),
                status="TLS",
                remedy='Mend the certificate, or name the authority that issued it: ca = "/path/to/ca.pem".',
            )
        case ssl.SSLError():
            reason = one_line(getattr(error, "reason", None) or str(error))
            return Unavailable(
                _masked(f"{who} does not agree on TLS: {reason}", hidden),
                status="TLS",
                remedy="Check that this port speaks TLS: the url begins with https.",
            )
        case socket.gaierror() if error.errno in (socket.EAI_NONAME, getattr(socket, "EAI_NODATA", None)):
            return Misconfigured(f"the name of {who} does not exist", status="DNS", remedy="Check the host of the url.")
        case socket.gaierror():
            return Unavailable(f"the name of {who} cannot be resolved now", status="DNS")
    reason = one_line((error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__)
    return Unavailable(_masked(f"{who} cannot be reached: {reason}", hidden), status="connection")


def retry_after(value: str, now: datetime) -> float | None:
    """Return the seconds that a receiver asks to wait, from 0 to an hour; None if it does not ask.

    Args:
        value: of the header `Retry-After`: seconds, or a date of HTTP.
        now: the time.
    """
    value = value.strip()
    if _SECONDS.fullmatch(value):
        wait = float(int(value))
    else:
        try:
            at = parsedate_to_datetime(value)
        except (ValueError, TypeError, OverflowError, IndexError):
            return None
        wait = ((at if at.tzinfo else at.replace(tzinfo=UTC)) - now).total_seconds()
    return min(max(wait, 0.0), LONGEST_WAIT_S)


def excerpt(answer: Answer, hidden: Collection[str] = ()) -> str:
    """Return the beginning of an answer's body as one line of printable characters, without what is hidden."""
    if answer.headers.get("content-encoding", "identity").strip().lower() not in ("", "identity"):
        return ""
    # Masked before it is cut: the first half of a secret is part of it, too.
    return one_line(_masked(answer.body.decode("utf-8", "replace"), hidden))[:SHOWN].rstrip()


def one_line(text: str) -> str:
    """Return a text as one line of printable characters."""
    return " ".join("".join(one if one.isprintable() else " " for one in text).split())


def _location(answer: Answer, hidden: Collection[str]) -> str:
    try:
        host = urlsplit(answer.headers.get("location", "")).hostname
    except ValueError:
        host = None
    return f" to {_masked(one_line(host)[:SHOWN], hidden)}" if host else ""


def _masked(text: str, hidden: Collection[str]) -> str:
    for one in sorted(hidden, key=len, reverse=True):
        text = text.replace(one, _MASK)
    return text
