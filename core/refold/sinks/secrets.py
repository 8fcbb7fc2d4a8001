"""References to secrets in files of sinks: `env:NAME` and `file:/path`, read where deliveries are made.

The value is in no file of the project, in no table, and in no message.
"""

from __future__ import annotations

import os
from pathlib import Path

from refold.sinks.receiver import Misconfigured

PREFIXES = ("env:", "file:")


def resolve(reference: str, what: str) -> str:
    """Return the value of `env:NAME` or `file:/path`, without one newline at its end.

    Args:
        reference: the reference.
        what: words for the value, for the message.

    Raises:
        Misconfigured: there is no such variable or file here, or it is empty.
    """
    kind, _, name = reference.partition(":")
    if kind == "env":
        value = os.environ.get(name, "")
    else:
        try:
            value = Path(name).read_text(encoding="utf-8").removesuffix("\n")
        except OSError as error:
            raise Misconfigured(
                f"{what}: {reference} cannot be read: {error.strerror}",
                remedy=f"Make {name} readable for the deliverer.",
            ) from None
        except UnicodeDecodeError:
            raise Misconfigured(f"{what}: {reference} is not UTF-8 text") from None
    if not value:
        where = f"the variable {name}" if kind == "env" else name
        raise Misconfigured(
            f"{what}: {reference} is not set", remedy=f"Set {where} where `refold deliver` or workers run."
        )
    return value


def resolve_optional(text: str, what: str) -> str:
    """Return the value of a reference, or a text that is none as it is."""
    return resolve(text, what) if text.startswith(PREFIXES) else text
