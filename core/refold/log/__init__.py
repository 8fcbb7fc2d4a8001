"""The log: getting events in, once each."""

from refold.log.append import Receipt, append
from refold.log.log import Log

__all__ = ["Log", "Receipt", "append"]
