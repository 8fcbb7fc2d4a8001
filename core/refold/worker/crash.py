"""Points at which a worker can be made to die, so that every one of them can be tested."""

from __future__ import annotations

import os
import signal
from typing import Literal

Point = Literal["locked", "looked", "rows", "cursor", "committed", "load_rows", "load_indexes", "views"]
POINTS: tuple[Point, ...] = (
    "locked",
    "looked",
    "rows",
    "cursor",
    "committed",
    "load_rows",
    "load_indexes",
    "views",
)


def crash_point(name: Point) -> None:
    """Kills this process (-9) when the environment variable REFOLD_CRASH_AT names this point."""
    if os.environ.get("REFOLD_CRASH_AT") == name:
        os.kill(os.getpid(), signal.SIGKILL)
