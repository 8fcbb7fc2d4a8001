"""S3 on this host: moto's server, with a front that can refuse, hold and count requests."""

from __future__ import annotations

import threading
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import boto3  # type: ignore[import-untyped]
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

KEY, SECRET = "AKIAREFOLDTEST", "s3cret-that-must-not-show"

Judge = Callable[[str, str], tuple[int, str] | None]
"""Takes method and path of a request; returns a status and an error code to refuse it, None to let it through."""

_REASONS = {403: "403 Forbidden", 404: "404 Not Found", 503: "503 Slow Down"}


class ObjectStore:
    """The server; `judge` decides about each request, and `requests` has those that came."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, str]] = []
        self.judge: Judge = lambda method, path: None
        self._moto = DomainDispatcherApplication(create_backend_app)
        self._server = make_server("127.0.0.1", 0, self._answer, threaded=True)
        self.url = f"http://127.0.0.1:{self._server.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def storage(self, **options: Any) -> dict[str, Any]:
        """The options of a sink that uses it; what is tried again by the library itself is little."""
        return {
            "key": "env:LAKE_KEY",
            "secret": "env:LAKE_SECRET",
            "endpoint_url": self.url,
            "config_kwargs": {"retries": {"max_attempts": 1}, "connect_timeout": 2, "read_timeout": 20},
        } | options

    def client(self) -> Any:
        """boto3's client, as another program would use it."""
        return boto3.client(
            "s3", endpoint_url=self.url, aws_access_key_id=KEY, aws_secret_access_key=SECRET, region_name="us-east-1"
        )

    def content(self, name: str) -> bytes | None:
        """An object of the bucket `lake`; None if there is none."""
        client = self.client()
        try:
            return bytes(client.get_object(Bucket="lake", Key=name)["Body"].read())
        except client.exceptions.NoSuchKey:
            return None
        finally:
            client.close()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _answer(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        self.requests.append((method, path))
        refused = self.judge(method, path)
        if refused is None:
            return self._moto(environ, start)  # type: ignore[no-any-return]
        environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        status, code = refused
        body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>no: {code}</Message></Error>".encode()
        start(_REASONS[status], [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))])
        return [] if method == "HEAD" else [body]


@contextmanager
def object_store() -> Iterator[ObjectStore]:
    """A server with the empty bucket `lake`."""
    store = ObjectStore()
    try:
        # All servers of a process share what they hold.
        urllib.request.urlopen(f"{store.url}/moto-api/reset", b"").close()
        client = store.client()
        client.create_bucket(Bucket="lake")
        client.close()
        store.requests.clear()
        yield store
    finally:
        store.close()
