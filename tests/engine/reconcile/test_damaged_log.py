"""A damaged log: nothing is healed from it. Until it is repaired or accepted, metrics stay what they were."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import psycopg
import pytest

from refold import append
from refold.engine.apply import step as catch_up
from refold.engine.apply.step import StepRunner
from refold.engine.deployment.deploy import rebuild
from refold.engine.isolate.search import Culprit
from refold.engine.publish.switch import NotYet
from refold.engine.reconcile import rolling
from refold.engine.reconcile.deep import begin, find_mark
from refold.engine.reconcile.reconcile import reconcile
from refold.engine.reconcile.release import release
from refold.engine.scrub.accept import accept
from refold.engine.scrub.scrub import scrub
from refold.inspect.status import read
from refold.model.stream.cursor import Key
from refold.model.stream.slices import POSITION_BITS
from refold.service.duties import scrub as scrub_duty
from refold.service.duties.audits import deep_step, quick_audit
from refold.store import incidents
from refold.store.builds.build import find
from refold.store.builds.compiled import Compiler
from refold.store.builds.dead_letters import find as letters
from refold.store.builds.dead_letters import quarantine
from refold.store.builds.suspects import suspects
from refold.store.log.integrity import LogDamaged
from refold.store.log.seal import seal
from tests.support.live import SHOP
from tests.support.reconcile_shop import Shop, shopping
from tests.support.tampering import tamper
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.live("shop"), pytest.mark.slow]

Connection = psycopg.Connection[Any]

SEGMENT = "refold.events_000000000000001"
DAMAGE = {
    "an event deleted": "DELETE FROM refold.events WHERE event_id = 'e005'",
    "a segment's first half deleted": "DELETE FROM refold.events WHERE position <= 24",
    "its content changed": "UPDATE refold.events SET metadata = '{\"amount\": 199}' WHERE event_id = 'e005'",
    "its day changed": "UPDATE refold.events SET ts = ts + interval '3 days' WHERE event_id = 'e005'",
    "its user taken": "UPDATE refold.events SET user_id = NULL WHERE event_id = 'e006'",
    "a row forged": "INSERT INTO refold.events (txid, position, event_id, user_id, action, ts, metadata)"
    " SELECT txid, nextval('refold.events_position'), 'forged', user_id, action, ts, metadata"
    " FROM refold.events WHERE event_id = 'e005'",
    "a row forged where nobody wrote": "INSERT INTO refold.events (txid, position, event_id, user_id, action, ts)"
    " SELECT txid, 9000, 'forged', user_id, action, ts FROM refold.events WHERE event_id = 'e005'",
    "a row doubled": "INSERT INTO refold.events (txid, position, event_id, user_id, action, ts, metadata)"
    " SELECT (txid::text::bigint - 1)::text::xid8, position, event_id, user_id, action, ts, metadata"
    " FROM refold.events WHERE event_id = 'e005'",
    "moved to another slice": f"UPDATE refold.events SET position = position + {1 << POSITION_BITS}"
    " WHERE event_id = 'e005'",
}


@pytest.fixture
def owner(connect: Callable[..., Connection]) -> Connection:
    return connect(autocommit=True)


def seal_first(shop: Shop, owner: Connection) -> None:
    """Seals the slice that the shop's events are in."""
    owner.execute("SELECT setval('refold.events_position', %s)", (1 << POSITION_BITS,))
    wait_until(lambda: seal(shop.worker) or None, 60)
    shop.append(shopping(1, "next"))
    shop.drain()


def metrics(shop: Shop) -> dict[str, list[tuple[Any, ...]]]:
    return {
        name: shop.worker.execute(f"SELECT t::text FROM metrics.{name} AS t ORDER BY 1".encode()).fetchall()
        for name in shop.tables
    }


def opened(shop: Shop, kind: str) -> list[incidents.Incident]:
    return incidents.find(shop.worker, "i.kind = %s AND i.resolved_at IS NULL", kind)


