"""The provider of spans: the application's, or one of refold's own programs."""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

from refold.tracing import environment
from refold.tracing.logs import records_in_spans

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Tracer
    from opentelemetry.trace import TracerProvider as AnyProvider

log = logging.getLogger("refold.tracing")

FLUSH_S = 2.0
"""Most seconds for which a program that ends waits for its last spans to be taken."""

_own = False
_provider: tuple[int, TracerProvider] | None = None
_lock = threading.Lock()


@contextmanager
def exporting() -> Iterator[None]:
    """Let this process have a provider of its own in a block: it is a program of refold's.

    The provider is made with the first span, not before: the thread that exports does not survive a fork. In the end
    the last spans are exported, for at most FLUSH_S; what is left is dropped. Log records name the current span.
    """
    global _own
    _own = environment.ON
    try:
        with records_in_spans() if environment.ON else nullcontext():
            yield
    finally:
        _own = False
        _end()


def _end() -> None:
    global _provider
    if _provider is None or _provider[0] != os.getpid():
        return
    provider, _provider = _provider[1], None
    # The exporter waits for its receiver, and retries, for longer than a program may take to end.
    thread = threading.Thread(target=provider.shutdown, name="refold spans", daemon=True)
    thread.start()
    thread.join(FLUSH_S)


def _made() -> TracerProvider:
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    given = "OTEL_SERVICE_NAME" in os.environ or "service.name=" in os.environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
    names = {"service.version": _version()} | ({} if given else {"service.name": "refold"})
    provider = TracerProvider(resource=Resource.create(names), shutdown_on_exit=False)
    for exporter in _exporters(os.environ.get("OTEL_TRACES_EXPORTER", "").strip() or "otlp"):
        provider.add_span_processor(BatchSpanProcessor(exporter))
    return provider


def _exporters(names: str) -> Iterator[Any]:
    from importlib.metadata import entry_points

    for name in (one.strip() for one in names.split(",")):
        # The gRPC exporter has a package of its own, and an entry point of its own name.
        point = "otlp_proto_http" if name in ("otlp", "otlp_proto_http") else name
        found = entry_points(group="opentelemetry_traces_exporter", name=point)
        try:
            yield next(iter(found)).load()()
        except StopIteration:
            log.warning("no trace exporter is named %r; its spans are dropped", name)
        except Exception as error:
            log.warning("the trace exporter %r cannot be used: %s", name, error)


_known: tuple[object, Tracer] | None = None


def tracer() -> Tracer:
    global _known
    provider = _providing()
    # A tracer is as dear as two spans.
    if _known is None or _known[0] is not provider:
        _known = (provider, provider.get_tracer("refold", _version()))
    return _known[1]


def _providing() -> AnyProvider:
    """Return the application's provider, or else, in a program of refold's, its own."""
    from opentelemetry import trace

    global _provider
    provider = trace.get_tracer_provider()
    if not (_own and isinstance(provider, trace.ProxyTracerProvider)):
        return provider
    if _provider is None or _provider[0] != os.getpid():
        with _lock:
            if _provider is None or _provider[0] != os.getpid():
                try:
                    _provider = (os.getpid(), _made())
                except Exception as error:
                    # A wrong variable of OpenTelemetry must not stop a worker.
                    log.warning("no traces are exported: %s", error)
                    return trace.NoOpTracerProvider()
    return _provider[1]


def _version() -> str:
    # Imported: it is this module's package. By name it would be a dependency on all that it offers.
    return str(sys.modules["refold"].__version__)
