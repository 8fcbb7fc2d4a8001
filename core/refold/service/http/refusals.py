"""Who comes without a valid token: said in the log, for a person or a program that blocks addresses."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from refold.visible import visible

EVERY_S = 60.0
"""Seconds in which an address is named once."""
ADDRESSES = 100
"""Most addresses that are named in that time."""
MAX_CHARACTERS = 60

log = logging.getLogger("refold.serve")


class Refusals:
    """Requests that were refused for their token, by address, in one process.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._since = clock()
        self._named: set[str] = set()

    def note(self, address: str, reason: str) -> None:
        """Log a refused request, unless its address or too many others were named a moment ago.

        Args:
            address: of the client; a proxy that is trusted may have written anything.
            reason: why it was refused; it holds no token.
        """
        now = self._clock()
        if now - self._since >= EVERY_S:
            self._since, self._named = now, set()
        shown = visible(address[:MAX_CHARACTERS])
        if shown in self._named or len(self._named) >= ADDRESSES:
            return
        self._named.add(shown)
        more = "; others come, too, and are not named for a minute" if len(self._named) == ADDRESSES else ""
        log.warning("refused %s: %s%s", shown, reason, more)
