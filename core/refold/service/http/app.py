"""The application: routes, who may use them, and what they answer."""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import anyio.to_thread
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, Router
from starlette.types import ASGIApp, Receive, Scope, Send

from refold.model.event.exact_json import encode
from refold.model.pressure import Level
from refold.service.http import bodies, intake
from refold.service.http.answers import STATUS, Summary
from refold.service.http.committer import LANES, LIVE_EVENTS, Committer
from refold.service.http.openapi import document
from refold.service.http.problems import Problem, answer
from refold.service.http.queue import GROUP_BYTES, GROUP_EVENTS, Unavailable
from refold.service.http.rates import Rates
from refold.service.http.refusals import Refusals
from refold.service.http.shared_state import SharedState
from refold.service.http.traced import own_context, submit
from refold.sources.http import cloudevents, segment
from refold.store.log.append import Receipt
from refold.store.log.group import Offer
from refold.store.tokens import Token

IN_FLIGHT = 2
"""Groups of one NDJSON body that wait for their commit; meanwhile its socket is not read."""
NDJSON = ("application/x-ndjson", "application/ndjson", "application/jsonl", "application/x-jsonlines")
SEGMENT_SHORT = {"t": "track", "i": "identify", "p": "page", "s": "screen", "g": "group", "a": "alias"}
"""Routes that browsers use."""
KEYED_BODY = 512 * 2**10
"""Most bytes of a body that is read before its token is known: what the API of Segment allows a batch."""
_DECODED = "refold.decoded"
"""Key of the scope of a request: the value and size of its body, once that was decoded."""
ALLOWED_HEADERS = "Authorization, Content-Type, Content-Encoding, Prefer, Traceparent, Tracestate"


@dataclass(slots=True)
class Door:
    """What the routes share in one process.

    Args:
        url: libpq URL; the login must be allowed to act as refold_door and refold_producer.
        lanes: connections for live events.
        group_events: most live events in one transaction.
        draining: whether the process is about to stop.
    """

    url: str
    lanes: int = LANES
    group_events: int = GROUP_EVENTS
    draining: bool = False
    rates: Rates = field(default_factory=Rates)
    refusals: Refusals = field(default_factory=Refusals)
    committer: Committer = field(init=False)
    shared: SharedState = field(init=False)

    @asynccontextmanager
    async def lifespan(self, app: object) -> AsyncIterator[None]:
        """Open the lanes and read the tokens; in the end commit what waits."""
        self.shared = SharedState(self.url)
        await anyio.to_thread.run_sync(self.shared.open)
        self.committer = Committer(
            self.url,
            asyncio.get_running_loop(),
            lambda: self.shared.pressure,
            lanes=self.lanes,
            group_events=self.group_events,
        )
        try:
            yield
        finally:
            await anyio.to_thread.run_sync(self.committer.close)
            await anyio.to_thread.run_sync(self.shared.close)


def application(door: Door) -> ASGIApp:
    """Return the ASGI application of a door.

    It is a bare router: the layers of a Starlette application cost as much as all that is done for an event here.
    """
    post = partial(_Guarded, door)
    keyed = partial(_Guarded, door, key_in_body=True)
    segment_routes = {**{type_: type_ for type_ in segment.TYPES}, **SEGMENT_SHORT}
    return Router(
        [
            Route("/v1/events", post(_events)),
            Route("/v1/batch", keyed(_segment_batch)),
            Route("/v1/import", keyed(_segment_batch)),
            *(Route(f"/v1/{path}", keyed(partial(_segment_message, type_))) for path, type_ in segment_routes.items()),
            Route("/livez", _Open(_live)),
            Route("/readyz", _Open(partial(_ready, door))),
            Route("/openapi.json", _Open(_openapi)),
        ],
        default=_not_found,
        redirect_slashes=False,
        lifespan=door.lifespan,
    )


Handler = Callable[[Door, Request, Token], Awaitable[Response]]


