"""The search field: a metric, an event or a trace by its name."""

from __future__ import annotations

import re
from urllib.parse import quote, urlencode
from uuid import UUID

import psycopg
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from refold.dashboard import wording
from refold.dashboard.ask import Ask
from refold.dashboard.database import TooSlow
from refold.dashboard.security import GRADE
from refold.dashboard.shared_state import Dashboard
from refold.errors import DatabaseError, RefoldError

_TRACE = re.compile("[0-9a-f]{32}")


def search(dashboard: Dashboard, request: Request) -> Response:
    """Lead to the metric, event or trace of that name, else to the metrics whose names hold the words."""
    given = request.query_params.get("q", "")
    words = given.strip()
    try:
        health = Ask(dashboard.database, dashboard.shared, "nobody", {}, {}).health()
    except (TooSlow, DatabaseError, psycopg.Error):
        return RedirectResponse("/", 303)
    if not (dashboard.closed and request.scope[GRADE] == "nobody") and health.metric(words) is not None:
        return RedirectResponse(f"/metrics/{quote(words, safe='')}", 303)
    # Whether an id is known is evidence, too.
    target = _event_or_trace(dashboard, given) if request.scope[GRADE] != "nobody" and words else None
    if target is not None:
        return RedirectResponse(target, 303)
    return RedirectResponse(f"/?{urlencode({'q': words})}" if words else "/", 303)


def _event_or_trace(dashboard: Dashboard, given: str) -> str | None:
    """Return the page of an event with exactly this id, else that of a trace."""

    def known(conn: psycopg.Connection) -> str | None:
        for event_id in dict.fromkeys((given, given.strip())):
            known_id = (
                "SELECT 1 FROM refold.event_ids WHERE event_id = %(id)s::text"
                " UNION ALL SELECT 1 FROM refold.archived_ids(ARRAY[%(id)s::text])"
            )
            if conn.execute(known_id, {"id": event_id}).fetchone():
                return wording.event_path(event_id)
        trace = given.strip().lower()
        if (
            _TRACE.fullmatch(trace)
            and conn.execute("SELECT 1 FROM refold.traces WHERE trace_id = %s LIMIT 1", (UUID(trace),)).fetchone()
        ):
            return f"/events?trace={trace}"
        return None

    try:
        return dashboard.database.ask("refold_inspector", known)
    except (RefoldError, psycopg.Error):
        return None
