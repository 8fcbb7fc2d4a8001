"""I13: what the log, the rejected events and the violations say of events that break contracts."""

from __future__ import annotations

import json
from typing import LiteralString

import psycopg

from chaos.contracts import CHANGING, ENFORCED, breaks
from chaos.findings import Findings
from chaos.journal import Count, Event


def level_of(conn: psycopg.Connection) -> str | None:
    """The level of the contract that changes; None before it is registered."""
    row = conn.execute("SELECT level FROM refold.contracts WHERE action = %s", (CHANGING,)).fetchone()
    return None if row is None else str(row[0])


def wrongly_answered(events: list[Event], answers: list[str], level: str) -> list[str]:
    """What a contract of this level would not have answered."""
    wrong = []
    for event, answer in zip(events, answers, strict=True):
        refused = level == "enforce" and breaks(event["metadata"])
        if answer not in (("invalid",) if refused else ("accepted", "duplicate")):
            wrong.append(f"{event['id']} was answered {answer} under {level}")
    return wrong


def check(
    conn: psycopg.Connection, count: Count, uncertain: int, found: Findings, log: LiteralString = "refold.events"
) -> None:
    """Nothing in the log breaks a contract that is enforced; what broke one and was let in is counted once.

    Args:
        conn: a superuser's.
        count: what producers have sent.
        uncertain: events that broke a contract while its level may have changed.
        found: takes what does not hold.
        log: the relation of all events.
    """
    rows = conn.execute(
        f"SELECT event_id, action, metadata::text FROM {log} WHERE action IN (%s, %s)", (ENFORCED, CHANGING)
    ).fetchall()
    broken = [(name, action, told) for name, action, text in rows if breaks(told := json.loads(text))]
    if inside := [name for name, action, _ in broken if action == ENFORCED]:
        found.add("I13", f"{len(inside)} events break the enforced contract and are in the log: {sorted(inside)[:3]}")
    violations = {
        (action, refused): int(events)
        for action, refused, events in conn.execute(
            "SELECT action, refused, sum(events) FROM refold.violations GROUP BY action, refused"
        )
    }
    let_in = sum(action == CHANGING and told.get("sent_under") == "warn" for _, action, told in broken)
    counted = violations.get((CHANGING, False), 0)
    if abs(counted - let_in) > uncertain:
        found.add("I13", f"{let_in} events broke a contract that warns, and {counted} violations are counted")
    refused = sum(
        offer.answer == "invalid" and offer.event["action"] == ENFORCED and breaks(offer.event["metadata"])
        for offer in count.offered
    )
    # A call that came again counts again.
    if violations.get((ENFORCED, True), 0) < refused:
        found.add(
            "I13", f"{refused} events were refused, and {violations.get((ENFORCED, True), 0)} violations are counted"
        )
