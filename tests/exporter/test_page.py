"""The page: both formats as judges read them, only names of the list, and edges that are exact."""

from __future__ import annotations

import dataclasses
import shutil
import subprocess
from datetime import UTC, datetime
from typing import Any

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as prometheus

from refold.exporter.names import BUILDS, NAMES
from refold.exporter.page import BOUNDS, page
from refold.exporter.readings import (
    COARSE,
    FINE,
    STAGES,
    BuildReading,
    DutyReading,
    Exemplar,
    Readings,
    SinkReading,
)
from refold.inspect.archive import ArchiveFigures
from refold.model.quantiles import EDGES, Histogram, bucket
from refold.store.incidents import KINDS
from refold.store.pressure import Pressure, Signal
from tests.support.making import MONDAY_MS

OPENMETRICS = "application/openmetrics-text; version=1.0.0"
PROMTOOL = shutil.which("promtool")
needs_promtool = pytest.mark.skipif(PROMTOOL is None, reason="needs promtool: apt-get install prometheus")


def build(number: int, name: str | None = None) -> BuildReading:
    return BuildReading(
        number, name or f"metric_{number:04}", 123_456, 789, 12.25, 3, 0.75, 1.7724096e9, 2, False, 1.7724096e9,
        1.7724e9, 81_920, 1.7e9, 1.71e9,
    )  # fmt: skip


HISTOGRAM = Histogram.of({bucket(0.002): 3, bucket(0.3): 5, bucket(20.0): 1, bucket(9_000.0): 1})


def readings(number: int = 2, **changes: Any) -> Readings:
    """Figures with something of everything."""
    at = datetime.fromtimestamp(MONDAY_MS / 1000, UTC)
    builds = [build(one) for one in range(number)]
    names = [one.projection for one in builds] if number <= COARSE else [""]
    stages = STAGES if number <= FINE or number > COARSE else ("fresh",)
    found = Readings(
        "18.6", "7", 1_000_000, 60, builds,
        {(name, stage): HISTOGRAM for name in names for stage in stages},
        [("duplicates", "", "", 5), ("rejected", "", "conflict", 6), ("healed", "metric_0000", "drifted", 7),
         ("incidents", "", "lag", 8), ("archive", "", "archived_segments", 3), ("archive", "", "cold_ids", 40)],
        {**dict.fromkeys(KINDS, 0), "lag": 1}, [DutyReading("totals", 1.7724e9, 0)], 2, 1, 0.5,
        Pressure((Signal("lag", 1, 70.0, 60.0, None, at, at, True),)),
        [SinkReading(1, "copy", "metric_0000", "active", 0, 12, None, 0, 4, 0.25)],
        ArchiveFigures(1_048_576, 4_194_304, 86_400, 2, 7_200.5, 1.7724e9, 0),
    )  # fmt: skip
    return dataclasses.replace(found, **changes)


def parsed(found: Readings | None, accept: str = OPENMETRICS, **more: Any) -> dict[str, Any]:
    read = openmetrics if accept.startswith("application/openmetrics") else prometheus
    return {one.name: one for one in read(page(found, accept, **more).text.decode())}


def test_every_name_of_the_list_is_shown_with_its_type_and_labels_and_no_other() -> None:
    found = parsed(readings())
    assert found.keys() == {one.name for one in NAMES.values()}
    for one in NAMES.values():
        assert found[one.name].type == one.type
        assert found[one.name].samples, one.name
        for sample in found[one.name].samples:
            assert set(sample.labels) - {"le"} == set(one.labels), one.name


def test_the_encoders_of_the_client_library_make_the_same() -> None:
    from prometheus_client.exposition import generate_latest
    from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics

    class Registry:
        def __init__(self, families: Any) -> None:
            self.families = families

        def collect(self) -> Any:
            return self.families

    traces = {("metric_0000", "fresh"): [Exemplar({"trace_id": "a" * 32}, 0.3, 1.7e9)]}
    found = readings(exemplars=traces)
    for accept, generate in ((OPENMETRICS, generate_openmetrics), ("", generate_latest)):
        families = parsed(found, OPENMETRICS).values()
        # It sorts labels, and writes all numbers as floats.
        read: Any = openmetrics if accept else prometheus
        theirs = {one.name: one for one in read(generate(Registry(families)).decode())}
        assert theirs == parsed(found, accept)


def test_both_formats_say_the_same() -> None:
    one, other = parsed(readings()), parsed(readings(), "text/plain")

    def samples(families: dict[str, Any]) -> list[Any]:
        return sorted((s.name, sorted(s.labels.items()), s.value) for f in families.values() for s in f.samples)

    assert samples(one) == samples(other)


