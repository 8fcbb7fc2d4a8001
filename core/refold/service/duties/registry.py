"""The list of all duties of a worker."""

from __future__ import annotations

from refold.service.duties import audits as background
from refold.service.duties import blocking_transactions as held_back
from refold.service.duties import folding, hot_keys, pressure, retention, scrubbing
from refold.service.duties import lag_and_stall as progress
from refold.service.duties import missed_notifications as wake_ups
from refold.service.duties import old_snapshots as held_snapshots
from refold.service.duties import prune_statistics as tidying
from refold.service.duties import purity as impure
from refold.service.duties import stale_incidents as gone
from refold.service.duties.schedule import Duty

DUTIES: tuple[Duty, ...] = (
    Duty(progress.NAME, 5.0, progress.run),
    Duty(pressure.NAME, 5.0, pressure.run),
    Duty(held_back.NAME, 10.0, held_back.run),
    Duty(held_snapshots.NAME, 10.0, held_snapshots.run),
    Duty(folding.NAME, 30.0, folding.run),
    Duty(hot_keys.NAME, 60.0, hot_keys.run),
    Duty(wake_ups.NAME, 60.0, wake_ups.run),
    Duty(impure.NAME, 60.0, impure.run),
    Duty(gone.NAME, 60.0, gone.run),
    Duty(tidying.NAME, 60.0, tidying.run),
    Duty(retention.NAME, 600.0, retention.run),
    Duty(background.QUICK, 60.0, background.quick_audit, statement_timeout_s=120.0),
    Duty(background.DEEP, 10.0, background.deep_step, statement_timeout_s=120.0),
    Duty(scrubbing.NAME, 60.0, scrubbing.run, statement_timeout_s=120.0),
    Duty(background.SEALING, 60.0, background.seal_segments, statement_timeout_s=120.0),
)
