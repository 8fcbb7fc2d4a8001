"""An erased person is nowhere, every metric is its query over what is left, and the ids stay taken."""

from __future__ import annotations

from typing import Any

import pytest

from refold import append
from refold.engine.erasure.differences import Metrics, together
from refold.engine.erasure.run import look
from refold.engine.reconcile.reconcile import Depth, reconcile
from refold.engine.scrub.accept import accept
from refold.engine.scrub.scrub import scrub
from refold.errors import DatabaseError, InputError
from refold.model.erasure import TOKEN, Person
from refold.postgres.connect import connect as connect_as
from refold.store.log.integrity import LogDamaged
from tests.conftest import ServerUnderTest
from tests.engine.erasure.conftest import ALICE, MAIL, Shop, of_alice
from tests.support.live import SHOP
from tests.support.logins import login
from tests.support.tampering import tamper

pytestmark = pytest.mark.live("shop")

SIGNS = (ALICE, MAIL, ALICE.replace("\\", "\\\\").replace('"', '\\"'))


def whole(shop: Shop) -> None:
    """The law holds, for refold's audits and for a judge who knows nothing of refold; the log is what was written."""
    assert shop.wrong() == {}
    assert scrub(shop.worker).damage == []
    depths: tuple[Depth, ...] = ("quick", "deep")
    for depth in depths:
        assert reconcile(shop.worker, SHOP, depth=depth, dry_run=True).clean


def strangers(shop: Shop) -> list[Any]:
    return shop.admin.execute(
        "SELECT event_id, user_id, metadata FROM refold.events WHERE event_id LIKE 'o%' ORDER BY 1"
    ).fetchall()


@pytest.mark.parametrize("mode", ["anonymise", "delete"])
def test_the_person_is_nowhere(shop: Shop, mode: Any) -> None:
    others = strangers(shop)
    assert len(shop.holding(ALICE)) > 10
    done = shop.erase(mode=mode)
    assert done.step == "done"
    assert shop.holding(*SIGNS) == []
    assert strangers(shop) == others
    whole(shop)
    proof = done.evidence["proof"]
    assert (proof["events"], proof["mentions"]) == (3, 1)
    assert proof["places"]["refold.events"] == {"before": 4, "after": 0}
    assert all(place["after"] == 0 for place in proof["places"].values())
    # The amounts were in the metadata, so that both modes change them.
    told = proof["metrics"]["daily"]
    assert [one for table in told.values() for one in table.items() if one[0] == "sum(amount)"] == [
        ("sum(amount)", "-150.5")
    ]
    events = {"anonymise": 10, "delete": 7}[mode]
    assert shop.admin.execute("SELECT count(*) FROM refold.events").fetchone() == (events,)
    # And it goes on.
    shop.append([{"id": "new", "user_id": "dora", "action": "purchase", "ts": "2026-03-02T00:00:00Z"}])
    shop.drain()
    whole(shop)


def test_one_word_stands_for_the_person(shop: Shop) -> None:
    shop.erase(keeps=["plan"])
    rows = shop.admin.execute(
        "SELECT user_id, metadata FROM refold.events WHERE user_id LIKE 'erased:%' OR event_id = 'b1' ORDER BY position"
    ).fetchall()
    [token] = {user for user, _ in rows if user != "bob"}
    assert token.startswith(TOKEN)
    assert [metadata for _, metadata in rows] == [{}, {}, {"plan": "gold"}, {"email": token, "amount": 1}]


@pytest.mark.parametrize("mode", ["anonymise", "delete"])
def test_a_retry_of_an_erased_event_is_a_duplicate_of_which_nothing_is_kept(shop: Shop, mode: Any) -> None:
    shop.erase(mode=mode)
    changed = [one | {"action": "other"} for one in of_alice()]
    many = [{"id": f"m{n}", "user_id": "m", "action": "a", "ts": n} for n in range(100)]
    for coming in (of_alice(), changed, [*many, *of_alice()]):
        assert shop.append(coming)[-4:] == ["duplicate"] * 4
    for one in of_alice():
        assert [receipt.answer for receipt in append(shop.admin, [one])] == ["duplicate"]
    assert shop.holding(*SIGNS) == []
    # Under another id it is a new event.
    assert shop.append([of_alice()[0] | {"id": "later"}]) == ["accepted"]


