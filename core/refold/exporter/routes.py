"""The routes of an exporter, for a server of their own or as a part of another: /metrics, /livez and /readyz."""

from __future__ import annotations

import gzip
from collections.abc import Callable

import anyio.to_thread
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from refold.exporter.exporter import SINGLE, Exporter

LEVEL = 1
"""Level of gzip: the fastest makes a twentieth of a page."""


def routes(
    exporter: Exporter,
    *,
    draining: Callable[[], bool] = lambda: False,
    refusal: Callable[[Request], Response | None] = lambda request: None,
) -> list[Route]:
    """Return the routes; whoever mounts them closes the exporter, and checks the Host header.

    Args:
        exporter: reads the figures.
        draining: returns whether the server is about to stop, for /readyz.
        refusal: returns the answer to a scrape that may not see the figures; None lets it.
    """

    async def metrics(request: Request) -> Response:
        if (refused := refusal(request)) is not None:
            return refused
        only = frozenset(request.query_params.getlist("projection"))
        if len(only) > SINGLE:
            return PlainTextResponse(f"A scrape may name {SINGLE} projections.\n", 400)
        accept = ",".join(request.headers.getlist("accept"))
        zipped = "gzip" in request.headers.get("accept-encoding", "")
        return await anyio.to_thread.run_sync(_answer, exporter, accept, only, zipped)

    async def live(request: Request) -> Response:
        return JSONResponse({"live": True})

    async def ready(request: Request) -> Response:
        reasons = ["draining: the server is about to stop"] if draining() else []
        if not await anyio.to_thread.run_sync(lambda: exporter.ready):
            reasons.append("the database is away")
        return JSONResponse({"ready": not reasons, "reasons": reasons}, 503 if reasons else 200)

    return [Route("/metrics", metrics), Route("/livez", live), Route("/readyz", ready)]


def _answer(exporter: Exporter, accept: str, only: frozenset[str], zipped: bool) -> Response:
    found = exporter.scrape(accept, only)
    headers = {"Vary": "Accept, Accept-Encoding", "Cache-Control": "no-store"}
    body = found.text
    if zipped:
        body = gzip.compress(body, LEVEL)
        headers["Content-Encoding"] = "gzip"
    # As a header of its own, so that Starlette adds no charset.
    return Response(body, headers={"Content-Type": found.media_type, **headers})
