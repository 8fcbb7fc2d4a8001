"""Pages that say why there is no other."""

from __future__ import annotations

from collections.abc import Hashable
from urllib.parse import urlencode

import psycopg
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response

from refold.dashboard.database import Away
from refold.dashboard.rendering import render
from refold.dashboard.security import GRADE
from refold.dashboard.shared_state import Dashboard
from refold.errors import DatabaseError


def needs_token(dashboard: Dashboard, request: Request) -> Response | None:
    """Return the answer to a program whose request lacks a token; None if it may see figures."""
    if not dashboard.closed or request.scope[GRADE] != "nobody":
        return None
    return JSONResponse({"error": "a token is needed"}, 401, {"www-authenticate": "Bearer"})


def said(
    dashboard: Dashboard,
    request: Request,
    status: int,
    title: str,
    text: str,
    *,
    as_json: bool = False,
    still: bool = False,
) -> Response:
    """Return a page that says something."""
    if as_json:
        return JSONResponse({"error": title, "detail": text}, status)
    page = render(dashboard, "said.html", request, title=title, text=text, tone="behind", still=still)
    return HTMLResponse(page, status)


def sign_in_first(dashboard: Dashboard, request: Request, *, as_json: bool) -> Response:
    """Lead to the form that asks for the token."""
    if as_json:
        return JSONResponse({"error": "a token is needed"}, 401, {"www-authenticate": "Bearer"})
    target = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    return RedirectResponse(f"/sign-in?{urlencode({'next': target})}", 303)


def away(
    dashboard: Dashboard,
    request: Request,
    error: DatabaseError | psycopg.Error,
    asker: Hashable,
    *,
    as_json: bool = False,
) -> Response:
    """Return a page that says why the database gives no answer, and since when.

    Args:
        dashboard: what all requests share.
        request: the request.
        error: what the database or its driver says.
        asker: who had no answer; see `Outages`.
        as_json: whether a program asks.
    """
    since = dashboard.outages.failed(asker, error)
    if isinstance(error, DatabaseError) and not isinstance(error, Away):
        title, text = "The dashboard cannot read this database", f"{error}. {error.remedy or ''}"
    elif isinstance(error, Away):
        title = "The database does not answer"
        text = "Nothing is known of the metrics at present. This page asks again by itself."
    else:
        title = "The database refuses what this page asks"
        text = f"({type(error).__name__}) Is its schema of this version? `refold migrate` upgrades it."
    if as_json:
        return JSONResponse({"error": title, "detail": text, "since": since.isoformat()}, 503)
    return HTMLResponse(
        render(dashboard, "said.html", request, title=title, text=text, tone="wrong", since=since),
        503,
        {"retry-after": "2"},
    )
