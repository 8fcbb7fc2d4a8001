"""I12: what backfills from files say of themselves, compared with the log."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import LiteralString

import psycopg

from chaos.findings import Findings
from chaos.journal import Event


@dataclass(frozen=True, slots=True)
class File:
    """A file whose events come by backfills, and by nothing else.

    Args:
        label: first part of the ids of its events.
        answers: what the log must answer to its records, in order, if it has none of them before.
        names: of its backfills: a crash of the server loses what was staged, and it is staged again.
    """

    label: str
    answers: list[str]
    names: list[str]

    @classmethod
    def of(cls, label: str, events: list[Event]) -> File:
        """A file with these records. Of several records with one id the first counts."""
        first: dict[str, str] = {}
        answers = []
        for event in events:
            label_of = event["metadata"]["label"]
            if event["metadata"].get("invalid"):
                answers.append("invalid")
            elif first.setdefault(event["id"], label_of) != label_of:
                answers.append("conflict")
            else:
                answers.append("duplicate" if event in events[: len(answers)] else "accepted")
        return cls(label, answers, [])


def check(conn: psycopg.Connection, files: list[File], found: Findings, log: LiteralString = "refold.events") -> None:
    """Each event of a file counts once, and its backfills say how many they have brought.

    Args:
        conn: a superuser's.
        files: all that were staged.
        found: takes what does not hold.
        log: the relation of all events.
    """
    for file in files:
        rows = conn.execute(
            "SELECT name, state, mark, total, accepted, duplicates, conflicts FROM refold.file_backfills"
            " WHERE name = ANY (%s) ORDER BY backfill_id",
            (file.names,),
        ).fetchall()
        there = conn.execute(f"SELECT FROM {log} WHERE starts_with(event_id, %s)", (f"{file.label}-",)).rowcount
        said = sum(row[4] for row in rows)
        if said != there:
            found.add("I12", f"{file.label}: the log has {there} of its events, and its backfills have brought {said}")
        for name, state, mark, total, accepted, duplicates, conflicts in rows:
            if state == "done" and (mark, total) != (len(file.answers), len(file.answers)):
                found.add("I12", f"{name} is done behind {mark} of {total} records, and there are {len(file.answers)}")
            expected = Counter(file.answers[:mark])
            known = expected["accepted"] + expected["duplicate"]
            if (accepted + duplicates, conflicts) != (known, expected["conflict"]):
                found.add(
                    "I12",
                    f"{name}: of {mark} records {accepted} were accepted, {duplicates} duplicates and {conflicts}"
                    f" conflicts, not {known} of the first two and {expected['conflict']}",
                )
