"""Incidents: one open for a kind and subject, with its times in order."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from refold.postgres.connect import connection
from refold.store.incidents import KINDS, REMEDIES, Kind, detect, find, resolve


@pytest.fixture
def worker(database_url: str) -> Iterator[psycopg.Connection[Any]]:
    with connection(database_url, "refold_worker", autocommit=True) as conn:
        yield conn


def test_a_fault_that_is_seen_again_adds_to_its_incident(worker: psycopg.Connection[Any]) -> None:
    began = datetime(2026, 1, 1, tzinfo=UTC)
    first = detect(worker, "lag", "daily", by="watch", evidence={"events": 5, "limit": 3}, started_at=began)
    assert detect(worker, "lag", "daily", by="watch", evidence={"events": 9}) == first
    assert detect(worker, "lag", "other", by="watch", evidence={}) != first
    [incident] = find(worker, "i.subject = %s", "daily")
    assert (incident.started_at, incident.evidence) == (began, {"events": 9, "limit": 3})
    assert incident.detected_at > began
    assert incident.resolved_at is None


def test_a_resolved_incident_stays_and_the_next_is_another(worker: psycopg.Connection[Any]) -> None:
    first = detect(worker, "drift", "daily", by="audit", evidence={"rows": 1})
    assert resolve(worker, "drift", "daily", by="audit", outcome={"healed": 1})
    assert not resolve(worker, "drift", "daily", by="audit")
    second = detect(worker, "drift", "daily", by="audit", evidence={"rows": 2})
    assert second != first
    done, opened = find(worker)
    assert (done.resolved_by, done.outcome, opened.resolved_at) == ("audit", {"healed": 1}, None)
    assert done.resolved_at is not None
    assert done.started_at <= done.detected_at <= done.resolved_at


def test_a_start_in_the_future_is_now(worker: psycopg.Connection[Any]) -> None:
    """The clocks of two machines differ."""
    later = datetime.now(UTC) + timedelta(hours=1)
    detect(worker, "stalled", "daily", by="watch", evidence={}, started_at=later)
    [incident] = find(worker)
    assert incident.started_at <= incident.detected_at < later


def test_the_database_refuses_an_unknown_kind(worker: psycopg.Connection[Any]) -> None:
    with pytest.raises(psycopg.errors.CheckViolation):
        detect(worker, "gremlins", "daily", by="watch", evidence={})  # type: ignore[arg-type]


def test_seen_again_and_again_it_uses_up_no_numbers(worker: psycopg.Connection[Any]) -> None:
    """Duties come by every few seconds: gaps in the numbers would look like incidents that somebody removed."""
    first = detect(worker, "lag", "daily", by="watch", evidence={})
    for _ in range(5):
        detect(worker, "lag", "daily", by="watch", evidence={"events": 9})
    assert detect(worker, "lag", "other", by="watch", evidence={}) == first + 1


def test_workers_write_it_into_their_log(worker: psycopg.Connection[Any], caplog: pytest.LogCaptureFixture) -> None:
    """Once when it opens, and once when it is over."""
    with caplog.at_level(logging.INFO, "refold.incidents"):
        for _ in range(3):
            detect(worker, "drift", "daily", by="quick audit", evidence={})
        resolve(worker, "drift", "daily", by="quick audit")
        resolve(worker, "drift", "daily", by="quick audit")
    opened, over = caplog.messages
    assert opened.startswith("incident opened: drift of daily, detected by quick audit")
    assert over == "incident resolved: drift of daily, by quick audit"


@pytest.mark.parametrize("kind", KINDS)
def test_a_remedy_names_what_can_be_typed_and_no_field_of_the_evidence(kind: Kind) -> None:
    """The evidence is shown as sentences."""
    for quoted in re.findall(r"`([^`]*)`", REMEDIES[kind]):
        assert quoted.startswith(("refold ", "--")), quoted
