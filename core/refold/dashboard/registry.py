"""The pages of the dashboard, and what people may do on them, by path."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from refold.dashboard import acting
from refold.dashboard.acting import Act
from refold.dashboard.ask import Ask
from refold.dashboard.pages import (
    canaries,
    dead_letters,
    event,
    incidents,
    latency,
    lineage,
    metric,
    overview,
    pressure,
    rejected,
    row,
    sinks,
    toil,
)


@dataclass(frozen=True, slots=True)
class Page:
    """A page.

    Args:
        path: its path; `.json` is added for its JSON.
        template: name of its template, and of its entry in the navigation.
        title: its title.
        read: reads what it shows.
        menu: where the navigation names it.
        still: whether it is read once, for one request: it does not refresh, and answers are not shared.
    """

    path: str
    template: str
    title: str
    read: Callable[[Ask], Any]
    menu: Literal["bar", "more", "nowhere"] = "bar"
    still: bool = False

    @property
    def json_path(self) -> str:
        return "/index.json" if self.path == "/" else f"{self.path}.json"


PAGES: tuple[Page, ...] = (
    Page("/", "overview", "Overview", overview.read),
    Page("/lineage", "lineage", "Lineage", lineage.read),
    Page("/incidents", "incidents", "Incidents", incidents.read),
    Page("/dead-letters", "dead_letters", "Dead letters", dead_letters.read),
    Page("/sinks", "sinks", "Sinks", sinks.read),
    Page("/latency", "latency", "Latency", latency.read),
    Page("/canaries", "canaries", "Canaries", canaries.read, "more"),
    Page("/rejected", "rejected", "Rejected", rejected.read, "more"),
    Page("/pressure", "pressure", "Pressure", pressure.read, "more"),
    Page("/toil", "toil", "Toil", toil.read, "more"),
    Page("/metrics/{name}", "metric", "Metric", metric.read, "nowhere"),
    Page("/metrics/{name}/row", "row", "Row", row.read, "nowhere", still=True),
    Page("/events", "event", "Event", event.read, "nowhere", still=True),
    Page("/events/{id:path}", "event", "Event", event.read, "nowhere", still=True),
)
"""All pages, in the order of the navigation."""

ACTS: Mapping[str, tuple[Act, str]] = {
    "/dead-letters/retry": (acting.retry_letters, "/dead-letters"),
    "/dead-letters/drop": (acting.drop_letters, "/dead-letters"),
    "/incidents/ack": (acting.acknowledge, "/incidents"),
    "/sinks/pause": (acting.pause_sink, "/sinks"),
    "/sinks/resume": (acting.resume_sink, "/sinks"),
}
"""What can be done, by path, with the page that it leads back to."""
