"""The application: its routes."""

from __future__ import annotations

from collections.abc import Collection
from functools import partial
from pathlib import Path

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from refold.dashboard.answers import answer
from refold.dashboard.doing import do
from refold.dashboard.refusals import needs_token, said
from refold.dashboard.registry import ACTS, PAGES
from refold.dashboard.rendering import STATIC
from refold.dashboard.search import search
from refold.dashboard.security import GRADE, Guard, Proxies
from refold.dashboard.shared_state import Dashboard
from refold.dashboard.sign_in import sign_in, sign_in_page, sign_out
from refold.dashboard.tokens import Tokens
from refold.exporter.routes import routes as exporting


def create_app(
    url: str,
    *,
    host: str = "127.0.0.1",
    names: Collection[str] = (),
    tokens: Tokens | None = None,
    closed: bool = False,
    trust_proxy: str = "",
    projections: Path | None = None,
    trace_url: str = "",
) -> Starlette:
    """Return the ASGI application of a dashboard.

    Args:
        url: libpq URL; see `Dashboard`.
        host: the address that it will listen on.
        names: further names by which it may be called, such as a proxy's.
        tokens: the tokens; None: read-only, without evidence.
        closed: whether every page needs a token.
        trust_proxy: addresses of proxies whose X-Forwarded-… headers are believed, separated by commas.
        projections: folder with the code of transforms, for retries and explanations.
        trace_url: address of a trace elsewhere, with `{trace_id}` in it; empty: traces are not linked.

    Raises:
        InputError: `trust_proxy` is not a list of addresses, or `trace_url` is no such address.
    """
    known = tokens or Tokens()
    dashboard = Dashboard(url, known, closed=closed, projections=projections, trace_url=trace_url)
    routes: list[Route | Mount] = []
    for page in PAGES:
        routes += [
            Route(page.json_path, partial(answer, dashboard, page, as_json=True)),
            Route(page.path, partial(answer, dashboard, page, as_json=False)),
        ]
    for path, (act, back) in ACTS.items():
        routes.append(Route(path, partial(do, dashboard, act=act, back=back), methods=["POST"]))
    routes += [
        Route("/search", partial(search, dashboard)),
        Route("/sign-in", partial(sign_in_page, dashboard), methods=["GET"]),
        Route("/sign-in", partial(sign_in, dashboard), methods=["POST"]),
        Route("/sign-out", sign_out, methods=["POST"]),
        Mount("/static", _Static(directory=STATIC)),
        *exporting(dashboard.exporter, refusal=partial(needs_token, dashboard)),
    ]

    def not_found(request: Request, error: Exception) -> Response:
        request.scope.setdefault(GRADE, "nobody")
        return said(
            dashboard,
            request,
            404,
            "There is no such page",
            "The pages are named above.",
            as_json=request.url.path.endswith(".json"),
        )

    app = Starlette(
        routes=routes,
        middleware=[Middleware(Guard, host=host, names=names, tokens=known, proxies=Proxies.parse(trust_proxy))],
        exception_handlers={404: not_found},
    )
    app.state.dashboard = dashboard
    return app


class _Static(StaticFiles):
    """Files that belong to a version, which stands in their address."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        response.headers["cache-control"] = "public, max-age=86400"
        return response
