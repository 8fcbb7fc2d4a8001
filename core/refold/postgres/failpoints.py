"""Failpoints: points at which a test can kill or freeze a process.

REFOLD_CRASH_AT=rows refold worker       kill -9 at the first page's rows
REFOLD_CRASH_AT=rows:7 refold worker     at the seventh
REFOLD_FREEZE_AT=rows refold worker      SIGSTOP; SIGCONT wakes it up
"""

from __future__ import annotations

import os
import signal
import threading
from collections import Counter
from typing import Literal, get_args

Point = Literal[
    "locked", "looked", "rows", "cursor", "committed", "load_rows", "load_indexes", "views", "group_committed",
    "recover_begun", "recover_segment", "recover_ledger", "recover_build", "recover_audited", "recover_proved",
    "backfill_begun", "backfill_rows", "backfill_recorded", "backfill_stepped",
    "sink_taken", "sink_opened", "sink_read", "sink_sent", "sink_acknowledged",
]  # fmt: skip
POINTS: tuple[Point, ...] = get_args(Point)

_passed: Counter[Point] = Counter()


def failpoint(name: Point) -> None:
    """Kill or stop this process if the environment names this point."""
    _passed[name] += 1
    for variable, number in (("REFOLD_CRASH_AT", signal.SIGKILL), ("REFOLD_FREEZE_AT", signal.SIGSTOP)):
        point, _, time = os.environ.get(variable, "").partition(":")
        if point == name and _passed[name] == int(time or 1):
            # By this thread: another one would stop the process a moment later, and this one would go on meanwhile.
            signal.pthread_kill(threading.get_ident(), number)