def test_whoever_writes_past_refold_append_is_refused(shop: Shop) -> None:
    """The ledger does not have the id any more that held the person, and still refuses it."""
    shop.erase()
    for event_id in (f"{ALICE}/3", "a1"):
        with pytest.raises(Exception, match=r"erased|duplicate key") as refused:
            shop.admin.execute("INSERT INTO refold.events (event_id, action, ts) VALUES (%s, 'x', now())", (event_id,))
        assert getattr(refused.value, "sqlstate", None) == "23505"


def test_a_dry_run_counts_and_changes_nothing(shop: Shop) -> None:
    before = shop.holding(*SIGNS)
    found = look(shop.worker, Person(ALICE, (("email", MAIL),)))
    assert (found.events, found.mentions) == (3, 1)
    assert sum(1 for table in found.rows if table.startswith("refold_builds.")) >= 5
    assert shop.holding(*SIGNS) == before
    assert shop.admin.execute("SELECT FROM refold.erasures").rowcount == 0


def test_sealed_checksums_are_right_by_subtraction(shop: Shop) -> None:
    shop.seal()
    done = shop.erase(mode="delete")
    assert done.evidence["proof"]["sealed_slices_proved"] == 1
    whole(shop)


def test_damage_of_the_log_is_not_sealed_into_it(shop: Shop) -> None:
    shop.seal()
    tamper(shop.admin, "UPDATE refold.events SET action = 'forged' WHERE event_id = 'o1'")
    with pytest.raises(LogDamaged):
        shop.erase()
    assert shop.holding(ALICE)


def test_what_stands_there_then_is_guarded_too(shop: Shop) -> None:
    shop.erase()
    tamper(shop.admin, "UPDATE refold.events SET user_id = 'carol' WHERE event_id = 'a1'")
    [damage] = scrub(shop.worker).damage
    assert damage.fault == "changed"
    accept(shop.worker, damage.segment, "it was meant")
    assert scrub(shop.worker).damage == []
    assert shop.append(of_alice()) == ["duplicate"] * 4


def test_the_same_person_again(shop: Shop) -> None:
    shop.erase()
    shop.append([of_alice()[0] | {"id": "later"}])
    shop.drain()
    done = shop.erase(mode="delete")
    assert (done.erasure_id, done.evidence["proof"]["events"]) == (2, 1)
    assert shop.holding(*SIGNS) == []
    whole(shop)


def test_a_person_without_events(shop: Shop) -> None:
    shop.append([{"id": "x", "user_id": "nobody's", "action": "", "ts": 1}])
    assert shop.holding("nobody's") == ["refold.rejected.raw"]
    done = shop.erase(Person("nobody's"))
    assert (done.step, done.evidence["cleaned"]) == ("done", {"refold.rejected": 1})
    assert shop.holding("nobody's") == []


def test_only_a_login_that_may_act_as_the_owner_erases(shop: Shop, server: ServerUnderTest) -> None:
    with login(server, shop.admin, "refold_worker") as url, connect_as(url, "refold_worker", autocommit=True) as conn:
        with pytest.raises(DatabaseError, match="refold_owner"):
            Shop(url, shop.admin, conn).erase()
        assert conn.execute("SELECT FROM refold.erasures").rowcount == 0


def test_an_interrupted_erasure_is_not_continued_as_another(shop: Shop) -> None:
    shop.admin.execute(
        "INSERT INTO refold.erasures (subject, mode, fields, macs, keeps, reason)"
        " VALUES (refold.erasure_mac(%s), 'delete', '{}', '{}', '{}', 'r')",
        (ALICE,),
    )
    with pytest.raises(InputError, match="asked for in another way") as refused:
        shop.erase()
    assert ALICE not in f"{refused.value} {refused.value.remedy}"


def test_differences_of_portions_are_added_exactly() -> None:
    one: Metrics = {"paid": {"paid": {"sum(amount)": "1" + "0" * 40, "changed": 1}}}
    other: Metrics = {"paid": {"paid": {"sum(amount)": "1E-30", "changed": 1}}}
    assert together(one, other) == {
        "paid": {"paid": {"sum(amount)": "1" + "0" * 40 + "." + "0" * 29 + "1", "changed": 2}}
    }
