"""refold: correct metrics from an event log, in the Postgres you already run.

from refold import Log, SourceEvent, append, transform
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from refold.errors import Overloaded, RefoldError
    from refold.model.event.source_event import Answer, SourceEvent
    from refold.model.projection.transform import Event, transform
    from refold.store.log.append import Receipt, append
    from refold.store.log.log import Log
    from refold.store.pressure import Pressure, pressure

__version__ = "0.1.0"
"""The version of this package: the only place that states it. The build reads it from here."""

__all__ = [
    "Answer",
    "Event",
    "Log",
    "Overloaded",
    "Pressure",
    "Receipt",
    "RefoldError",
    "SourceEvent",
    "__version__",
    "append",
    "pressure",
    "transform",
]

_HOMES = {
    "Answer": "refold.model.event.source_event",
    "Event": "refold.model.projection.transform",
    "Log": "refold.store.log.log",
    "Overloaded": "refold.errors",
    "Pressure": "refold.store.pressure",
    "Receipt": "refold.store.log.append",
    "RefoldError": "refold.errors",
    "SourceEvent": "refold.model.event.source_event",
    "append": "refold.store.log.append",
    "pressure": "refold.store.pressure",
    "transform": "refold.model.projection.transform",
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
