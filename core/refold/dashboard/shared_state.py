"""What all requests to the dashboard share."""

from __future__ import annotations

from pathlib import Path

from refold.dashboard.database import Database, Shared
from refold.dashboard.outages import Outages
from refold.dashboard.tokens import Tokens
from refold.errors import InputError
from refold.exporter.exporter import Exporter
from refold.store.builds.compiled import Compiler


class Dashboard:
    """What all requests share.

    Args:
        url: libpq URL; the login must be allowed to act as refold_observer, and for evidence and actions as
            refold_inspector, refold_analyst and refold_worker.
        tokens: the tokens.
        closed: whether every page needs a token.
        projections: folder with the code of transforms, for retries and explanations.
        trace_url: address of a trace elsewhere, with `{trace_id}` in it; empty: traces are not linked.

    Raises:
        InputError: `trace_url` is no such address.
    """

    def __init__(
        self, url: str, tokens: Tokens, *, closed: bool, projections: Path | None, trace_url: str = ""
    ) -> None:
        if trace_url and not (trace_url.startswith(("https://", "http://")) and "{trace_id}" in trace_url):
            raise InputError(
                f"REFOLD_TRACE_URL is no address with a place for the trace: {trace_url}",
                remedy="Write it as in: https://tempo.example/trace/{trace_id}",
            )
        self.database = Database(url)
        self.shared = Shared()
        self.exporter = Exporter(url)
        self.tokens = tokens
        self.closed = closed
        self.projections = projections
        self.compiler = Compiler(projections)
        self.trace_url = trace_url
        self.outages = Outages()

    def close(self) -> None:
        """Close all connections."""
        self.exporter.close()
        self.database.close()