@pytest.mark.parametrize("sealed", [False, True], ids=["unsealed", "sealed"])
@pytest.mark.parametrize("name", DAMAGE)
def test_nothing_is_healed_from_a_damaged_log(shop: Shop, owner: Connection, name: str, sealed: bool) -> None:
    if sealed:
        seal_first(shop, owner)
    before = metrics(shop)
    tamper(owner, "CREATE TABLE public.kept AS SELECT * FROM refold.events")
    assert tamper(owner, DAMAGE[name]) > 0
    for depth in ("slice", "deep"):
        reconcile(shop.worker, SHOP, depth=depth)
        assert metrics(shop) == before
    assert not shop.reconcile().clean
    (damage,) = opened(shop, "log_damage")
    assert damage.subject == SEGMENT
    # One fault is one incident, which names what it affects.
    assert opened(shop, "drift") == []
    assert damage.evidence["not_healed"]
    # Somebody puts it back: everything closes by itself.
    tamper(owner, "DELETE FROM refold.events")
    tamper(owner, "INSERT INTO refold.events SELECT * FROM public.kept")
    scrub_duty.run(shop.worker, Compiler(SHOP))
    assert opened(shop, "log_damage") == []
    assert shop.reconcile().drift == 0
    assert opened(shop, "drift") == []
    assert metrics(shop) == before


def test_within_a_minute(shop: Shop, owner: Connection) -> None:
    """100 stays 100: the quick audit sees that an event is gone, and does not make it 99."""
    before = metrics(shop)
    tamper(owner, DAMAGE["an event deleted"])
    quick_audit(shop.worker, Compiler(SHOP))
    assert metrics(shop) == before
    (damage,) = opened(shop, "log_damage")
    assert (damage.subject, damage.evidence["damage"][0]["event_id"]) == (SEGMENT, "e005")
    assert set(damage.evidence["not_healed"]) >= {"daily", "purchases"}
    # It was taken for drift for a moment; nothing of that is left in the history.
    assert [one.kind for one in incidents.find(shop.worker)] == ["log_damage"]


def test_what_was_read_is_not_corrected_either(shop: Shop, owner: Connection) -> None:
    """Of an event that gave no row there is nothing but the checksum to say that it was read."""
    tamper(owner, "DELETE FROM refold.events WHERE event_id = 'e006'")
    quick_audit(shop.worker, Compiler(SHOP))
    (damage,) = opened(shop, "log_damage")
    assert "purchases" in damage.evidence["not_healed"]


def test_a_hand_edit_is_healed_beside_damage_that_does_not_touch_it(shop: Shop, owner: Connection) -> None:
    """What it is healed to is what refold wrote: for that the whole log need not be right."""
    before = metrics(shop)
    tamper(owner, DAMAGE["its content changed"])
    shop.tamper("UPDATE {paths} SET path = NULL WHERE user_id = 'u3'")
    report = reconcile(shop.worker, SHOP, ["paths"], depth="slice")
    assert (report.drift, report.unhealed) == (1, [])
    assert metrics(shop) == before


def test_a_hand_edit_of_what_is_damaged_is_not_healed_wrong(shop: Shop, owner: Connection) -> None:
    seal_first(shop, owner)
    tamper(owner, DAMAGE["an event deleted"])
    shop.tamper("UPDATE {daily} SET events = 77 WHERE day = '2026-03-02'")
    report = reconcile(shop.worker, SHOP, depth="slice")
    assert "daily" in report.unhealed
    row = shop.worker.execute("SELECT max(events) FROM metrics.daily WHERE day = '2026-03-02'").fetchone()
    assert row == (77,)


def test_what_was_accepted_is_healed(shop: Shop, owner: Connection) -> None:
    for sealed in (False, True):
        if sealed:
            seal_first(shop, owner)
        gone = "e008" if sealed else "e005"
        tamper(owner, f"DELETE FROM refold.events WHERE event_id = '{gone}'")
        assert not reconcile(shop.worker, SHOP, depth="deep").clean
        assert set(shop.wrong()) >= {"daily"}
        found = accept(shop.worker, SEGMENT, "the disk lost it")
        assert (found.missing, found.changed, found.unknown) == (1, 0, 0)
        assert opened(shop, "log_damage") == []
        quick_audit(shop.worker, Compiler(SHOP))
        assert shop.wrong() == {}
        # What a deep audit saw, a deep one closes.
        assert shop.reconcile().clean
        assert opened(shop, "drift") == []
        assert scrub(shop.worker).damage == []
        with psycopg.connect(shop.url) as conn:
            lost = [one for one in shopping() if one["id"] == gone]
            (receipt,) = append(conn, lost)
            assert receipt.answer == "conflict"
            assert "has lost the event" in (receipt.reason or "")
    rows = shop.worker.execute(
        "SELECT segment, accepted_by, reason, missing, details #>> '{damage,0,event_id}' FROM refold.acceptances"
    ).fetchall()
    assert rows == [(SEGMENT, shop.worker.info.user, "the disk lost it", 1, gone) for gone in ("e005", "e008")]


