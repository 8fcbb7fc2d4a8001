"""Whether the database answers, as the log tells it: each change once, however many pages ask."""

from __future__ import annotations

import logging
import threading
from collections.abc import Hashable
from dataclasses import dataclass, field
from datetime import UTC, datetime

import psycopg

from refold.dashboard.database import Away
from refold.errors import RefoldError

log = logging.getLogger("refold.dashboard")


@dataclass(slots=True)
class _Outage:
    since: datetime
    whole: bool
    askers: set[Hashable] = field(default_factory=set)


class Outages:
    """What the database refuses now, and to whom.

    While it is away, nobody has an answer, and any answer ends that. What it refuses to one asker, such as a role that
    the login may not act as, it may answer to another: that ends once all who were refused have had an answer.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._outages: dict[str, _Outage] = {}

    def failed(self, asker: Hashable, error: RefoldError | psycopg.Error) -> datetime:
        """Record that an asker had no answer, and return since when that is so."""
        text = str(error) if isinstance(error, RefoldError) else type(error).__name__
        with self._lock:
            outage = self._outages.get(text)
            if outage is None:
                log.warning("%s", text)
                outage = self._outages[text] = _Outage(datetime.now(UTC), isinstance(error, Away))
            outage.askers.add(asker)
            return outage.since

    def answered(self, asker: Hashable, at: datetime) -> None:
        """Record that an asker has an answer, which was made at a time: one from before an outage does not end it."""
        with self._lock:
            for text, outage in list(self._outages.items()):
                if at < outage.since:
                    continue
                outage.askers.discard(asker)
                if outage.whole or not outage.askers:
                    del self._outages[text]
                    if outage.whole:
                        log.warning("the database answers again")
                    else:
                        log.warning("the database no longer refuses: %s", text)
