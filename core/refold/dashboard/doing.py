"""Actions: a form is read, done as refold_worker, and leads back to its page."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import UTC, datetime

import psycopg
from anyio.to_thread import run_sync
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from refold.dashboard.acting import Act, Acting
from refold.dashboard.refusals import away, said
from refold.dashboard.requests import read_form
from refold.dashboard.security import GRADE, PROXIED
from refold.dashboard.shared_state import Dashboard
from refold.errors import DatabaseError, RefoldError

log = logging.getLogger("refold.dashboard")


async def do(dashboard: Dashboard, request: Request, act: Act, back: str) -> Response:
    """Do what a form says, and lead back to its page."""
    if request.scope[GRADE] != "actions":
        return said(
            dashboard, request, 403, "This needs the token for actions", "Sign in with it first.", as_json=False
        )
    form = await read_form(request)
    if form is None:
        return said(dashboard, request, 413, "The form is too long", "Nothing was done.")
    return await run_sync(_do, dashboard, request, act, form, back)


def _do(dashboard: Dashboard, request: Request, act: Act, form: Mapping[str, str], back: str) -> Response:
    by = request.headers.get("x-forwarded-user") if request.scope[PROXIED] else None
    try:
        with dashboard.database.acting() as conn:
            number = act(Acting(conn, by, dashboard.projections), form)
    except (DatabaseError, psycopg.OperationalError) as error:
        return away(dashboard, request, error, act)
    except RefoldError as error:
        remedy = f" {error.remedy}" if error.remedy else ""
        text = f"{str(error)[:1].upper()}{str(error)[1:]}.{remedy}"
        return said(dashboard, request, 409, "Nothing was done", text)
    except psycopg.Error as error:
        log.warning("an action failed: %s", type(error).__name__)
        return said(dashboard, request, 409, "The database refused it", f"({type(error).__name__})")
    dashboard.outages.answered(act, datetime.now(UTC))
    dashboard.shared.forget()
    return RedirectResponse(f"{back}?done={number}", 303)
