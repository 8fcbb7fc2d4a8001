"""Contracts that are deployed in the middle of everything, and events that break them."""

from __future__ import annotations

import random
from typing import Any

from psycopg.types.json import Jsonb

from chaos import contracted, contracts, journal
from chaos.faults.injection import Injected, operate
from chaos.made import Maker
from chaos.stage import Stage
from refold import Log

GOOD, BAD = 70, 10
"""Events that keep the contract and that break it, in one call: so many are tried as COPY."""


def contract_deployed(stage: Stage, how: dict[str, Any], done: Injected) -> None:
    """A contract changes its level, twice; after each deploy events come that keep it and that break it."""
    told = []
    for level in how["levels"].split(","):
        stage.set_level(level)
        status = operate(stage, done, "deploy").status
        told.append(f"{level} → {status}, in force {_send(stage, done, level)}")
    done.note = "; ".join(told)


def _send(stage: Stage, done: Injected, wanted: str) -> str | None:
    """Sends events by two doors; answers the level that the contract has."""
    label = f"{contracts.CHANGING}-{wanted}-{done.began:.6f}"
    maker = Maker(label, random.Random(label))
    with stage.connect() as conn:
        level = contracted.level_of(conn) or "off"
        events = [
            maker.scored(contracts.CHANGING, breaking=number < BAD, sent_under=level) for number in range(GOOD + BAD)
        ]
        random.Random(label).shuffle(events)
        book = journal.Journal(stage.journals / f"{label}.journal")
        broken = sum(contracts.breaks(event["metadata"]) for event in events)
        # Until it is known that the level was the same afterwards.
        stage.uncertain += broken
        batch = book.attempted("faults", events)
        with Log(stage.url, source="faults") as log:
            answers = [receipt.answer.value for receipt in log.append(events[3:])]
        rows = conn.execute(
            "SELECT answer FROM refold.append(%s, 'faults') ORDER BY ordinal", (Jsonb(events[:3]),)
        ).fetchall()
        answers = [*(answer for (answer,) in rows), *answers]
        book.acknowledged(batch, answers)
        if contracted.level_of(conn) == level:
            stage.uncertain -= broken
            wrong = contracted.wrongly_answered(events, answers, level)
            done.wrong += [("I13", told) for told in wrong[:3]]
    return level
