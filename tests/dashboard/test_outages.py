"""What the database refuses is in the log once, however many pages ask, and so is its end."""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from psycopg import sql

from refold.dashboard.database import Away
from refold.dashboard.outages import Outages
from tests.conftest import ServerUnderTest
from tests.support.dashboard import EVIDENCE, Running
from tests.support.logins import login


def test_an_answer_from_before_an_outage_does_not_end_it(caplog: pytest.LogCaptureFixture) -> None:
    outages = Outages()
    before = datetime.now(UTC) - timedelta(seconds=1)
    since = outages.failed("overview", Away("the database does not answer"))
    assert outages.failed("lineage", Away("the database does not answer")) == since
    outages.answered("overview", before)
    assert caplog.messages == ["the database does not answer"]
    # Whoever has an answer has one for all.
    outages.answered("toil", datetime.now(UTC))
    assert caplog.messages == ["the database does not answer", "the database answers again"]


@pytest.mark.live("shop")
def test_a_role_that_the_login_may_not_act_as_is_told_once(
    database_url: str, server: ServerUnderTest, conn: psycopg.Connection[Any], caplog: pytest.LogCaptureFixture
) -> None:
    conn.autocommit = True
    caplog.set_level(logging.WARNING, "refold.dashboard")
    with login(server, conn, "refold_observer") as url, Running(url) as running:

        def look(token: str) -> set[int]:
            # What others have just been told is not asked again for a second.
            running.server._app.state.dashboard.shared.forget()
            return {running.get(path, token).status for path in ("/incidents", "/rejected")}

        for _ in range(3):
            assert look("") == {200}
            assert look(EVIDENCE) == {503}
        assert len(caplog.messages) == 1 and "refold_inspector" in caplog.messages[0]
        user = psycopg.conninfo.conninfo_to_dict(url)["user"]
        conn.execute(sql.SQL("GRANT refold_inspector TO {}").format(sql.Identifier(str(user))))
        assert look(EVIDENCE) == {200}
        assert look("") == {200}
        assert len(caplog.messages) == 2 and caplog.messages[1].startswith("the database no longer refuses: ")