@pytest.mark.parametrize(
    ("accept", "media_type"),
    [
        (OPENMETRICS + ",text/plain;version=0.0.4;q=0.5,*/*;q=0.1", "application/openmetrics-text; version=1.0.0"),
        ("text/plain;version=0.0.4", "text/plain; version=0.0.4"),
        ("", "text/plain; version=0.0.4"),
        ("text/html,*/*", "text/plain; version=0.0.4"),
        ("application/openmetrics-text; version=nonsense", "text/plain; version=0.0.4"),
        ("application/openmetrics-text;q=0.4,text/plain;q=0.5", "text/plain; version=0.0.4"),
        ("application/openmetrics-text;q=x", "text/plain; version=0.0.4"),
        # Prometheus 3.
        (
            "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"
            "application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,"
            "text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
            "application/openmetrics-text; version=1.0.0",
        ),
    ],
)
def test_the_format_that_is_asked_for(accept: str, media_type: str) -> None:
    found = page(readings(), accept)
    assert found.media_type.startswith(media_type)
    assert found.text.endswith(b"# EOF\n") == media_type.startswith("application/openmetrics")


def test_without_a_database_there_is_only_refold_up() -> None:
    for accept in (OPENMETRICS, ""):
        found = parsed(None, accept)
        assert [(s.name, s.value) for family in found.values() for s in family.samples] == [("refold_up", 0.0)]


def test_what_is_not_known_is_absent() -> None:
    found = parsed(readings(events=None, oldest_holder_s=None))
    assert found["refold_events"].samples == []
    assert found["refold_oldest_holder_age_seconds"].samples == []


@pytest.mark.parametrize("number", [1, FINE + 1, COARSE + 1])
def test_buckets_count_exactly_up_to_their_edges(number: int) -> None:
    family = parsed(readings(number))["refold_latency_seconds"]
    counts = {
        float(s.labels["le"]): s.value for s in family.samples if s.labels.get("stage") == "fresh" and "le" in s.labels
    }
    assert counts[float("inf")] == 10
    for le, count in counts.items():
        assert count == (10 if le > 1e6 else sum(n for s, n in ((0.002, 3), (0.3, 5), (20.0, 1)) if s <= le * 1.02))
    assert len(counts) == (len(EDGES) + 1 if number != FINE + 1 else len(BOUNDS[::2]) + 1)


def test_with_many_projections_all_together_have_histograms_and_single_ones_on_request() -> None:
    family = parsed(readings(COARSE + 1))["refold_latency_seconds"]
    assert {tuple(sorted(s.labels.keys() - {"le"})) for s in family.samples} == {("stage",)}
    single = parsed(readings(1), single=True)
    assert single.keys() == {one.name for one in BUILDS.values()} | {"refold_up"}


def test_exemplars_stand_at_the_bucket_of_their_duration() -> None:
    traces = {
        ("metric_0000", "fresh"): [
            Exemplar({"trace_id": "a" * 32}, 0.3, 1.7e9),
            Exemplar({"trace_id": "old"}, 0.3, 1.6e9),
        ]
    }
    text = page(readings(exemplars=traces), OPENMETRICS).text.decode()
    [line] = [one for one in text.splitlines() if "trace_id" in one]
    assert 'trace_id="' + "a" * 32 in line and 'stage="fresh"' in line and 'projection="metric_0000"' in line
    [le] = [
        float(one.removeprefix('le="').rstrip('"'))
        for one in line[line.index("{") + 1 : line.index("}")].split(",")
        if one.startswith("le=")
    ]
    assert 0.3 <= le < 0.6
    assert "trace_id" not in page(readings(exemplars=traces)).text.decode(), "only OpenMetrics has them"


def test_names_of_projections_are_escaped() -> None:
    odd = 'a"b\\c\nd'
    found = parsed(readings(builds=[build(1, odd)], latencies={}))
    assert found["refold_failing"].samples[0].labels == {"projection": odd}


@needs_promtool
@pytest.mark.parametrize("number", [0, 3, FINE + 1, COARSE + 1])
def test_promtool_has_no_complaint(number: int) -> None:
    checked = subprocess.run(
        [str(PROMTOOL), "check", "metrics"], input=page(readings(number)).text, capture_output=True, check=False
    )
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, b"", b"")


def test_a_page_of_a_thousand_projections_is_below_a_megabyte() -> None:
    for accept in (OPENMETRICS, ""):
        assert len(page(readings(1_000), accept).text) < 1_000_000
    # What makes it so.
    assert len(page(readings(FINE)).text) < 700_000


def test_a_deployment_without_an_archive() -> None:
    found = parsed(readings(archive=ArchiveFigures(1, 0, None, None, None, None, None), totals=[]))
    assert found["refold_archived_segments"].samples[0].value == 0
    assert found["refold_log_first_position"].samples[0].value == 1
    assert {name for name, one in found.items() if name.startswith("refold_archive_") and one.samples} == set()
