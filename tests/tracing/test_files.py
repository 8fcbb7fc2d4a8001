"""Traces of `refold ingest`: each batch of a file is an append in the trace that the environment names."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import psycopg

from tests.support.otlp import Receiver, receiving, traceparent


def ingested(url: str, file: Path, receiver: Receiver, **environment: str) -> str:
    """What `refold ingest` writes to stderr."""
    command = [sys.executable, "-m", "refold", "ingest", "--database-url", url, "--batch", "2", str(file)]
    done = subprocess.run(command, env=os.environ | receiver.environment | environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stderr


def test_each_batch_is_an_append_in_the_given_trace(database_url: str, tmp_path: Path) -> None:
    file = tmp_path / "events.jsonl"
    events = [{"id": f"e{at % 4}", "action": "a", "ts": "2026-03-02T08:00:00Z"} for at in range(5)]
    file.write_text("".join(json.dumps(one) + "\n" for one in events))
    with receiving() as receiver:
        ingested(database_url, file, receiver, TRACEPARENT=traceparent(7))
        ingested(database_url, file, receiver)
        ingested(database_url, file, receiver, TRACEPARENT="00-nonsense")
    _, trace, parent, _ = traceparent(7).split("-")
    spans = sorted(receiver.named("append events"), key=lambda span: span.start_ns)
    assert [(span.trace_id, span.parent, span.kind, span.service) for span in spans] == [
        (trace, parent, "producer", "refold")
    ] * 3
    assert [span.events for span in spans] == [2, 2, 1]
    assert [span.attributes.get("refold.duplicate") for span in spans] == [None, None, 1]
    with psycopg.connect(database_url) as conn:
        rows = conn.execute("SELECT trace_id, span_id, events FROM refold.traces ORDER BY txid, position").fetchall()
    assert [(one.hex, events) for one, _, events in rows] == [(trace, 2), (trace, 2)]
    assert [f"{span & (2**64 - 1):016x}" for _, span, _ in rows] == [span.span_id for span in spans[:2]]