class _Guarded:
    """A route for POST that needs a token, as an ASGI application.

    Args:
        door: what the routes share.
        handler: makes the answer.
        key_in_body: whether the token may stand in the body, as SDKs of Segment write it (`writeKey`).
    """

    def __init__(self, door: Door, handler: Handler, *, key_in_body: bool = False) -> None:
        self._door = door
        self._handler = handler
        self._key_in_body = key_in_body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        try:
            response = await self._answer(request)
        except ClientDisconnect:
            return
        if self._door.draining:
            response.headers["Connection"] = "close"
        if (level := self._door.committer.level()) is not Level.fine:
            response.headers["Refold-Pressure"] = f"level={level.value}"
        await response(scope, receive, send)

    async def _answer(self, request: Request) -> Response:
        origin = request.headers.get("origin")
        if request.method == "OPTIONS":
            return _preflight(self._door, origin)
        if request.method != "POST":
            return answer(Problem(405, "the route takes POST", {"Allow": "POST, OPTIONS"}))
        token = None
        try:
            given = _given(request)
            if given is None and self._key_in_body:
                given = segment.write_key((await _decoded(request, KEYED_BODY))[0])
            token = _authenticate(self._door, given or "", origin)
            response = await self._handler(self._door, request, token)
        except Problem as problem:
            if token is None and problem.status in (401, 403):
                self._door.refusals.note(request.client.host if request.client else "a client", problem.detail)
            response = answer(problem)
        except Unavailable as unavailable:
            status = 429 if unavailable.pressure else 503
            response = answer(Problem(status, unavailable.reason, _retry(unavailable.retry_after)))
        if origin and token is not None and origin in token.origins:
            response.headers["Access-Control-Allow-Origin"] = origin
            response.headers["Vary"] = "Origin"
        return response


class _Open:
    """A route for GET that needs no token, as an ASGI application."""

    def __init__(self, handler: Callable[[], Response]) -> None:
        self._handler = handler

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] in ("GET", "HEAD"):
            response = self._handler()
        else:
            response = answer(Problem(405, "the route takes GET", {"Allow": "GET, HEAD"}))
        await response(scope, receive, send)


def _given(request: Request) -> str | None:
    """Return the token of the headers; None where there is no such header."""
    header = request.headers.get("authorization")
    if header is None:
        return None
    scheme, _, given = header.partition(" ")
    match scheme.lower():
        case "basic":
            try:
                return base64.b64decode(given, validate=True).decode().partition(":")[0].strip()
            except (binascii.Error, UnicodeDecodeError):
                return ""
        case "bearer":
            return given.strip()
        case _:
            return ""


def _authenticate(door: Door, given: str, origin: str | None) -> Token:
    token = door.shared.find(given)
    if token is None:
        if not door.shared.known:
            raise Problem(503, "tokens cannot be checked: the database is away", _retry(2))
        detail = (
            "a token is needed: Authorization: Bearer …, or Basic with the token as the user's name"
            if not given
            else "the token is not valid: it was mistyped, revoked, or has expired"
        )
        raise Problem(401, detail, {"WWW-Authenticate": 'Bearer realm="refold"'})
    if origin and token.kind == "write_key" and token.origins and origin not in token.origins:
        raise Problem(403, "the token may not be used from this web origin")
    if token.kind == "write_key" and not origin and token.origins and token.rate is None:
        raise Problem(403, "the token may only be used from its web origins")
    return token


def _traceparent(request: Request) -> str:
    return request.headers.get("traceparent", "")


def _take_rate(door: Door, token: Token, events: int) -> None:
    if token.rate is not None:
        wait = door.rates.take(token.token_id, token.rate, events)
        if wait is not None:
            raise Problem(429, f"the token may send {token.rate} events a second", _retry(wait))


