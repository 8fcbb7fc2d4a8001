"""A shop that is dumped at two times, to be restored elsewhere."""

from __future__ import annotations

from typing import NamedTuple

from refold import Log
from tests.support.making import events

FAR = 50_000
"""A transaction id that a fresh cluster does not come to, whatever is restored into it."""
EARLY = 40
"""Events when the first dump was made; everything is applied."""
LATE = 70
"""Events that are applied when the second was made."""
LAG = 5
"""Events that are not applied by then."""


class Dumps(NamedTuple):
    """Dumps of one database at two times."""

    early: bytes
    late: bytes
    url: str
    """The database itself."""


def amounts(number: int, prefix: str = "e") -> list[dict[str, object]]:
    """Events with amounts, some of them large."""
    return [{**event, "metadata": {"amount": 30 * at}} for at, event in enumerate(events(number, prefix))]


def append(url: str, number: int, prefix: str = "e") -> list[str]:
    """Appends events, and gives the answers."""
    with Log(url) as log:
        return [str(receipt.answer) for receipt in log.append(amounts(number, prefix))]
