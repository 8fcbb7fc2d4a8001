"""Workers go on with erasures that were interrupted, as far as they may."""

from __future__ import annotations

import logging

import pytest

from refold.inspect.doctor.erasures import erasures as examined
from refold.model.erasure import Person
from refold.postgres.connect import connect as connect_as
from refold.service.duties.erasures import log_part, the_rest
from refold.store import erasures
from refold.store.builds.compiled import Compiler
from tests.conftest import ServerUnderTest
from tests.engine.erasure.conftest import ALICE, MAIL, Shop, shop, worker  # noqa: F401
from tests.support.live import SHOP
from tests.support.logins import login

pytestmark = pytest.mark.live("shop")


def interrupted(shop: Shop) -> None:  # noqa: F811
    """An erasure that was killed right after it began."""
    with shop.admin.transaction():
        shop.admin.execute("SET LOCAL ROLE refold_owner")
        erasures.begin(shop.admin, Person(ALICE, (("email", MAIL),)), "delete", [], "asked")


def test_a_worker_finishes_what_was_interrupted(shop: Shop) -> None:  # noqa: F811
    interrupted(shop)
    the_rest(shop.worker, Compiler(None))
    assert [one.step for one in erasures.find(shop.worker)] == ["log"]
    log_part(shop.worker, Compiler(SHOP))
    assert [one.step for one in erasures.find(shop.worker)] == ["archive"]
    assert shop.holding(ALICE, MAIL) == []
    the_rest(shop.worker, Compiler(None))
    assert [one.step for one in erasures.find(shop.worker)] == ["done"]


def test_one_that_may_not_change_the_log_says_so(
    shop: Shop,  # noqa: F811
    server: ServerUnderTest,
    caplog: pytest.LogCaptureFixture,
) -> None:
    interrupted(shop)
    with (
        login(server, shop.admin, "refold_worker") as url,
        connect_as(url, "refold_worker", autocommit=True) as conn,
        caplog.at_level(logging.WARNING, "refold.erasures"),
    ):
        log_part(conn, Compiler(SHOP))
        assert "run `refold erase USER` again" in caplog.text
        assert ALICE not in caplog.text
        # What comes after the log, it may.
        log_part(shop.worker, Compiler(SHOP))
        the_rest(conn, Compiler(None))
    [erasure] = erasures.find(shop.worker)
    assert erasure.step == "done"
    assert "may not act as refold_owner" in str(erasure.evidence["proof"]["vacuum"])


def test_the_doctor_names_what_is_not_finished(shop: Shop) -> None:  # noqa: F811
    interrupted(shop)
    with connect_as(shop.url, None, autocommit=True) as conn:
        assert examined(conn) == []
        shop.admin.execute("UPDATE refold.erasures SET requested_at = now() - interval '2 hours'")
        [check] = examined(conn)
    assert (check.verdict, "refold erase USER" in check.remedy) == ("warn", True)