async def _events(door: Door, request: Request, token: Token) -> Response:
    media = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if "ce-specversion" in request.headers and not media.startswith("application/cloudevents"):
        return await _cloud_event(door, request, token)
    if media in NDJSON:
        return await _lines(door, request, token)
    if media == "application/cloudevents+json":
        body = await bodies.whole(request)
        offer = intake.offer_of(intake.decoded(body), token, 1, cloudevents.from_json)
        return await _one(door, request, token, own_context(offer), len(body))
    if media == "application/cloudevents-batch+json":
        body = await bodies.whole(request)
        messages = intake.decoded(body)
        if not isinstance(messages, list):
            raise Problem(400, "a batch of CloudEvents must be a JSON array")
        offers = [own_context(offer) for offer in intake.offers_of(messages, token, cloudevents.from_json)]
        return await _several(door, request, token, offers, len(body))
    if media == "application/json":
        body = await bodies.whole(request)
        value = intake.decoded(body)
        if isinstance(value, list):
            return await _several(door, request, token, intake.offers_of(value, token), len(body))
        return await _one(door, request, token, intake.offer_of(value, token, 1), len(body))
    accepted = ["application/json", "application/x-ndjson", "application/cloudevents+json"]
    accepted.append("application/cloudevents-batch+json")
    raise Problem(
        415,
        f"the content type {media[:60]!r} is not known; known are {', '.join(accepted)}",
        {"Accept": ", ".join(accepted)},
    )


