"""The duty that moves the ids of purged events to the cold ledger."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from refold import append
from refold.postgres.connect import connect as connect_as
from refold.service.duties import cold_ledger
from refold.service.duties.registry import DUTIES
from refold.store.builds.compiled import Compiler
from refold.store.log.cold_ledger import waiting
from tests.support.making import events, small_segments
from tests.support.purging import purge


def test_it_moves_what_is_left_step_by_step(
    admin: psycopg.Connection[Any], database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_segments(admin, 16_384)
    append(admin, events(10))
    admin.execute("SELECT setval('refold.events_position', 16384, false)")
    purge(admin)
    with connect_as(database_url, "refold_worker", autocommit=True) as worker:
        monkeypatch.setattr(cold_ledger, "SECONDS", 0.0)
        cold_ledger.run(worker, Compiler(None))
        assert waiting(worker)
        monkeypatch.undo()
        cold_ledger.run(worker, Compiler(None))
        assert not waiting(worker)
        # It is idle now.
        cold_ledger.run(worker, Compiler(None))
    assert admin.execute("SELECT count(*) FROM refold.event_ids").fetchone() == (0,)
    assert cold_ledger.NAME in [duty.name for duty in DUTIES]
