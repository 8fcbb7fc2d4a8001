"""What the environment says of traces, read once: whether there are any, and of what."""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib.util import find_spec

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")


def _asked(environment: Mapping[str, str]) -> bool:
    """Return whether the environment asks for traces, and the packages for them are installed."""
    exporter = environment.get("OTEL_TRACES_EXPORTER", "").strip().lower()
    if environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true" or exporter == "none":
        return False
    if not exporter and not any(environment.get(name) for name in _ENDPOINTS):
        return False
    return find_spec("opentelemetry") is not None and find_spec("opentelemetry.sdk") is not None


ON = _asked(os.environ)
"""Whether the environment of this process asks for traces."""
ROOTS = os.environ.get("REFOLD_TRACE_ROOTS") == "1"
"""Whether an append outside any trace begins one."""
ALL = os.environ.get("REFOLD_TRACE_PAGES") == "all"
"""Whether pages without a sampled event, and audits that find nothing, have spans too."""


def _slow() -> float:
    try:
        return float(os.environ.get("REFOLD_TRACE_SLOW", "1"))
    except ValueError:
        return 1.0


SLOW_S = _slow()
"""Seconds after which a page or an audit has a span in any case."""