async def _cloud_event(door: Door, request: Request, token: Token) -> Response:
    body = await bodies.whole(request)
    headers = [(name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in request.headers.raw]
    offer = intake.offer_of(None, token, 1, lambda _: cloudevents.from_headers(headers, body))
    if offer.event is None:
        told_headers = " ".join(f"{name}: {value}" for name, value in headers if name.startswith("ce-"))
        offer.raw = f"{told_headers}\n{body[:10_000].decode('utf-8', 'backslashreplace')}"
    return await _one(door, request, token, own_context(offer), len(body))


async def _one(door: Door, request: Request, token: Token, offer: Offer, size: int) -> Response:
    _take_rate(door, token, 1)
    [receipt] = await submit(door.committer, [offer], token.name, size, _traceparent(request))
    body = {"id": receipt.event_id, "answer": receipt.answer.value}
    if receipt.reason is not None:
        body["reason"] = receipt.reason
    if receipt.answer.rejected:
        return answer(Problem(STATUS[receipt.answer], receipt.reason or "", {}), body)
    return Response(encode(body), STATUS[receipt.answer], media_type="application/json")


async def _several(door: Door, request: Request, token: Token, offers: Sequence[Offer], size: int) -> Response:
    summary = Summary(events=[] if "return=representation" in request.headers.get("prefer", "") else None)
    summary = await _submit(door, request, token, offers, size, summary)
    return JSONResponse(summary.body(), summary.status)


async def _submit(
    door: Door, request: Request, token: Token, offers: Sequence[Offer], size: int, summary: Summary
) -> Summary:
    """Commit the events of a body that was read as a whole, in portions of a group."""
    if offers:
        _take_rate(door, token, len(offers))
    bulk = len(offers) > LIVE_EVENTS
    for start in range(0, len(offers), GROUP_EVENTS):
        portion = offers[start : start + GROUP_EVENTS]
        share = size * len(portion) // len(offers)
        receipts = await submit(door.committer, portion, token.name, share, _traceparent(request), bulk=bulk)
        summary.add(range(start, start + len(portion)), receipts)
    return summary


async def _lines(door: Door, request: Request, token: Token) -> Response:
    """Commit lines in groups while the body arrives; a client that hangs up leaves whole groups."""
    summary = Summary()
    waiting: deque[tuple[range, asyncio.Task[list[Receipt]]]] = deque()
    offers: list[Offer] = []
    size = index = 0

    def send() -> None:
        nonlocal offers, size, index
        _take_rate(door, token, len(offers))
        task = asyncio.create_task(submit(door.committer, offers, token.name, size, _traceparent(request), bulk=True))
        waiting.append((range(index, index + len(offers)), task))
        index += len(offers)
        offers, size = [], 0

    async def receive() -> None:
        indexes, task = waiting.popleft()
        summary.add(indexes, await task)

    try:
        async for number, line in bodies.lines(request):
            offers.append(intake.offer_of_line(line, token, number))
            size += len(line or b"")
            if len(offers) >= GROUP_EVENTS or size >= GROUP_BYTES:
                send()
                while len(waiting) >= IN_FLIGHT:
                    await receive()
        if offers:
            send()
        while waiting:
            await receive()
    except (Problem, Unavailable) as error:
        for indexes, task in waiting:
            try:
                summary.add(indexes, await task)
            except Unavailable:
                continue
        if isinstance(error, Problem) and error.status not in (408, 429):
            error.detail += f" ({summary.total} events before it are committed)"
        raise
    finally:
        for _, task in waiting:
            task.cancel()
    return JSONResponse(summary.body(), summary.status)


async def _decoded(request: Request, most: int = bodies.BUFFERED) -> tuple[Any, int]:
    """Return the JSON value of a body, and its size in bytes; it is read once, also where its token stands in it."""
    found: tuple[Any, int] | None = request.scope.get(_DECODED)
    if found is None:
        body = await bodies.whole(request, most)
        found = request.scope[_DECODED] = intake.decoded(body), len(body)
    return found


async def _segment_message(type_: str, door: Door, request: Request, token: Token) -> Response:
    message, size = await _decoded(request)
    if not isinstance(message, dict):
        raise Problem(400, "the body must be an object")
    offer = intake.offer_of(segment.without_key(message), token, 1, lambda one: segment.from_message(one, type_))
    await _submit(door, request, token, [offer], size, Summary())
    return JSONResponse({"success": True})


async def _segment_batch(door: Door, request: Request, token: Token) -> Response:
    value, size = await _decoded(request)
    messages = value.get("batch") if isinstance(value, dict) else None
    if not isinstance(messages, list):
        raise Problem(400, "the body must be an object with an array `batch`")
    messages = [segment.without_key(one) for one in messages]
    if isinstance(value.get("context"), dict):
        messages = [
            {**one, "context": {**value["context"], **one.get("context", {})}}
            if isinstance(one, dict) and isinstance(one.get("context", {}), dict)
            else one
            for one in messages
        ]
    await _submit(door, request, token, intake.offers_of(messages, token, segment.from_message), size, Summary())
    # SDKs know 200 or nothing: what was rejected is in refold.rejected, and would be rejected again.
    return JSONResponse({"success": True})


def _live() -> Response:
    return JSONResponse({"live": True})


def _ready(door: Door) -> Response:
    reasons = []
    if door.draining:
        reasons.append("draining: the server is about to stop")
    if not door.shared.fresh:
        reasons.append("the database is away")
    if door.committer.level() is Level.stop:
        reasons.append(door.committer.because)
    return JSONResponse({"ready": not reasons, "reasons": reasons}, 503 if reasons else 200)


def _openapi() -> Response:
    return JSONResponse(document())


def _preflight(door: Door, origin: str | None) -> Response:
    if not origin or not door.shared.allows_origin(origin):
        return answer(Problem(403, "no token may be used from this web origin"))
    return Response(
        status_code=204,
        headers={
            "Access-Control-Allow-Origin": origin,
            "Access-Control-Allow-Methods": "POST",
            "Access-Control-Allow-Headers": ALLOWED_HEADERS,
            "Access-Control-Max-Age": "600",
            "Vary": "Origin",
        },
    )


def _retry(seconds: float) -> dict[str, str]:
    return {"Retry-After": str(max(1, round(seconds)))}


async def _not_found(scope: Scope, receive: Receive, send: Send) -> None:
    await answer(Problem(404, "there is nothing here; /openapi.json lists the routes"))(scope, receive, send)
