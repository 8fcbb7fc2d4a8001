"""`/dead-letters`: events that metrics leave out, by cause; forty events of one cause are one line."""

from __future__ import annotations

from dataclasses import dataclass

import psycopg
from psycopg.rows import class_row

from refold.dashboard.ask import Ask
from refold.inspect.health import Health
from refold.inspect.left_out import LetterGroup, letter_groups

LISTED = 5
"""Most events of a group that are named."""


@dataclass(frozen=True, slots=True)
class Letter:
    """A dead letter that waits."""

    dead_letter_id: int
    event_id: str
    attempts: int
    error: str


@dataclass(frozen=True, slots=True)
class LettersPage:
    """What the page shows.

    Args:
        groups: the causes.
        letters: the oldest letters of each cause, by the number of its first; empty for an observer.
        dropped: number of events that were dropped, and stay left out.
    """

    health: Health
    groups: list[LetterGroup]
    letters: dict[int, list[Letter]]
    dropped: int


def read(ask: Ask) -> LettersPage:
    """Read the page."""
    health = ask.health()
    groups = ask.read(lambda conn: letter_groups(conn, evidence=ask.evidence))
    letters = ask.read(lambda conn: {one.first: _letters(conn, one) for one in groups[:50]}) if ask.evidence else {}
    return LettersPage(health, groups, letters, sum(one.left_out - one.waiting_letters for one in health.live))


def _letters(conn: psycopg.Connection, group: LetterGroup) -> list[Letter]:
    with conn.cursor(row_factory=class_row(Letter)) as cursor:
        return cursor.execute(
            """
            SELECT dead_letter_id, event_id, attempts, error FROM refold.dead_letters
            WHERE build_id = %s AND state = 'waiting' AND error = %s ORDER BY first_failed_at, dead_letter_id LIMIT %s
            """,
            (group.build_id, group.error, LISTED),
        ).fetchall()
