"""The duty that gives what is live to a catalogue, as events of OpenLineage.

It does so only if `OPENLINEAGE_URL` names a receiver or a file. Each snapshot is complete and is given at least once;
one that cannot be given is dropped, for the next has the same and more.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import psycopg

from refold import __version__
from refold.engine.lineage.graph import lineage_graph
from refold.engine.lineage.openlineage import EVERY_S, snapshot_events
from refold.errors import InputError, RefoldError
from refold.store.builds.compiled import Compiler

log = logging.getLogger("refold.openlineage")

NAME = "openlineage"
EVERY = float(EVERY_S)
REQUEST_S = 5.0
"""Seconds that a receiver has for each part of an answer."""
SNAPSHOT_S = 20.0
"""Seconds that a duty waits for the receiver of a snapshot."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where events go.

    Args:
        file: a file that events are added to, one on each line; otherwise
        url: the address that takes events by POST.
        key: the key of the receiver.
    """

    file: Path | None = None
    url: str = ""
    key: str | None = field(default=None, repr=False)


class NotGiven(RefoldError):
    """A receiver did not take an event."""


def target(environment: Mapping[str, str]) -> Target | None:
    """Return where events go, from the variables that OpenLineage's own clients use; None if nowhere.

    `OPENLINEAGE_URL` (http, https, or file:///path), `OPENLINEAGE_ENDPOINT`, `OPENLINEAGE_API_KEY`,
    `OPENLINEAGE_DISABLED`.

    Raises:
        InputError: the URL is none of these. The message does not repeat it: it may hold a password.
    """
    given = environment.get("OPENLINEAGE_URL", "").strip()
    if not given or environment.get("OPENLINEAGE_DISABLED", "").strip().lower() == "true":
        return None
    parts = urlsplit(given)
    if parts.scheme == "file" and parts.path and not parts.netloc:
        return Target(file=Path(unquote(parts.path)))
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise InputError(
            "OPENLINEAGE_URL is not a URL", remedy="Write it like https://catalogue.example:5000, or file:///path."
        )
    endpoint = environment.get("OPENLINEAGE_ENDPOINT", "api/v1/lineage")
    return Target(url=f"{given.rstrip('/')}/{endpoint.lstrip('/')}", key=environment.get("OPENLINEAGE_API_KEY") or None)


def run(conn: psycopg.Connection, compiler: Compiler) -> None:
    """Give a snapshot to the receiver, if there is one.

    Raises:
        RefoldError: the receiver did not take it in time.
    """
    to = target(os.environ)
    if to is not None:
        give(to, snapshot_events(conn, lineage_graph(conn, compiler, columns=True)))


def give(to: Target, events: Sequence[Mapping[str, Any]], seconds: float = SNAPSHOT_S) -> None:
    """Give events to a receiver or a file.

    Args:
        to: where they go.
        events: the events.
        seconds: time to wait for the receiver.

    Raises:
        NotGiven: the receiver did not take them in time.
        OSError: the file cannot be written.
    """
    lines = [json.dumps(event) for event in events]
    if to.file is not None:
        with to.file.open("a", encoding="utf-8") as file:
            file.write("".join(f"{one}\n" for one in lines))
        return
    # In a thread: a receiver that sends a byte now and then would hold the duty beyond any time-out of a socket.
    sending = _Sending(to, lines)
    sending.start()
    sending.join(seconds)
    if sending.is_alive():
        sending.stop.set()
        raise NotGiven(f"the receiver of OpenLineage's events took {sending.given} of {len(lines)} in {seconds:.0f} s")
    if sending.error is not None:
        raise sending.error


class _Sending(threading.Thread):
    def __init__(self, to: Target, lines: Sequence[str]) -> None:
        super().__init__(name="openlineage", daemon=True)
        self.to = to
        self.lines = lines
        self.given = 0
        self.stop = threading.Event()
        self.error: NotGiven | None = None

    def run(self) -> None:
        # The key is for this receiver, and for none that it names.
        opener = urllib.request.build_opener(_NoRedirect)
        for line in self.lines:
            if self.stop.is_set():
                return
            try:
                with opener.open(self._request(line), timeout=REQUEST_S):
                    pass
            except urllib.error.HTTPError as error:
                self.error = NotGiven(f"the receiver of OpenLineage's events answered {error.code}")
                error.close()
                return
            except (OSError, ValueError) as error:
                # Not its text: it may repeat the address.
                self.error = NotGiven(
                    f"the receiver of OpenLineage's events cannot be reached ({type(error).__name__})"
                )
                return
            self.given += 1

    def _request(self, line: str) -> urllib.request.Request:
        headers = {"Content-Type": "application/json", "User-Agent": f"refold/{__version__}"}
        if self.to.key is not None:
            headers["Authorization"] = f"Bearer {self.to.key}"
        return urllib.request.Request(self.to.url, line.encode(), headers, method="POST")


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None
