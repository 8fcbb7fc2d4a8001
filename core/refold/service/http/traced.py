"""Traces of requests: the context that came with each event, and the span of its append."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from refold import tracing
from refold.service.http.committer import Committer
from refold.store.log.append import Receipt
from refold.store.log.group import Offer
from refold.tracing import Appending


async def submit(
    committer: Committer, offers: Sequence[Offer], tenant: str, size: int, traceparent: str, *, bulk: bool = False
) -> list[Receipt]:
    """Commit events as `Committer.submit` does, with a span for each trace that they come in.

    Args:
        committer: commits them.
        offers: events of one request; a CloudEvent may have a traceparent of its own.
        tenant: whose they are.
        size: bytes of input.
        traceparent: that of the request; may be anything.
        bulk: whether they wait behind live events.
    """
    if not tracing.environment.ON:
        return await committer.submit(offers, tenant, size, bulk=bulk)
    contexts = [offer.traceparent or traceparent for offer in offers]
    spans = {given: tracing.appending(events, given) for given, events in Counter(contexts).items()}
    for offer, given in zip(offers, contexts, strict=True):
        offer.traceparent = spans[given].traceparent
    try:
        receipts = await committer.submit(offers, tenant, size, bulk=bulk)
    except BaseException as error:
        for span in spans.values():
            span.end(error=error)
        raise
    _end(spans, zip(contexts, receipts, strict=True))
    return receipts


def _end(spans: dict[str, Appending], answered: zip[tuple[str, Receipt]]) -> None:
    counts: dict[str, Counter[str]] = {given: Counter() for given in spans}
    for given, receipt in answered:
        counts[given][receipt.answer.value] += 1
    for given, span in spans.items():
        span.answered(counts[given])
        span.end()


def own_context(offer: Offer) -> Offer:
    """Return the offer of a CloudEvent with the traceparent that it has by the extension *distributed tracing*."""
    if tracing.environment.ON and offer.event is not None:
        given = offer.event.metadata.get("traceparent")
        if isinstance(given, str):
            offer.traceparent = given
    return offer
