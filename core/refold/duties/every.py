"""All duties of a worker: one line each."""

from __future__ import annotations

from refold.duties import figures, held_back, impure, progress, wake_ups
from refold.worker.schedule import Duty

DUTIES: tuple[Duty, ...] = (
    Duty(progress.NAME, 5.0, progress.run),
    Duty(held_back.NAME, 10.0, held_back.run),
    Duty(wake_ups.NAME, 60.0, wake_ups.run),
    Duty(impure.NAME, 60.0, impure.run),
    Duty(figures.NAME, 60.0, figures.run),
)
