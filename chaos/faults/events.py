"""Events that come again, that come for one user, or on which a metric fails."""

from __future__ import annotations

import json
import random
import time
from typing import Any

import psycopg

from chaos import journal
from chaos.faults.injection import (
    LOOK_S,
    Injected,
    clean_events,
    operate,
    send,
    until_dead_letters,
)
from chaos.made import STAY_S, Maker
from chaos.stage import Stage
from refold import Log

ATTEMPTS = 30
"""Most attempts at a lock that producers hold."""


def duplicate_storm(stage: Stage, how: dict[str, Any], done: Injected) -> None:
    """Acknowledged events once more, shuffled, several times; each must be answered `duplicate`."""
    count = journal.read(stage.journals.glob("*.journal"))
    known = [
        offer.event
        for offer in count.offered
        # What was smuggled in cannot be written down, and so not sent again. The id of a captured row is not its own.
        if offer.answer == "accepted" and not {"smuggled", "captured"} & offer.event["metadata"].keys()
    ][-how["events"] :]
    answers: dict[str, int] = {}
    order = random.Random(done.step.at)
    with Log(stage.url, source="storm") as log:
        for _ in range(how["times"]):
            order.shuffle(known)
            for receipt in log.append(known):
                answers[receipt.answer.value] = answers.get(receipt.answer.value, 0) + 1
    done.note = json.dumps(answers)
    if set(answers) - {"duplicate"}:
        done.wrong.append(("I7", f"events sent again were answered {answers}"))


def hot_key(stage: Stage, how: dict[str, Any], done: Injected) -> None:
    """One user does as much as all others together; another one after five minutes.

    A metric that is recomputed by key costs in proportion to all that its hottest key ever did. With one user for ever
    the machine would be too small in the end, and nothing could be said of time any more.
    """
    label = f"hot-{done.began:.6f}"
    maker = Maker(label, random.Random(label))
    book = journal.Journal(stage.journals / f"{label}.journal")
    sent = 0
    user = f"hot-{int(done.step.at // STAY_S)}"
    with Log(stage.url, source="faults") as log:
        while sent < how["events"]:
            events = maker.clean(250)
            for event in events:
                event["user_id"] = user
            batch = book.attempted("faults", events)
            book.acknowledged(batch, [receipt.answer.value for receipt in log.append(events)])
            sent += len(events)
    done.note = f"{sent} events"


def poisoned(stage: Stage, how: dict[str, Any], done: Injected) -> None:
    """An event on which the SQL of one projection fails; no other may notice."""
    label = f"poison-{done.began:.6f}"
    events = clean_events(label, how["events"])
    for event in events:
        event["metadata"]["number"] = "many"
    send(stage, label, events)
    until_dead_letters(stage, done, ("poisoned",), events)


SMUGGLED = {
    "digits": "7" * 5000,
    "exponent": "1e131000",
    "depth": "[" * 3000 + "]" * 3000,
}
"""JSON that Postgres holds and prints, and Python cannot read."""


def poisoned_in_decoding(stage: Stage, how: dict[str, Any], done: Injected) -> None:
    """A superuser turns the limits off for an event that no Python function can be given."""
    label = f"unreadable-{done.began:.6f}"
    [event] = Maker(label, random.Random(label)).purchases(label, [1])
    event["metadata"]["smuggled"] = how["kind"]
    book = journal.Journal(stage.journals / f"{label}.journal")
    batch = book.attempted("faults", [event])
    with stage.connect() as conn:
        for attempt in range(ATTEMPTS):
            try:
                _smuggle(conn, event, SMUGGLED[how["kind"]])
                break
            except psycopg.errors.LockNotAvailable:
                # Producers have it. Who waits for long keeps all of them waiting.
                if attempt == ATTEMPTS - 1:
                    raise
                time.sleep(LOOK_S)
    book.acknowledged(batch, ["accepted"])
    until_dead_letters(stage, done, ("graded",), [event])
    with stage.connect() as conn:
        row = conn.execute(
            "SELECT max(dead_letter_id) FROM refold.dead_letters WHERE event_id = %s", (event["id"],)
        ).fetchone()
    if row is not None and row[0] is not None:
        operate(stage, done, "deadletters", "show", str(row[0]))


def _smuggle(conn: psycopg.Connection, event: journal.Event, value: str) -> None:
    with conn.transaction():
        conn.execute("SET LOCAL lock_timeout = '1s'")
        conn.execute("ALTER TABLE refold.events DISABLE TRIGGER within_limits")
        conn.execute(
            "INSERT INTO refold.events (event_id, user_id, action, ts, metadata)"
            " VALUES (%s, %s, %s, %s, %s::jsonb || jsonb_build_object('smuggled', %s::jsonb))",
            (event["id"], event["user_id"], event["action"], event["ts"], json.dumps(event["metadata"]), value),
        )
        conn.execute("ALTER TABLE refold.events ENABLE TRIGGER within_limits")


def poisoned_together(stage: Stage, how: dict[str, Any], done: Injected) -> None:
    """Two events of a user, each of which can be counted, and both together make the divisor 0: the second must go."""
    label = f"together-{done.began:.6f}"
    maker = Maker(label, random.Random(label))
    pairs = [maker.purchases(f"{label}-{user}", [how["first"], -how["first"]]) for user in range(how["users"])]
    for _, second in pairs:
        second["metadata"]["spoils"] = True
    send(stage, label, [event for pair in pairs for event in pair])
    until_dead_letters(stage, done, ("shares", "ratios"), [second for _, second in pairs], reading=True)


def poisoned_in_the_view(stage: Stage, how: dict[str, Any], done: Injected) -> None:
    """An event that the table of a metric can hold, and its view cannot show: whoever reads it must not notice."""
    label = f"zero-{done.began:.6f}"
    maker = Maker(label, random.Random(label))
    events = [event for user in range(how["users"]) for event in maker.purchases(f"{label}-{user}", [0])]
    for event in events:
        event["metadata"]["spoils"] = True
    send(stage, label, events)
    until_dead_letters(stage, done, ("shares", "ratios"), events, reading=True)
