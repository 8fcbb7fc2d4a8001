"""What producers attempted and what was acknowledged, kept in files that the database knows nothing of.

A line is written before a batch is sent and another when the answers have come. What a producer that is killed leaves
of a line counts as not written: then the batch was not sent, or its answer not known.
"""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Event = dict[str, Any]
"""An event as it was sent: id, user_id, action, ts, metadata.

`metadata` also says what cannot be written down here, and what an event was made for: `invalid`, `smuggled`, `spoils`.
"""


class Journal:
    """One producer's file.

    Args:
        path: made if absent; a producer that starts again adds to it.
    """

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        # Beyond every number that is in the file already.
        self._batch = path.stat().st_size
        if self._batch and not path.read_bytes().endswith(b"\n"):
            os.write(self._file, b"\n")

    def attempted(self, source: str, events: Sequence[Event]) -> int:
        """Notes a batch that is about to be sent; answers its number."""
        self._batch += 1
        self._write({"batch": self._batch, "source": source, "events": list(events)})
        return self._batch

    def acknowledged(self, batch: int, answers: Sequence[str | None]) -> None:
        """Notes the answers to a batch: its transactions have been committed, and the producer knows. None is none."""
        self._write({"batch": batch, "answers": list(answers)})

    def _write(self, line: dict[str, Any]) -> None:
        data = (json.dumps(line) + "\n").encode()
        assert os.write(self._file, data) == len(data)


@dataclass(slots=True)
class Offered:
    """One event in one batch.

    Args:
        source: who sent it.
        event: as it was sent.
        answer: None when the producer never heard.
    """

    source: str
    event: Event
    answer: str | None


@dataclass(slots=True)
class Count:
    """What all journals say together.

    Args:
        offered: every event of every batch.
        by_id: the same by the event's id, without those that are invalid.
    """

    offered: list[Offered] = field(default_factory=list)
    by_id: dict[str, list[Offered]] = field(default_factory=lambda: defaultdict(list))

    @property
    def attempted(self) -> int:
        """How many different events were attempted."""
        return len(self.by_id)

    @property
    def acknowledged(self) -> set[str]:
        """The ids of the events that producers know to be in the log."""
        return {
            name
            for name, offers in self.by_id.items()
            if any(offer.answer in ("accepted", "duplicate") for offer in offers)
        }


def read(paths: Iterable[Path]) -> Count:
    """Reads journals."""
    count = Count()
    for path in paths:
        batches: dict[int, list[Offered]] = {}
        for text in path.read_text().splitlines():
            try:
                line = json.loads(text)
            except json.JSONDecodeError:
                continue
            if "events" in line:
                batches[line["batch"]] = [Offered(line["source"], event, None) for event in line["events"]]
                continue
            for offer, answer in zip(batches[line["batch"]], line["answers"], strict=True):
                offer.answer = answer
        for offers in batches.values():
            count.offered += offers
            for offer in offers:
                if not offer.event["metadata"].get("invalid"):
                    count.by_id[offer.event["id"]].append(offer)
    return count
