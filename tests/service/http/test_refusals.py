"""Who comes without a valid token is named in the log: the client behind a trusted proxy, and not too often."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from refold.service.http.refusals import ADDRESSES, EVERY_S, Refusals
from tests.support.door import Served


@pytest.mark.parametrize("trusted", [(), ("--trust-proxy", "127.0.0.1")], ids=["nobody", "this proxy"])
def test_the_address_that_is_named(database_url: str, tmp_path: Path, trusted: tuple[str, ...]) -> None:
    log = tmp_path / "serve.log"
    with Served(database_url, log, trusted) as door:
        token, door.token = door.token, "rfd_secret_stolen"
        for _ in range(3):
            assert door.post({}, X_Forwarded_For="203.0.113.9").status == 401
        door.token = token
        assert door.post({}, X_Forwarded_For="203.0.113.10").status == 422
    said = log.read_text()
    assert said.count("refused 203.0.113.9: the token is not valid") == bool(trusted)
    assert said.count("refused 127.0.0.1: the token is not valid") == (not trusted)
    assert "203.0.113.10" not in said
    assert "stolen" not in said


def test_what_a_proxy_hands_on_is_no_second_line(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        Refusals().note("1.2.3.4\n12:00:00 1 all is well" + "x" * 999, "no token")
    (record,) = caplog.records
    assert "\n" not in record.getMessage()
    assert len(record.getMessage()) < 120


def test_each_address_once_a_minute_and_not_too_many(caplog: pytest.LogCaptureFixture) -> None:
    now = 0.0
    refusals = Refusals(lambda: now)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            for address in range(3 * ADDRESSES):
                refusals.note(f"198.51.100.{address}", "no token")
        assert len(caplog.records) == ADDRESSES
        assert "others come, too" in caplog.records[-1].getMessage()
        now = EVERY_S
        refusals.note("198.51.100.1", "no token")
        assert len(caplog.records) == ADDRESSES + 1