@pytest.mark.parametrize("sealed", [False, True], ids=["unsealed", "sealed"])
@pytest.mark.parametrize("name", ["an event deleted", "its day changed", "a row forged", "moved to another slice"])
def test_every_kind_can_be_accepted_but_one(shop: Shop, owner: Connection, name: str, sealed: bool) -> None:
    if sealed:
        seal_first(shop, owner)
    tamper(owner, DAMAGE[name])
    shop.reconcile()
    accept(shop.worker, SEGMENT, "it is as it is")
    for segment in [one.subject for one in opened(shop, "log_damage")]:
        accept(shop.worker, segment, "it is as it is")
    assert scrub(shop.worker).damage == []
    report = shop.reconcile()
    assert (report.unhealed, report.skipped) == ([], [])
    assert shop.wrong() == {}
    assert shop.reconcile().clean


def test_an_event_that_comes_back_by_the_door_for_it(shop: Shop, owner: Connection) -> None:
    before = metrics(shop)
    owner.execute("CREATE TABLE public.kept AS SELECT * FROM refold.events WHERE event_id = 'e005'")
    tamper(owner, DAMAGE["an event deleted"])
    shop.reconcile()
    accept(shop.worker, SEGMENT, "for the time being")
    quick_audit(shop.worker, Compiler(SHOP))
    assert metrics(shop) != before
    with owner.transaction():
        owner.execute("SET LOCAL refold.restoring = on")
        owner.execute("INSERT INTO refold.events SELECT * FROM public.kept")
    assert owner.execute("SELECT count(*) FROM refold.lost_events").fetchone() == (0,)
    quick_audit(shop.worker, Compiler(SHOP))
    assert metrics(shop) == before
    assert scrub(shop.worker).damage == []


def test_a_dead_letter_is_not_released_from_damage(shop: Shop, owner: Connection) -> None:
    (daily,) = find(shop.worker, "b.projection = 'daily'")
    row = owner.execute("SELECT txid::text::bigint, position FROM refold.events WHERE event_id = 'e005'").fetchone()
    assert row is not None
    quarantine(shop.worker, daily, [Culprit("e005", Key(row[0], row[1], 2**31 - 1), ValueError("bad"))])
    tamper(owner, DAMAGE["its content changed"])
    (letter,) = letters(shop.worker, "d.event_id = 'e005'")
    with pytest.raises(LogDamaged, match="e005"):
        release(shop.worker, Compiler(SHOP), letter)
    assert [one.state for one in letters(shop.worker, "d.event_id = 'e005'")] == ["waiting"]


@pytest.mark.parametrize("sealed", [False, True], ids=["unsealed", "sealed"])
def test_a_build_made_from_damage_replaces_nothing(shop: Shop, owner: Connection, sealed: bool) -> None:
    if sealed:
        seal_first(shop, owner)
    before = metrics(shop)
    owner.execute("CREATE TABLE public.kept AS SELECT * FROM refold.events WHERE event_id = 'e005'")
    tamper(owner, DAMAGE["its content changed"])
    with pytest.raises(LogDamaged, match="e005"):
        rebuild(shop.worker, SHOP, ["daily"], lambda progress: None)
    # It says so where it is shown, and the incident names it.
    (refused,) = [build for build in read(shop.worker).builds if build.state == "building"]
    assert (refused.refused or "").startswith("the log is damaged, so refold computes nothing from it: ")
    assert "`refold scrub accept SEGMENT" in (refused.refused or "")
    assert opened(shop, "log_damage")[0].evidence["not_promoted"] == [refused.table]
    # As if the command had been killed instead: then workers go on.
    shop.worker.execute("UPDATE refold.deployments SET given_up_at = NULL")
    shop.drain()
    assert metrics(shop) == before
    (fresh,) = find(shop.worker, "b.state = 'building'")
    assert "the log is damaged" in (fresh.error or "")
    (damage,) = opened(shop, "log_damage")
    assert (damage.subject, damage.detected_by) == (SEGMENT, "promote")
    with owner.transaction():
        owner.execute("SET LOCAL refold.restoring = on")
        owner.execute("DELETE FROM refold.events WHERE event_id = 'e005'")
        owner.execute("INSERT INTO refold.events SELECT * FROM public.kept")
    # It has read what was damaged, and nothing about it says so any more.
    shop.drain()
    (fresh,) = find(shop.worker, "b.state = 'building'")
    assert "the log was damaged while" in (fresh.error or "")
    assert opened(shop, "log_damage") == []
    deep_step(shop.worker, Compiler(SHOP))
    shop.drain()
    assert [
        (build.number, build.error) for build in find(shop.worker, "b.state = 'live' AND b.projection = 'daily'")
    ] == [(2, None)]
    assert metrics(shop) == before


