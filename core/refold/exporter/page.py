"""The page that a scrape gets: readings as OpenMetrics or as Prometheus text.

Both are written here, in one pass: prometheus_client's encoders take a quarter of a second for a thousand metrics. Its
parsers, and promtool, are the judges in the tests.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

from refold import __version__
from refold.exporter.names import ARCHIVED, NAMES
from refold.exporter.readings import FINE, Exemplar, Readings
from refold.model.quantiles import EDGES, Histogram, edge

OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"
PROMETHEUS = "text/plain; version=0.0.4; charset=utf-8"
BOUNDS = tuple(float(f"{edge(number):.6g}") for number in EDGES)
"""Edges of histograms, seconds, as labels show them."""
STEP = 2
"""Of this many edges, coarse histograms have one."""


@dataclass(frozen=True, slots=True)
class Page:
    """What a scraper gets.

    Args:
        text: the body.
        media_type: its media type.
    """

    text: bytes
    media_type: str


Value = float | int | None
Labels = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Family:
    """The samples of one name of the list.

    Args:
        name: its name without prefix.
        samples: values of the labels, and the value; None if it is not known.
        histograms: values of the labels, sum of the durations, and the buckets with their upper bounds, of which each
            may have an exemplar.
        labels: names of the labels; None: those of the list.
    """

    name: str
    samples: Sequence[tuple[Labels, Value]] = ()
    histograms: Sequence[tuple[Labels, float, Sequence[tuple[str, int, Exemplar | None]]]] = ()
    labels: Labels | None = None


def page(readings: Readings | None, accept: str = "", *, single: bool = False) -> Page:
    """Return the page of readings.

    Args:
        readings: all figures; None if the database did not answer: then only `refold_up` is shown, as 0.
        accept: header `Accept` of the request; empty for Prometheus' text.
        single: show only figures of builds, as of a scrape of single projections.
    """
    media_type = wanted(accept)
    lines = [*_lines(_families(readings, single=single), exemplars=media_type is OPENMETRICS)]
    if media_type is OPENMETRICS:
        lines.append("# EOF")
    return Page("".join(f"{line}\n" for line in lines).encode(), media_type)


def wanted(accept: str) -> str:
    """Return the format that a header `Accept` prefers; Prometheus' text if it names neither. Pure."""
    best, found = 0.0, PROMETHEUS
    for one in accept.split(","):
        media, *given = (part.strip().lower() for part in one.split(";"))
        parameters = dict(part.partition("=")[::2] for part in given)
        try:
            weight = float(parameters.get("q", 1))
        except ValueError:
            continue
        # The older one is of the time before there was a standard, and means the same for what is shown here.
        if media == "application/openmetrics-text" and parameters.get("version", "1.0.0") in ("1.0.0", "0.0.1"):
            format_ = OPENMETRICS
        elif media in ("text/plain", "text/*", "*/*"):
            format_ = PROMETHEUS
        else:
            continue
        if weight > best:
            best, found = weight, format_
    return found


def _lines(families: Iterable[Family], *, exemplars: bool) -> Iterator[str]:
    """Yield the lines of a page; OpenMetrics, which has exemplars, names counters and infos without their endings."""
    for family in families:
        name = NAMES[family.name]
        shown, titled = name.shown, name.name if exemplars else name.shown
        kind = "gauge" if name.type == "info" and not exemplars else name.type
        yield f"# HELP {titled} {name.help}"
        yield f"# TYPE {titled} {kind}"
        names = name.labels if family.labels is None else family.labels
        for values, value in family.samples:
            if value is not None:
                yield f"{shown}{_labels(names, values)} {_number(value)}"
        for values, seconds, buckets in family.histograms:
            labels = _labels(names, values)
            # Within the braces.
            inner = f"{labels[1:-1]}," if labels else ""
            for bound, count, exemplar in buckets:
                traced = f" # {_exemplar(exemplar)}" if exemplar is not None and exemplars else ""
                yield f'{shown}_bucket{{{inner}le="{bound}"}} {count}{traced}'
            yield f"{shown}_count{labels} {buckets[-1][1]}"
            yield f"{shown}_sum{labels} {_number(seconds)}"


def _labels(names: Labels, values: Labels) -> str:
    if not names:
        return ""
    return "{" + ",".join(f'{name}="{_escaped(value)}"' for name, value in zip(names, values, strict=True)) + "}"


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


def _number(value: float | int) -> str:
    return str(int(value)) if isinstance(value, bool) else repr(value)


def _exemplar(one: Exemplar) -> str:
    return f"{_labels(tuple(one.labels), tuple(one.labels.values()))} {_number(one.seconds)} {one.at:.3f}"


def _families(found: Readings | None, *, single: bool) -> Iterator[Family]:
    yield Family("up", [((), found is not None)])
    if found is None:
        return
    if not single:
        yield from _deployment(found)
    yield from _builds(found)
    yield _latencies(found, single=single)


