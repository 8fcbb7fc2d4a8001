"""What a request says: its form, and its address as we write it."""

from __future__ import annotations

from urllib.parse import parse_qsl, quote, urlencode

from starlette.requests import ClientDisconnect, Request

from refold.dashboard.registry import Page

FORM_BYTES = 16 * 1024
"""Most bytes of a form."""


async def read_form(request: Request) -> dict[str, str] | None:
    """Return the fields of a form; None if it is too long."""
    body = b""
    try:
        async for part in request.stream():
            body += part
            if len(body) > FORM_BYTES:
                return None
    except ClientDisconnect:
        return None
    return dict(parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True))


def local_path(target: str) -> str:
    """Return a path of ours; an address of another site becomes `/`."""
    if not target.startswith("/") or target.startswith(("//", "/\\")) or any(ord(one) <= 32 for one in target):
        return "/"
    return target


def address(request: Request) -> str:
    """Return the path and query of a request; `//other.example/` would be an address of another site."""
    query = request.scope["query_string"].decode("latin-1")
    return "/" + quote(request.scope["path"].lstrip("/\\")) + (f"?{query}" if query else "")


def json_address(request: Request, page: Page) -> str:
    """Return the path and query of the JSON of a page."""
    path = "/index.json" if page.path == "/" else f"{request.url.path}.json"
    pairs = [(name, value) for name, value in request.query_params.items() if name != "done"]
    return path + (f"?{urlencode(pairs)}" if pairs else "")
