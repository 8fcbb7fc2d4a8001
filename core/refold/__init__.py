"""refold: correct metrics from an event log, in the Postgres you already run.

from refold import Log, SourceEvent, append, transform
"""

from refold.errors import RefoldError
from refold.events import Answer, SourceEvent
from refold.log import Log, Receipt, append
from refold.projections.transform import Event, transform

__all__ = ["Answer", "Event", "Log", "Receipt", "RefoldError", "SourceEvent", "append", "transform"]