def _deployment(found: Readings) -> Iterator[Family]:
    yield Family("build", [((__version__, found.server), 1)])
    yield Family("events", [((), found.events)])
    answers = {"duplicate": 0, "conflict": 0, "invalid": 0}
    healed: list[tuple[Labels, Value]] = []
    archived = dict.fromkeys(ARCHIVED, 0)
    incidents = dict.fromkeys(found.open_incidents, 0)
    for what, projection, kind, number in found.totals:
        match what:
            case "duplicates":
                answers["duplicate"] = number
            case "rejected":
                answers[kind] = number
            case "healed":
                healed.append(((projection, kind), number))
            case "incidents":
                incidents[kind] = number
            case "archive":
                archived[kind] = number
    yield Family("refused_events", _by_name(answers))
    yield Family("lag_limit_seconds", [((), found.lag_limit)])
    yield Family("healed_rows", healed)
    yield Family("incidents", _by_name(incidents))
    yield Family("open_incidents", _by_name(found.open_incidents))
    yield Family("duty_last_run_timestamp_seconds", [((one.name,), one.started_at) for one in found.duties])
    yield Family("duty_failures", [((one.name,), one.failures) for one in found.duties])
    yield Family("workers", [((), found.workers)])
    yield Family("holders", [((), found.holders)])
    yield Family("oldest_holder_age_seconds", [((), found.oldest_holder_s)])
    signals = [((one.signal,), one) for one in found.pressure.signals]
    yield Family("pressure_level", [(labels, one.level) for labels, one in signals])
    yield Family("pressure_value", [(labels, one.value) for labels, one in signals])
    yield Family(
        "pressure_last_measured_timestamp_seconds", [(labels, one.seen_at.timestamp()) for labels, one in signals]
    )
    sinks = [((one.sink, one.projection), one) for one in found.sinks]
    yield Family("sink_active", [(labels, one.condition == "active") for labels, one in sinks])
    yield Family("sink_circuit_open", [(labels, one.failures > 0) for labels, one in sinks])
    yield Family("sink_failures", [(labels, one.failures) for labels, one in sinks])
    yield Family("sink_delivered_rows", [(labels, one.delivered) for labels, one in sinks])
    yield Family("sink_last_delivered_timestamp_seconds", [(labels, one.delivered_at or 0) for labels, one in sinks])
    yield Family("sink_undelivered_rows", [(labels, one.undelivered) for labels, one in sinks])
    yield Family("sink_queued_messages", [(labels, one.messages) for labels, one in sinks])
    yield Family("sink_oldest_message_age_seconds", [(labels, one.oldest_s) for labels, one in sinks])
    archive = found.archive
    yield Family("log_first_position", [((), archive.first)])
    yield Family("log_sealed_position", [((), archive.sealed)])
    for kind, number in archived.items():
        yield Family(kind, [((), number)])
    yield Family("archive_waiting_segments", [((), archive.waiting)])
    yield Family("archive_oldest_waiting_age_seconds", [((), archive.oldest_s)])
    yield Family("archive_after_seconds", [((), archive.after_s)])
    yield Family("archive_last_archived_timestamp_seconds", [((), archive.archived_at)])
    yield Family("archive_failures", [((), archive.failures)])


def _by_name(numbers: Mapping[str, int]) -> list[tuple[Labels, Value]]:
    return [((name,), number) for name, number in numbers.items()]


def _builds(found: Readings) -> Iterator[Family]:
    builds = [((one.projection,), one) for one in found.builds]
    yield Family("applied_events", [(labels, one.applied_events) for labels, one in builds])
    yield Family("applied_pages", [(labels, one.applied_pages) for labels, one in builds])
    yield Family("apply_seconds", [(labels, one.apply_seconds) for labels, one in builds])
    yield Family("unread_events", [(labels, one.unread) for labels, one in builds])
    yield Family("oldest_unread_age_seconds", [(labels, one.oldest_s) for labels, one in builds])
    yield Family("last_applied_timestamp_seconds", [(labels, one.applied_at or 0) for labels, one in builds])
    yield Family("left_out_events", [(labels, one.left_out) for labels, one in builds])
    yield Family("failing", [(labels, one.failing) for labels, one in builds])
    yield Family("table_size_bytes", [(labels, one.bytes) for labels, one in builds])
    proved: list[tuple[Labels, Value]] = [((one.projection, "any"), one.proved_at or 0) for one in found.builds]
    proved += [((one.projection, "deep"), one.deep_proved_at or 0) for one in found.builds]
    yield Family("last_proved_timestamp_seconds", proved)
    yield Family(
        "kept_from_timestamp_seconds",
        [(labels, one.kept_from or 0) for labels, one in builds if (one.kept_from, one.wanted_from) != (None, None)],
    )
    yield Family("wanted_from_timestamp_seconds", [(labels, one.wanted_from) for labels, one in builds])


def _latencies(found: Readings, *, single: bool) -> Family:
    together = any(not projection for projection, _ in found.latencies)
    step = 1 if single or together or len(found.builds) <= FINE else STEP
    return Family(
        "latency_seconds",
        histograms=[
            (
                (stage,) if together else (projection, stage),
                one.seconds,
                _buckets(one, step, found.exemplars.get((projection, stage), ())),
            )
            for (projection, stage), one in sorted(found.latencies.items())
        ],
        labels=("stage",) if together else None,
    )


def _buckets(histogram: Histogram, step: int, exemplars: Sequence[Exemplar]) -> list[tuple[str, int, Exemplar | None]]:
    """Return the upper bounds of buckets, each with the number of durations up to it, and its newest exemplar."""
    bounds = [*BOUNDS[::step], float("inf")]
    newest: dict[int, Exemplar] = {}
    for one in sorted(exemplars, key=lambda one: one.at):
        newest[bisect_left(bounds, one.seconds)] = one
    upto = list(accumulate(histogram.counts))
    numbers = [*upto[:-1:step], upto[-1]]
    labels = [*map(str, bounds[:-1]), "+Inf"]
    return [(label, count, newest.get(place)) for place, (label, count) in enumerate(zip(labels, numbers, strict=True))]
