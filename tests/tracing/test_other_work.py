"""Spans of what is no page: audits and heals, scrubs, deliveries."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from refold import tracing
from refold.engine.reconcile.reconcile import reconcile
from refold.engine.scrub.scrub import scrub
from refold.service.duties import audits
from refold.service.duties import scrub as scrubbing
from refold.store.builds.compiled import Compiler
from tests.support.delivering import SECRET, deliver, deploy_sink, to_webhook
from tests.support.otlp import Receiver, receiving
from tests.support.receiving import hook
from tests.support.scratch import Scratch
from tests.support.tampering import tamper
from tests.support.traced_application import application

Connection = psycopg.Connection[Any]

DAILY = "SELECT (ts AT TIME ZONE 'UTC')::date AS day, count(*) AS events FROM events GROUP BY day"


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    """A receiver, and this process traces like a worker."""
    monkeypatch.setattr(tracing.environment, "ON", True)
    with receiving() as found, application(found):
        yield found


@pytest.fixture
def daily(scratch: Scratch, receiver: Receiver) -> Scratch:
    scratch.deploy_one("daily", DAILY)
    scratch.append(20)
    scratch.drain()
    receiver.spans.clear()
    return scratch


def break_a_row(scratch: Scratch, admin: Connection) -> None:
    admin.execute(f"UPDATE refold_builds.{scratch.build('daily').table_name} SET events = 99".encode())


def test_duties_that_find_nothing_make_no_span(daily: Scratch, receiver: Receiver) -> None:
    compiler = Compiler(daily.folder)
    audits.quick_audit(daily.worker, compiler)
    audits.deep_step(daily.worker, compiler)
    scrubbing.run(daily.worker, compiler)
    assert receiver.spans == []


@pytest.mark.parametrize("duty", [audits.quick_audit, audits.deep_step])
def test_a_heal_is_part_of_its_audit(daily: Scratch, receiver: Receiver, admin: Connection, duty: Any) -> None:
    break_a_row(daily, admin)
    duty(daily.worker, Compiler(daily.folder))
    [audit], [heal] = receiver.named("audit daily"), receiver.named("heal daily")
    assert (heal.trace_id, heal.parent) == (audit.trace_id, audit.span_id)
    assert (audit.kind, heal.kind, audit.parent) == ("internal", "internal", "")
    assert heal.attributes["refold.drifted"] == 1
    assert heal.attributes["refold.slices"] == 1
    assert heal.attributes["refold.incident"] > 0
    assert audit.start_ns <= heal.start_ns <= heal.end_ns <= audit.end_ns


def test_an_audit_that_fails_says_so_without_the_text(daily: Scratch, receiver: Receiver, admin: Connection) -> None:
    admin.execute(f"ALTER TABLE refold_builds.{daily.build('daily').table_name} RENAME TO elsewhere".encode())
    reconcile(daily.worker, daily.folder, depth="slice", by="quick audit")
    [audit] = receiver.named("audit daily")
    assert audit.failed
    assert audit.attributes["error.type"] == "42P01"


def test_what_a_person_runs_has_a_span(daily: Scratch, receiver: Receiver) -> None:
    reconcile(daily.worker, daily.folder)
    scrub(daily.worker)
    assert [span.name for span in receiver.spans] == ["audit daily", "scrub events"]
    assert receiver.spans[1].attributes == {"refold.by": "refold scrub", "refold.events": 20, "refold.damage": 0}


def test_a_scrub_that_finds_damage_has_a_span(daily: Scratch, receiver: Receiver, admin: Connection) -> None:
    tamper(admin, "UPDATE refold.events SET action = 'b' WHERE event_id = 'e3'")
    scrubbing.run(daily.worker, Compiler(daily.folder))
    [span] = receiver.named("scrub events")
    assert span.attributes["refold.damage"] == 1


def test_a_webhook_gets_the_context_of_its_delivery(
    daily: Scratch, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET", SECRET)
    with hook() as webhook:
        deploy_sink(daily.worker, "crm", to_webhook("daily", webhook.url))
        deliver(daily.worker, daily.folder, "crm")
        daily.append(5)
        daily.drain()
        deliver(daily.worker, daily.folder, "crm")
    spans = receiver.named("deliver crm")
    assert len(spans) == len(webhook.received) >= 2
    for span, request in zip(spans, webhook.received, strict=True):
        context, _, flags = request.headers["traceparent"].rpartition("-")
        assert context == f"00-{span.trace_id}-{span.span_id}"
        assert int(flags, 16) & 1
        assert span.kind == "producer"
        assert span.attributes["messaging.destination.name"] == "crm"
        assert span.attributes["refold.rows"] == 1


def test_without_traces_a_webhook_gets_no_context(scratch: Scratch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", SECRET)
    scratch.deploy_one("daily", DAILY)
    scratch.append(5)
    scratch.drain()
    with hook() as webhook:
        deploy_sink(scratch.worker, "crm", to_webhook("daily", webhook.url))
        deliver(scratch.worker, scratch.folder, "crm")
    assert webhook.received
    assert all("traceparent" not in request.headers for request in webhook.received)


def test_log_records_within_a_span_name_it(
    daily: Scratch, receiver: Receiver, admin: Connection, caplog: pytest.LogCaptureFixture
) -> None:
    break_a_row(daily, admin)
    caplog.set_level(logging.INFO, "refold")
    with tracing.exporting():
        logging.getLogger("refold.worker").info("before")
        audits.quick_audit(daily.worker, Compiler(daily.folder))
    [audit] = receiver.named("audit daily")
    before, *within = [record for record in caplog.records if hasattr(record, "trace_id")]
    assert (before.trace_id, before.span_id) == ("", "")  # type: ignore[attr-defined]
    opened = next(record for record in within if "incident opened" in record.message)
    assert (opened.trace_id, opened.span_id) == (audit.trace_id, audit.span_id)  # type: ignore[attr-defined]
    logging.getLogger("refold.worker").info("after")
    assert not hasattr(caplog.records[-1], "trace_id")
