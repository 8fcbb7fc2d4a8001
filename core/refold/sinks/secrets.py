"""References to secrets: the file of a sink names where a secret is, and never holds it.

References are resolved where deliveries are made, at each opening of a receiver: a secret can be changed without a
deploy. The value is in no file of the project, in no table, and in no message.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from refold.sinks.receiver import Misconfigured

LARGEST_BYTES = 65_536
"""Most bytes of a secret's file: a wrong path may name something without an end."""

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def is_reference(text: str) -> bool:
    """Return whether a text names an environment variable or a file; an address `file://…` is a value. Pure."""
    return text.startswith("env:") or (text.startswith("file:") and not text.startswith("file://"))


def checked_reference(text: str) -> str:
    """Return a reference as it is. Pure.

    Raises:
        ValueError: the text is no reference. The message does not show it, because it may be a secret.
    """
    kind, _, name = text.partition(":")
    if not is_reference(text):
        raise ValueError("is neither env:NAME nor file:/path: write a reference, and put the secret there")
    if kind == "env" and not _VARIABLE.fullmatch(name):
        raise ValueError("env: must be followed by the name of an environment variable: write env:NAME")
    if kind == "file" and (not name.startswith("/") or "\0" in name):
        raise ValueError("file: must be followed by an absolute path: write file:/run/secrets/name")
    return text


def resolve(reference: str, what: str) -> str:
    """Return the value that a reference names, without one newline at its end.

    Args:
        reference: `env:NAME` or `file:/path`.
        what: the option that holds the reference, for messages.

    Raises:
        Misconfigured: the text is no reference, or what it names is missing or empty. The message has the reference,
            and never the value.
    """
    try:
        kind, _, name = checked_reference(reference).partition(":")
    except ValueError as error:
        raise Misconfigured(f"{what}: {error}", remedy="Write a reference, not the secret.") from None
    if kind == "env":
        value = os.environ.get(name)
        if value is None:
            raise Misconfigured(
                f"{what}: the environment variable {name} is not set",
                remedy=f"Set {name} for the process that delivers.",
            )
    else:
        value = _content(name, reference, what)
    if not value:
        raise Misconfigured(f"{what}: {reference} is empty", remedy="Put the secret there.")
    return value


def resolve_optional(text: str, what: str) -> str:
    """Return the value that a text names if it is a reference, else the text itself.

    Args:
        text: `env:NAME`, `file:/path`, or any other text.
        what: the option that holds the text, for messages.

    Raises:
        Misconfigured: what the reference names is missing or empty.
    """
    return resolve(text, what) if is_reference(text) else text


def _content(path: str, reference: str, what: str) -> str:
    try:
        with Path(path).open("rb") as file:
            content = file.read(LARGEST_BYTES + 1)
        if len(content) > LARGEST_BYTES:
            raise ValueError(f"it has more than {LARGEST_BYTES:,} bytes")
        return content.decode().removesuffix("\n")
    except UnicodeDecodeError:
        reason = "it is not UTF-8 text"
    except OSError as error:
        reason = error.strerror or type(error).__name__
    except ValueError as error:
        reason = str(error)
    raise Misconfigured(
        f"{what}: cannot read {reference}: {reason}",
        remedy="Put the secret there, readable for the process that delivers.",
    )
