"""What a failure of a file system means for the sink."""

from __future__ import annotations

import errno
from collections.abc import Collection, Iterator
from typing import Any

from refold.sinks.receiver import DeliveryError, Misconfigured, Unavailable

_SHOWN = 200
"""Characters of a message."""
_FULL = (errno.ENOSPC, errno.EDQUOT)
_FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)
_PASSING_CODES = ("RequestTimeout", "IncompleteBody", "BadDigest", "OperationAborted")
_PASSING_STATUS = (408, 409, 425, 429)
"""Answers below 500 that a later attempt may not get."""
_NO_LOGIN = ("NoCredentialsError", "PartialCredentialsError", "ProfileNotFound", "DefaultCredentialsError")
_RETRY_AFTER_MOST = 3600.0
"""Seconds."""


def failure(error: Exception, doing: str, hidden: Collection[str] = ()) -> DeliveryError:
    """Return what the sink is told about a failure of a file system. Pure.

    Args:
        error: the failure, of this host's file system or of a library such as s3fs.
        doing: what failed, such as "cannot write s3://bucket/metrics/slice-3.csv".
        hidden: values that the message must not show.
    """
    if isinstance(error, DeliveryError):
        return error
    status, code, retry_after = _answer(error)
    name = code or status
    message = f"{doing}: {_reason(error, hidden)}" + (f" ({name})" if name else "")
    number = error.errno if isinstance(error, OSError) else None
    if number in _FULL:
        return Unavailable(message, status=name, remedy="Free space, or give the folder another place.")
    if status:
        if int(status) >= 500 or int(status) in _PASSING_STATUS or code in _PASSING_CODES:
            return Unavailable(message, status=name, retry_after=retry_after)
        return Misconfigured(message, status=name, remedy="Correct the url or [files.storage], or what they may do.")
    if number in _FORBIDDEN or isinstance(error, PermissionError):
        return Misconfigured(message, remedy="Allow the process that delivers to write there.")
    if isinstance(error, FileNotFoundError | NotADirectoryError | FileExistsError):
        return Misconfigured(message, remedy="Correct the url, or create the folder or bucket.")
    if any(type(one).__name__ in _NO_LOGIN for one in _chain(error)):
        return Misconfigured(message, remedy="Give credentials in [files.storage], as env:NAME or file:/path.")
    if isinstance(error, TypeError | ValueError):
        # Some libraries look at their options at the first request only.
        return Misconfigured(message, remedy="Correct [files.storage].")
    return Unavailable(message)


def _answer(error: Exception) -> tuple[str, str, float | None]:
    """Return the HTTP status, the code and the Retry-After of an object store's answer, as far as there are any."""
    for one in _chain(error):
        response: Any = getattr(one, "response", None)
        if isinstance(response, dict):
            meta = response.get("ResponseMetadata", {})
            code = str(response.get("Error", {}).get("Code", ""))
            status = str(meta.get("HTTPStatusCode") or "")
            after = str(meta.get("HTTPHeaders", {}).get("retry-after", ""))
            return status, "" if code.isdigit() else code, _seconds(after)
        for name in ("status_code", "status", "code"):
            status_of: Any = getattr(one, name, None)
            if isinstance(status_of, int) and 100 <= status_of < 600:
                return str(status_of), "", None
    return "", "", None


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: BaseException | None = error
    for _ in range(8):  # a chain can be a ring
        if seen is None:
            return
        yield seen
        seen = seen.__cause__ or seen.__context__


def _seconds(text: str) -> float | None:
    return min(float(text), _RETRY_AFTER_MOST) if text.isdigit() else None


def _reason(error: Exception, hidden: Collection[str]) -> str:
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error) or type(error).__name__
    for secret in sorted(hidden, key=len, reverse=True):
        if secret:
            text = text.replace(secret, "…")
    printable = "".join(one if one.isprintable() else " " for one in text)
    return " ".join(printable.split())[:_SHOWN]
