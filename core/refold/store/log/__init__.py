"""The log: getting events in, once each."""

from refold.store.log.append import Receipt, append
from refold.store.log.log import Log

__all__ = ["Log", "Receipt", "append"]
