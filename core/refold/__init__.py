"""refold: correct metrics from an event log, in the Postgres you already run.

from refold import Log, SourceEvent, append, transform
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from refold.errors import RefoldError
    from refold.events import Answer, SourceEvent
    from refold.log.append import Receipt, append
    from refold.log.log import Log
    from refold.projections.transform import Event, transform

__all__ = ["Answer", "Event", "Log", "Receipt", "RefoldError", "SourceEvent", "append", "transform"]

_HOMES = {
    "Answer": "refold.events",
    "Event": "refold.projections.transform",
    "Log": "refold.log.log",
    "Receipt": "refold.log.append",
    "RefoldError": "refold.errors",
    "SourceEvent": "refold.events",
    "append": "refold.log.append",
    "transform": "refold.projections.transform",
}

if not TYPE_CHECKING:
    # Whoever imports a module of refold's runs this file first, and should not wait for what another one needs.
    def __getattr__(name: str) -> object:
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        found = globals()[name] = getattr(import_module(_HOMES[name]), name)
        return found

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
