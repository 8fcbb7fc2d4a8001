"""A receiver of traces on this host, which decodes what exporters of OpenTelemetry send to it."""

from __future__ import annotations

import gzip
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

Mode = Literal["takes", "fails", "hangs"]
KINDS = {1: "internal", 2: "server", 3: "client", 4: "producer", 5: "consumer"}
CONSUMER, PRODUCER = "consumer", "producer"


@dataclass(frozen=True)
class Received:
    """A span as it arrived; ids are in hex."""

    name: str
    kind: str
    trace_id: str
    span_id: str
    parent: str
    links: tuple[tuple[str, str], ...]
    attributes: dict[str, Any]
    failed: bool
    start_ns: int
    end_ns: int
    service: str

    @property
    def events(self) -> int:
        return int(self.attributes["messaging.batch.message_count"])


@dataclass
class Receiver:
    """What a receiver has got.

    Args:
        mode: `takes` spans, `fails` with 500, or `hangs`.
    """

    mode: Mode = "takes"
    spans: list[Received] = field(default_factory=list)
    requests: int = 0
    port: int = 0
    _over: threading.Event = field(default_factory=threading.Event)

    @property
    def environment(self) -> dict[str, str]:
        """The variables with which a program sends to it."""
        return {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{self.port}", "OTEL_BSP_SCHEDULE_DELAY": "50"}

    def named(self, name: str) -> list[Received]:
        return [span for span in self.spans if span.name == name]

    def of(self, trace_id: str) -> list[Received]:
        return [span for span in self.spans if span.trace_id == trace_id]


@contextmanager
def receiving(mode: Mode = "takes") -> Iterator[Receiver]:
    """Receive spans in a block."""
    receiver = Receiver(mode)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            receiver.requests += 1
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if receiver.mode == "hangs":
                receiver._over.wait(60)
                return
            if receiver.mode == "takes":
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                receiver.spans += _spans(ExportTraceServiceRequest.FromString(body))
            self.send_response(200 if receiver.mode == "takes" else 500)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    receiver.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield receiver
    finally:
        receiver._over.set()
        server.shutdown()
        server.server_close()
        thread.join()


def _spans(request: ExportTraceServiceRequest) -> list[Received]:
    found = []
    for resource in request.resource_spans:
        names = {one.key: one.value.string_value for one in resource.resource.attributes}
        for scope in resource.scope_spans:
            for span in scope.spans:
                found.append(
                    Received(
                        span.name,
                        KINDS[span.kind],
                        span.trace_id.hex(),
                        span.span_id.hex(),
                        span.parent_span_id.hex(),
                        tuple((link.trace_id.hex(), link.span_id.hex()) for link in span.links),
                        {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in span.attributes},
                        span.status.code == 2,
                        span.start_time_unix_nano,
                        span.end_time_unix_nano,
                        names["service.name"],
                    )
                )
    return found


def traceparent(number: int, *, span: int = 1, flags: str = "01") -> str:
    """A context whose trace has this number."""
    return f"00-{number:032x}-{span:016x}-{flags}"


def trace_id(number: int) -> str:
    """The id of the trace with this number."""
    return f"{number:032x}"


def unique() -> int:
    """A number for a trace that no other test has."""
    return time.time_ns()