def test_what_waits_to_go_live_is_proved_first(shop: Shop, owner: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    owner.execute("CREATE TABLE public.kept AS SELECT * FROM refold.events WHERE event_id = 'e005'")
    tamper(owner, DAMAGE["its content changed"])
    with pytest.raises(LogDamaged, match="e005"):
        rebuild(shop.worker, SHOP, ["grade_paths"], lambda progress: None)
    with owner.transaction():
        owner.execute("SET LOCAL refold.restoring = on")
        owner.execute("DELETE FROM refold.events WHERE event_id = 'e005'")
        owner.execute("INSERT INTO refold.events SELECT * FROM public.kept")
    scrub_duty.run(shop.worker, Compiler(SHOP))
    # One build a call.
    monkeypatch.setattr(rolling, "SECONDS", 0.0)
    proved = []
    while left := suspects(shop.worker):
        rolling.prove_suspects(shop.worker, Compiler(SHOP), by="test")
        proved += [(one.projection, one.state) for one in left if one not in suspects(shop.worker)]
    # First the stream that it reads; the live build that it replaces is among the others.
    assert proved[:2] == [("graded", "live"), ("grade_paths", "building")]
    assert ("grade_paths", "live") in proved


def test_who_deploys_proves_it_without_a_worker(shop: Shop, owner: Connection) -> None:
    before = metrics(shop)
    owner.execute("CREATE TABLE public.kept AS SELECT * FROM refold.events WHERE event_id = 'e005'")
    tamper(owner, DAMAGE["its content changed"])
    with pytest.raises(LogDamaged, match="e005"):
        rebuild(shop.worker, SHOP, ["daily"], lambda progress: None)
    with owner.transaction():
        owner.execute("SET LOCAL refold.restoring = on")
        owner.execute("DELETE FROM refold.events WHERE event_id = 'e005'")
        owner.execute("INSERT INTO refold.events SELECT * FROM public.kept")
    rebuild(shop.worker, SHOP, ["daily"], lambda progress: None)
    assert [build.number for build in find(shop.worker, "b.state = 'live' AND b.projection = 'daily'")] == [2]
    assert metrics(shop) == before


def test_what_pages_have_read_of_a_damaged_log_is_proved_when_it_is_restored(shop: Shop, owner: Connection) -> None:
    """What is recomputed by key reads the events of a key again with every page that has one of them."""
    owner.execute("CREATE TABLE public.kept AS SELECT * FROM refold.events WHERE event_id = 'e005'")
    (user,) = owner.execute("SELECT user_id FROM public.kept").fetchone() or (None,)
    tamper(owner, DAMAGE["an event deleted"])
    scrub_duty.run(shop.worker, Compiler(SHOP))
    shop.append([{**one, "id": "later", "user_id": user} for one in shopping() if one["id"] == "e006"])
    shop.drain()
    with owner.transaction():
        owner.execute("SET LOCAL refold.restoring = on")
        owner.execute("INSERT INTO refold.events SELECT * FROM public.kept")
    scrub_duty.run(shop.worker, Compiler(SHOP))
    assert opened(shop, "log_damage") == []
    deep_step(shop.worker, Compiler(SHOP))
    rows = shop.worker.execute("SELECT projection, kind FROM refold.repairs").fetchall()
    assert rows == [("paths", "drifted")]
    # Once is enough, also while the next round of the rolling audit is under way.
    assert suspects(shop.worker) == []
    for build in find(shop.worker, "b.state = 'live'"):
        mark = find_mark(shop.worker, build.build_id, rolling=True)
        assert begin(shop.worker, build.build_id, mark, rolling=True) is not None
    assert suspects(shop.worker) == []
    assert reconcile(shop.worker, SHOP).drift == 0


def test_the_duty_looks_at_what_is_new_and_at_the_rest_in_time(
    shop: Shop, owner: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    seal_first(shop, owner)
    tamper(owner, "DELETE FROM refold.events WHERE event_id = 'next003'")
    scrub_duty.run(shop.worker, Compiler(None))
    (damage,) = opened(shop, "log_damage")
    assert [one["event_id"] for one in damage.evidence["damage"]] == ["next003"]
    # What was sealed has been looked at when it was.
    tamper(owner, "DELETE FROM refold.events WHERE event_id = 'e003'")
    scrub_duty.run(shop.worker, Compiler(None))
    assert opened(shop, "log_damage")[0].evidence["found"] == 1
    owner.execute("UPDATE refold.sealed_slices SET scrubbed_at = now() - interval '8 days'")
    scrub_duty.run(shop.worker, Compiler(None))
    assert opened(shop, "log_damage")[0].evidence["slices"] == "{[0,1]}"
    row = owner.execute("SELECT min(scrubbed_at) > now() - interval '1 hour' FROM refold.sealed_slices").fetchone()
    assert row == (True,)


def test_the_duty_does_a_portion_at_a_time(shop: Shop, owner: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(1, 8):
        owner.execute("SELECT setval('refold.events_position', %s)", (number << POSITION_BITS,))
        shop.append(shopping(1, f"n{number}-"))
    wait_until(lambda: seal(shop.worker) or None, 60)
    wait_until(lambda: owner.execute("SELECT bool_and(sealed_at IS NOT NULL) FROM refold.sealed_slices").fetchone(), 60)
    owner.execute("UPDATE refold.sealed_slices SET scrubbed_at = now() - interval '8 days'")
    monkeypatch.setattr("refold.engine.scrub.rolling.SECONDS", 0)
    left = "SELECT count(*) FROM refold.sealed_slices WHERE scrubbed_at < now() - interval '7 days'"
    counts = []
    for _ in range(2):
        scrub_duty.run(shop.worker, Compiler(None))
        counts += owner.execute(left).fetchall()
    assert counts == [(3,), (0,)]


def test_damage_is_not_sealed(shop: Shop, owner: Connection) -> None:
    """What stands there when a slice is sealed would count as what was written."""
    tamper(owner, DAMAGE["its content changed"])
    owner.execute("SELECT setval('refold.events_position', %s)", (2 << POSITION_BITS,))
    shop.append(shopping(1, "next"))
    assert wait_until(lambda: seal(shop.worker), 60) == [1]
    assert owner.execute("SELECT slice FROM refold.sealed_slices WHERE sealed_at IS NULL").fetchall() == [(0,)]
    assert [one.event_id for one in scrub(shop.worker).damage] == ["e005"]


def test_a_switch_that_was_refused_is_tried_again_in_proportion_to_what_it_took(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before it the log is proved, for which workers would else have time for nothing else."""
    rebuild(shop.worker, SHOP, ["daily"], lambda progress: None, promote=False)
    shop.worker.execute("UPDATE refold.deployments SET promote = true")
    now, attempts = 100.0, 0

    def refuse(*_: object, **__: object) -> None:
        nonlocal now, attempts
        attempts += 1
        now += 2.0
        raise NotYet

    monkeypatch.setattr(catch_up, "promote", refuse)
    monkeypatch.setattr(catch_up, "time", SimpleNamespace(monotonic=lambda: now))
    compiled = StepRunner(shop.worker, Compiler(SHOP))
    for _ in range(3):
        assert compiled.promote_ready(back_off=True) == []
    assert attempts == 1
    now += 2.0 * catch_up.SWITCH_REST
    assert compiled.promote_ready(back_off=True) == []
    assert attempts == 2
    assert compiled.promote_ready() == []
    assert attempts == 3, "whoever drains waits for everything"
