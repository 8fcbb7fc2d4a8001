"""A webhook is told of an erasure once, after the keys that it changed, and not who was erased."""

from __future__ import annotations

import json
from datetime import datetime
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest

from refold.engine.erasure.run import erase
from refold.model.erasure import Person
from refold.model.sink.state import paused, resumed
from refold.sinks import deliver as delivering
from refold.store import erasure_notices, sinks
from refold.store.erasures import Erasure, Mode
from tests.support.delivering import deliver, deploy_sink, to_webhook
from tests.support.receiving import Hook, Received
from tests.support.scratch import Scratch

ALICE = "alice"
BY_USER = "SELECT user_id, count(*) AS n FROM events GROUP BY user_id"
SEEN = "SELECT event_id, user_id FROM events"


@pytest.fixture
def shop(scratch: Scratch, receiver: Hook) -> Scratch:
    """A metric that a webhook has, with rows of a person."""
    scratch.deploy(by_user=BY_USER, seen=SEEN)
    scratch.append(3, user_id=ALICE)
    scratch.append(2, user_id="bob")
    scratch.drain()
    deploy_sink(scratch.worker, "out", to_webhook("by_user", receiver.url))
    deliver(scratch.worker, scratch.folder, "out")
    return scratch


def erased(shop: Scratch, mode: Mode = "delete") -> Erasure:
    done = erase(shop.worker, shop.folder, Person(ALICE), mode=mode, keeps=[], reason="asked")
    shop.drain()
    return done


def kinds(receiver: Hook) -> list[str]:
    return [json.loads(one.body)["type"] for one in receiver.received]


def notices(receiver: Hook) -> list[dict[str, Any]]:
    found = [json.loads(one.body) for one in receiver.received]
    return [one["data"] for one in found if one["type"] == "refold.erased"]


def answering(receiver: Hook, status: int) -> list[str]:
    """Answer notices with a status, and all else with 200; return the ids of the notices, as they come."""
    tried: list[str] = []

    def answer(request: Received, handler: BaseHTTPRequestHandler) -> tuple[int, dict[str, str]]:
        if b"refold.erased" not in request.body:
            return 200, {}
        tried.append(request.headers["webhook-id"])
        return status, {"retry-after": "0"}

    receiver.answer = answer
    return tried


@pytest.mark.parametrize("mode", ["anonymise", "delete"])
@pytest.mark.parametrize("grain", ["rows", "events"])
def test_one_notice_after_the_keys_that_changed(
    shop: Scratch, receiver: Hook, monkeypatch: pytest.MonkeyPatch, mode: Mode, grain: str
) -> None:
    name = "out"
    if grain == "events":
        name = "each"
        deploy_sink(shop.worker, name, to_webhook("seen", receiver.url).replace("kind", 'grain = "events"\nkind', 1))
        deliver(shop.worker, shop.folder, name)
    # One message in a turn: the notice must not come between them.
    monkeypatch.setattr(delivering, "MESSAGES", 1)
    before = len(receiver.received)
    done = erased(shop, mode)
    deliver(shop.worker, shop.folder, name)
    later = kinds(receiver)[before:]
    metric = "by_user" if grain == "rows" else "seen"
    assert later[-1] == "refold.erased"
    assert later.count("refold.erased") == 1
    if grain == "rows" or mode == "anonymise":
        assert f"{metric}.changed" in later[:-1]
    [told] = notices(receiver)
    assert (told["sink"], told["projection"], told["erasure"], told["mode"]) == (name, metric, str(done.name), mode)
    assert (told["events"], told["mentions"]) == (3, 0)
    assert datetime.fromisoformat(told["erased_at"]).utcoffset() is not None
    assert ALICE not in json.dumps(told)
    # Nothing is due any more, whatever comes.
    shop.append(1, user_id="bob")
    shop.drain()
    deliver(shop.worker, shop.folder, name)
    assert len(notices(receiver)) == 1
    (found,) = (one for one in erasure_notices.of_erasures(shop.worker)[done.erasure_id] if one["sink"] == name)
    assert found["taken"] is True


