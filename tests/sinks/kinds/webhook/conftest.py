"""A receiver on this host, and a webhook that delivers to it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import pytest

from refold.sinks.kinds.webhook import WebhookReceiver
from refold.sinks.receiver import Change, Column, Shape
from tests.support.http_receiver import Receiver

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
OTHER = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oDAAAAAAAAAAA="
SHAPE = Shape("crm", "daily", (Column("day", "date"), Column("sum", "numeric")), ("day",))


def row(day: str, total: str = "1") -> Change:
    return Change(f'{{"day": "{day}"}}', 1, (day, total), f'{{"day": "{day}", "sum": {total}}}')


def gone(day: str) -> Change:
    return Change(f'{{"day": "{day}"}}', 1, None)


class Opener(Protocol):
    def __call__(self, url: str, **options: Any) -> WebhookReceiver: ...


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as made:
        yield made


@pytest.fixture
def webhook(monkeypatch: pytest.MonkeyPatch) -> Iterator[Opener]:
    """Opens a webhook whose secret is in $CRM_SECRET."""
    monkeypatch.setenv("CRM_SECRET", SECRET)
    made: list[WebhookReceiver] = []

    def opened(url: str, **options: Any) -> WebhookReceiver:
        given = {"secrets": ["env:CRM_SECRET"], "allow_private": True, "timeout_s": 5, **options}
        one = WebhookReceiver(WebhookReceiver.Options(url=url, **given))
        made.append(one)
        one.open(SHAPE)
        return one

    yield opened
    for one in made:
        one.close()
