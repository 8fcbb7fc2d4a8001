"""Signing in with the token, and out."""

from __future__ import annotations

import logging

from anyio import sleep
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from refold.dashboard.rendering import render
from refold.dashboard.requests import local_path, read_form
from refold.dashboard.security import COOKIE, PROXIED
from refold.dashboard.shared_state import Dashboard
from refold.dashboard.tokens import SESSION_S

log = logging.getLogger("refold.dashboard")

WRONG_TOKEN_S = 0.5
"""Seconds after which a wrong token is answered."""


def sign_in_page(dashboard: Dashboard, request: Request, *, wrong: bool = False) -> Response:
    """Return the form that asks for the token."""
    target = local_path(request.query_params.get("next", "/"))
    text = render(dashboard, "sign_in.html", request, wrong=wrong, target=target, here="sign_in")
    return HTMLResponse(text, 401 if wrong else 200)


async def sign_in(dashboard: Dashboard, request: Request) -> Response:
    """Give a browser a session for its token."""
    form = await read_form(request) or {}
    grade = dashboard.tokens.grade(form.get("token", "").strip())
    if grade == "nobody":
        log.warning("a wrong token was given")
        await sleep(WRONG_TOKEN_S)
        return sign_in_page(dashboard, request, wrong=True)
    response = RedirectResponse(local_path(form.get("next", "/")), 303)
    response.set_cookie(
        COOKIE,
        dashboard.tokens.session(grade),
        max_age=SESSION_S,
        httponly=True,
        samesite="strict",
        secure=request.scope["scheme"] == "https"
        or (request.scope[PROXIED] and request.headers.get("x-forwarded-proto", "").casefold() == "https"),
    )
    return response


def sign_out(request: Request) -> Response:
    """End a browser's session."""
    response = RedirectResponse("/", 303)
    response.delete_cookie(COOKIE, httponly=True, samesite="strict")
    return response
