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

OfPage = Literal["locked", "looked", "rows", "cursor", "committed"]
Point = Literal[
    OfPage, "load_rows", "load_indexes", "load_archived", "views", "group_committed",
    "recover_begun", "recover_segment", "recover_ledger", "recover_build", "recover_audited", "recover_proved",
    "backfill_begun", "backfill_rows", "backfill_recorded", "backfill_stepped",
    "staged_batch", "staged_files", "lane_begun", "lane_locked", "lane_stored", "lane_moved", "lane_committed",
    "sink_taken", "sink_opened", "sink_read", "sink_sent",
    "sink_told", "sink_acknowledged",
    "skip_leased", "skip_looked", "skip_moved", "skip_recorded", "skip_committed",
    "archive_turning", "archive_turned", "archive_begun", "archive_spooled", "archive_sent", "archive_written",
    "archive_proved", "archive_created", "archive_exchanged", "archive_restored", "chilled", "audit_archived",
    "retain_rows", "retain_committed",
    "canary_shown", "canary_ended", "canary_alone",
    "fold_begun", "fold_undone", "fold_rows", "fold_stepped", "purge_folded", "purge_floors", "purge_recorded",
    "purge_detached", "purge_committed", "purge_dropped",
    "erasure_begun", "erasure_log", "erasure_healed", "erasure_places", "erasure_portion", "erasure_file",
    "erasure_removed", "erasure_purged_sent", "erasure_purged", "erasure_rebased",
    "erasure_archived", "erasure_vacuumed", "erasure_recorded",
]  # fmt: skip
POINTS: tuple[Point, ...] = get_args(Point)
PAGE_POINTS: tuple[OfPage, ...] = get_args(OfPage)
"""The steps of a worker that applies a page."""

_passed: Counter[Point] = Counter()


def failpoint(name: Point) -> None:
    """Kill or stop this process if the environment names this point."""
    _passed[name] += 1
    for variable, number in (("REFOLD_CRASH_AT", signal.SIGKILL), ("REFOLD_FREEZE_AT", signal.SIGSTOP)):
        point, _, time = os.environ.get(variable, "").partition(":")
        if point == name and _passed[name] == int(time or 1):
            # By this thread: another one would stop the process a moment later, and this one would go on meanwhile.
            signal.pthread_kill(threading.get_ident(), number)