def test_each_erasure_has_its_own(shop: Scratch, receiver: Hook) -> None:
    first = erased(shop)
    deliver(shop.worker, shop.folder, "out")
    second = erase(shop.worker, shop.folder, Person("bob"), mode="anonymise", keeps=[], reason="asked")
    shop.drain()
    deliver(shop.worker, shop.folder, "out")
    assert [one["erasure"] for one in notices(receiver)] == [str(first.name), str(second.name)]
    assert [one["mode"] for one in notices(receiver)] == ["delete", "anonymise"]


def test_a_receiver_that_refuses_it_is_told_once_and_goes_on(shop: Scratch, receiver: Hook) -> None:
    done = erased(shop)
    tried = answering(receiver, 400)
    deliver(shop.worker, shop.folder, "out")
    assert len(tried) == 1
    [found] = erasure_notices.of_erasures(shop.worker)[done.erasure_id]
    assert found["taken"] is False
    shop.append(1, user_id="carol")
    shop.drain()
    deliver(shop.worker, shop.folder, "out")
    assert '{"user_id": "carol"}' in receiver.table()
    assert len(tried) == 1


def test_a_receiver_that_is_away_is_told_later_under_the_same_id(shop: Scratch, receiver: Hook) -> None:
    erased(shop)
    tried = answering(receiver, 503)
    deliver(shop.worker, shop.folder, "out", most=100)
    sink = sinks.known(shop.worker, "out")
    assert sinks.state(shop.worker, sink.sink_id)[0].failures > 0
    receiver.status(200)
    _again(shop)
    [taken] = [one.headers["webhook-id"] for one in receiver.received if b"refold.erased" in one.body]
    assert set(tried) == {taken}
    assert not erasure_notices.waits(shop.worker, sink.sink_id)


def test_a_paused_sink_is_told_when_it_goes_on(shop: Scratch, receiver: Hook) -> None:
    sink = sinks.known(shop.worker, "out")
    with shop.worker.transaction():
        sinks.step(shop.worker, sink.sink_id, lambda now, _: paused(now))
    erased(shop)
    deliver(shop.worker, shop.folder, "out")
    assert notices(receiver) == []
    with shop.worker.transaction():
        sinks.step(shop.worker, sink.sink_id, lambda now, _: resumed(now))
    deliver(shop.worker, shop.folder, "out")
    assert len(notices(receiver)) == 1


def test_a_crash_after_the_answer_repeats_it_under_the_same_id(
    shop: Scratch, receiver: Hook, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    def die(point: str) -> None:
        if point == "sink_told":
            raise Killed

    erased(shop)
    with monkeypatch.context() as patch:
        patch.setattr(delivering, "failpoint", die)
        with pytest.raises(Killed):
            deliver(shop.worker, shop.folder, "out")
    deliver(shop.worker, shop.folder, "out")
    tried = [one.headers["webhook-id"] for one in receiver.received if b"refold.erased" in one.body]
    assert len(tried) == 2
    assert len(set(tried)) == 1


def test_a_cloudevent(scratch: Scratch, receiver: Hook) -> None:
    scratch.deploy(by_user=BY_USER)
    scratch.append(3, user_id=ALICE)
    scratch.drain()
    deploy_sink(scratch.worker, "out", to_webhook("by_user", receiver.url) + 'body = "cloudevents"\n')
    deliver(scratch.worker, scratch.folder, "out")
    done = erased(scratch)
    deliver(scratch.worker, scratch.folder, "out")
    [told] = json.loads(receiver.received[-1].body)
    assert (told["type"], told["source"], told["specversion"]) == ("refold.erased", "/refold/sinks/out", "1.0")
    assert told["data"]["erasure"] == str(done.name)
    assert "time" not in told


def test_a_sink_that_comes_later_is_not_told(shop: Scratch, receiver: Hook) -> None:
    erased(shop)
    deliver(shop.worker, shop.folder, "out")
    deploy_sink(shop.worker, "later", to_webhook("by_user", receiver.url))
    deliver(shop.worker, shop.folder, "later")
    assert [one["sink"] for one in notices(receiver)] == ["out"]


def _again(shop: Scratch) -> None:
    """Delivers as if the pause after a failure were over."""
    sink = sinks.known(shop.worker, "out")
    with shop.worker.transaction():
        sinks.step(shop.worker, sink.sink_id, lambda now, _: resumed(now))
    deliver(shop.worker, shop.folder, "out")
