"""The table that holds every door of the log to one meaning of "a valid event".

Each case of `cases/events.json` has:

name: what it is about.
raw: one line of JSON lines; `«x*3»` in it stands for `xxx`.
answer: `accepted` or `invalid`, for whoever reads the line.
reason: text that the reason contains; null for accepted, and where any reason will do.
jsonb: what becomes of it as `raw::jsonb`, where that differs: `refused` (the cast fails) or `accepted` (what
    is wrong cannot be seen in jsonb any more).
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class EventCase:
    name: str
    raw: str
    answer: str
    reason: str | None
    jsonb: str

    def __str__(self) -> str:
        return self.name


def load() -> list[EventCase]:
    """Read the table, with the repetitions written out."""
    table = json.loads((Path(__file__).parents[1] / "cases" / "events.json").read_text())
    return [EventCase(**{"jsonb": case["answer"], **case, "raw": _written_out(case["raw"])}) for case in table]


def _written_out(raw: str) -> str:
    return re.sub(r"«(.+?)\*([0-9]+)»", lambda found: found[1] * int(found[2]), raw)
