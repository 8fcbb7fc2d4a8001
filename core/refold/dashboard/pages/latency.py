"""`/latency`: how long events took to reach the metrics, as a heat map and in quantiles."""

from __future__ import annotations

from dataclasses import dataclass

from refold.dashboard.ask import Ask
from refold.inspect.health import Health
from refold.inspect.latencies import MINUTES, latencies
from refold.inspect.report import STAGES
from refold.model.quantiles import quantile

DRAWN = 60
"""Most builds whose hour is read at once; with more, a metric has to be chosen."""


@dataclass(frozen=True, slots=True)
class Quantiles:
    """How long events took in the last hour, seconds."""

    metric: str
    stage: str
    events: int
    p50: float
    p95: float
    p99: float


@dataclass(frozen=True, slots=True)
class LatencyPage:
    """What the page shows.

    Args:
        metric: the metric that was chosen; empty: all.
        stage: the stage that was chosen.
        cells: (minutes ago, bucket, events) of the heat map.
        quantiles: by metric and stage.
    """

    health: Health
    metric: str
    stage: str
    cells: list[tuple[int, int, int]]
    quantiles: list[Quantiles]


def read(ask: Ask) -> LatencyPage:
    """Read the page."""
    health = ask.health()
    live = {one.metric: one for one in health.live}
    few = len(health.builds) <= DRAWN
    metric = ask.choice("metric", *(["", *sorted(live)] if few or not live else sorted(live)))
    stage = ask.choice("stage", "fresh", "waiting", "applying")
    chosen = live.get(metric)
    build_id = None if chosen is None else chosen.build_id
    wanted = [one.build_id for one in live.values()] if chosen is None else [chosen.build_id]
    found = ask.observe(lambda conn: latencies(conn, wanted, minutes=MINUTES))
    told = []
    for one in [chosen] if chosen else sorted(live.values(), key=lambda one: one.metric):
        for part in STAGES:
            counts = found.summed(part, build_id=one.build_id)
            p50, p95, p99 = (quantile(counts, share) for share in (0.5, 0.95, 0.99))
            if p50 is not None and p95 is not None and p99 is not None:
                told.append(Quantiles(one.metric, part, sum(counts.values()), p50, p95, p99))
    return LatencyPage(health, metric, stage, found.heat(stage, build_id=build_id), told)
