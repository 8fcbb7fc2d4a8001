"""The log: storing every event exactly once."""

from refold.store.log.append import Receipt, append
from refold.store.log.log import Log

__all__ = ["Log", "Receipt", "append"]
