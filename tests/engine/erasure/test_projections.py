"""Projections that an erased event does not suit: nothing of it stays, and the rest is right."""

from __future__ import annotations

from typing import Any

import pytest

from refold.engine.erasure.run import erase
from refold.engine.reconcile.reconcile import reconcile
from refold.model.erasure import Person
from refold.store import incidents
from refold.store.builds import dead_letters
from tests.support.scratch import Scratch

DIVIDED = "SELECT 10 / coalesce((metadata->>'n')::int, 0) AS part, count(*) AS events FROM events GROUP BY part"
NAMES = "SELECT user_id, metadata->>'plan' AS plan, count(*) AS events FROM events GROUP BY user_id, plan"


@pytest.mark.parametrize("mode", ["anonymise", "delete"])
def test_an_event_that_fails_without_its_metadata_is_left_out(scratch: Scratch, mode: Any) -> None:
    scratch.deploy(divided=DIVIDED, names=NAMES)
    scratch.append(3, user_id="zoe", metadata={"n": 5, "plan": "gold"})
    scratch.append(2, user_id="bob", metadata={"n": 5, "plan": "gold"})
    scratch.drain()
    assert scratch.rows("divided") == [(2, 5)]
    done = erase(scratch.worker, scratch.folder, Person("zoe"), mode=mode, keeps=[], reason="asked")
    assert scratch.rows("divided") == [(2, 2)]
    left = [(user, plan, events) for user, plan, events in scratch.rows("names") if user != "bob"]
    assert [row[1:] for row in left] == ([(None, 3)] if mode == "anonymise" else [])
    letters = dead_letters.letters(scratch.worker)
    assert [(letter.state, letter.error) for letter in letters] == (
        [("dropped", "the event was erased")] * 3 if mode == "anonymise" else []
    )
    assert done.evidence["dead_letters"] == len(letters)
    # Nobody has to do anything about them.
    assert incidents.open_incidents(scratch.worker, "dead_letters") == []
    assert reconcile(scratch.worker, scratch.folder, dry_run=True).clean
