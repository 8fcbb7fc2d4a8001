"""What a page answers: read once a second for all who ask, and written once for all who ask alike."""

from __future__ import annotations

import logging
from collections.abc import Hashable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import psycopg
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from refold.dashboard.ask import Ask, NotThere, SignInFirst
from refold.dashboard.database import TooSlow
from refold.dashboard.json_text import dumped
from refold.dashboard.refusals import away, said, sign_in_first
from refold.dashboard.registry import Page
from refold.dashboard.rendering import render
from refold.dashboard.requests import json_address
from refold.dashboard.security import GRADE
from refold.dashboard.shared_state import Dashboard
from refold.dashboard.tokens import Grade
from refold.errors import DatabaseError

log = logging.getLogger("refold.dashboard")


@dataclass(slots=True)
class Answer:
    """What a page has read, and the texts that were made of it."""

    data: Any
    at: datetime
    texts: dict[object, str] = field(default_factory=dict)


def answer(dashboard: Dashboard, page: Page, request: Request, *, as_json: bool) -> Response:
    """Return a page as HTML or JSON; it says so if the database does not answer."""
    grade: Grade = request.scope[GRADE]
    query = dict(request.query_params)
    done = query.pop("done", "")
    if dashboard.closed and grade == "nobody":
        return sign_in_first(dashboard, request, as_json=as_json)
    ask = Ask(dashboard.database, dashboard.shared, grade, dict(request.path_params), query, dashboard.compiler)
    asker = (page.path, ask.evidence)
    try:
        return _answer(dashboard, page, request, ask, asker, done, as_json=as_json)
    except NotThere as error:
        return said(dashboard, request, 404, error.title, str(error), as_json=as_json)
    except SignInFirst:
        return sign_in_first(dashboard, request, as_json=as_json)
    except TooSlow as error:
        then = "Load this page again later." if page.still else "This page asks again."
        text = f"{str(error)[:1].upper()}{str(error)[1:]}. {then}"
        return said(dashboard, request, 503, "The database is slow", text, as_json=as_json, still=page.still)
    except (DatabaseError, psycopg.Error) as error:
        return away(dashboard, request, error, asker, as_json=as_json)
    except Exception:
        # What changed between two statements may be gone; nobody is shown a bare error for it.
        log.exception("%s failed", page.path)
        return said(dashboard, request, 500, "This page failed", "The log says why. It asks again.", as_json=as_json)


def _answer(
    dashboard: Dashboard, page: Page, request: Request, ask: Ask, asker: Hashable, done: str, *, as_json: bool
) -> Response:
    """Read and write a page; its errors are told by `answer`."""
    key = (page.path, tuple(sorted(ask.path.items())), tuple(sorted(ask.query.items())), ask.evidence)

    def made() -> Answer:
        return Answer(page.read(ask), datetime.now(UTC))

    found = made() if page.still else dashboard.shared.get(key, made)
    health = ask.health()
    notice = _notice(dashboard, done)
    dashboard.outages.answered(asker, found.at)
    if as_json:
        if "json" not in found.texts:
            found.texts["json"] = dumped(found.data)
        return Response(found.texts["json"], media_type="application/json")
    partial = "hx-request" in request.headers
    form = ("html", partial, ask.grade, request.url.path)
    if notice is not None or form not in found.texts:
        text = render(
            dashboard,
            f"{page.template}.html",
            request,
            page=page,
            data=found.data,
            health=health,
            here=page.template,
            json_path=json_address(request, page),
            notice=notice,
            still=page.still,
        )
        if notice is not None:
            return HTMLResponse(text)
        found.texts[form] = text
    return HTMLResponse(found.texts[form])


def _notice(dashboard: Dashboard, done: str) -> tuple[str, str] | None:
    """Return the command and the outcome of an action that was just done."""
    if not (done.isascii() and done.isdigit() and len(done) < 19):
        return None
    rows = dashboard.database.ask(
        "refold_observer",
        lambda conn: conn.execute(
            "SELECT command, coalesce(outcome, 'it runs') FROM refold.actions WHERE action_id = %s", (int(done),)
        ).fetchall(),
    )
    return (rows[0][0], rows[0][1]) if rows else None
