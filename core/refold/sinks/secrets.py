"""References to secrets: a sink's file names where a secret is, and never holds it."""

from __future__ import annotations

import os
from pathlib import Path

from refold.sinks.receiver import Misconfigured

_PREFIXES = ("env:", "file:")


def is_reference(text: str) -> bool:
    """Return whether a text names an environment variable or a file instead of being the value. Pure."""
    return text.startswith(_PREFIXES)


def resolve(reference: str, what: str) -> str:
    """Return the value that a reference names.

    Args:
        reference: `env:NAME` or `file:/path`.
        what: the option that holds the reference, for messages.

    Raises:
        Misconfigured: the text is no reference, or what it names is missing; the message has the reference, no value.
    """
    kind, _, name = reference.partition(":")
    if kind == "env":
        value = os.environ.get(name)
        if value is None:
            raise Misconfigured(
                f"{what}: the environment variable {name} is not set",
                remedy=f"Set {name} for the process that delivers.",
            )
        return value
    if kind == "file":
        try:
            return Path(name).read_text().removesuffix("\n")
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
            raise Misconfigured(
                f"{what}: cannot read {reference}: {reason}",
                remedy="Put the secret there, readable for the process that delivers.",
            ) from None
    raise Misconfigured(f"{what}: is neither env:NAME nor file:/path", remedy="Write a reference, not the secret.")


def resolve_optional(text: str, what: str) -> str:
    """Return the value that a text names if it is a reference, else the text itself.

    Args:
        text: `env:NAME`, `file:/path`, or any other text.
        what: the option that holds the text, for messages.

    Raises:
        Misconfigured: what the reference names is missing.
    """
    return resolve(text, what) if is_reference(text) else text
