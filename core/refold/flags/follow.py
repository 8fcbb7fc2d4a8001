"""A canary that follows a flag: the percentage of another OpenFeature provider is the canary's limit."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

from openfeature.client import OpenFeatureClient
from openfeature.evaluation_context import EvaluationContext
from openfeature.flag_evaluation import Reason
from openfeature.provider import AbstractProvider

from refold.errors import InputError

UNKNOWN = -1
"""The default that the client is given: no percentage, so that it cannot pass for an answer."""


def asked(client: OpenFeatureClient, flag: str, name: str) -> tuple[int | None, str]:
    """Return the percentage that a flag says, or None; and why there is none.

    Args:
        client: a client of OpenFeature.
        flag: the key of the flag.
        name: the metric, which the flag gets as targeting key.
    """
    found = client.get_integer_details(flag, UNKNOWN, EvaluationContext(targeting_key=name))
    if found.error_code is not None:
        return None, found.error_message or str(found.error_code)
    # Not by the reason: a provider may call the value that it is set to its default.
    if found.value == UNKNOWN:
        return None, "it has no value"
    if isinstance(found.value, bool) or not 0 <= found.value <= 100:
        return None, f"{found.value!r} is no percentage"
    if found.reason == Reason.STALE:
        return None, "its value is stale"
    return found.value, ""


def load_provider(target: str, folder: Path) -> AbstractProvider:
    """Return the provider that `MODULE:NAME` names: a provider, or what returns one when it is called.

    Args:
        target: the text.
        folder: where modules are looked for first.

    Raises:
        InputError: there is no such provider.
    """
    module, _, name = target.partition(":")
    if not module or not name:
        raise InputError(f"{target!r} names no provider", remedy="Write MODULE:NAME, such as flags:provider.")
    sys.path.insert(0, str(folder))
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise InputError(f"{target}: {error}", remedy=f"It must be importable from {folder}.") from error
    finally:
        sys.path.remove(str(folder))
    made = found() if callable(found) else found
    if not isinstance(made, AbstractProvider):
        raise InputError(f"{target} is no provider of OpenFeature, but {type(made).__name__}")
    return made
