"""Notices and a real Alertmanager: an incident is an alert, and its end resolves it."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from refold.service.duties import notices
from refold.store import notices as store
from refold.store.builds.compiled import Compiler
from refold.store.incidents import detect, resolve
from tests.support.http_receiver import Receiver
from tests.support.waiting import wait_until

Connection = psycopg.Connection[Any]
ALERTMANAGER = shutil.which("prometheus-alertmanager") or shutil.which("alertmanager")
pytestmark = pytest.mark.skipif(
    ALERTMANAGER is None,
    reason="needs Alertmanager: apt-get install --no-install-recommends prometheus-alertmanager",
)
CONFIG = """
route: {receiver: pager, group_by: [alertname, incident], group_wait: 0s, group_interval: 1s}
receivers:
  - name: pager
    webhook_configs: [{url: "URL", send_resolved: true}]
templates: []
"""


@pytest.fixture
def pager() -> Iterator[Receiver]:
    with Receiver() as made:
        yield made


@pytest.fixture
def alertmanager(tmp_path: Path, pager: Receiver) -> Iterator[str]:
    """The address of an Alertmanager that tells `pager`."""
    assert ALERTMANAGER is not None
    (tmp_path / "alertmanager.yml").write_text(CONFIG.replace("URL", pager.url))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"127.0.0.1:{free.getsockname()[1]}"
    command = [
        ALERTMANAGER,
        f"--config.file={tmp_path / 'alertmanager.yml'}",
        f"--storage.path={tmp_path}",
        f"--web.listen-address={url}",
        "--cluster.listen-address=",
    ]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=tmp_path, stdout=log, stderr=log)
    try:
        wait_until(lambda: _answers(f"http://{url}/-/ready"))
        yield f"http://{url}"
    finally:
        process.terminate()
        process.wait(10)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def alerts(url: str) -> list[tuple[str, str, str]]:
    """Name, subject and severity of the alerts that are open there."""
    with urllib.request.urlopen(f"{url}/api/v2/alerts", timeout=5) as answer:
        found = json.load(answer)
    return sorted(
        (one["labels"]["alertname"], one["labels"]["subject"], one["labels"]["severity"])
        for one in found
        if one["status"]["state"] == "active"
    )


def told(pager: Receiver) -> list[tuple[str, str]]:
    """What Alertmanager has told: status and subject."""
    return [(one["status"], one["labels"]["subject"]) for request in pager.requests for one in request.json["alerts"]]


def test_an_incident_is_an_alert_until_it_is_over(worker: Connection, alertmanager: str, pager: Receiver) -> None:
    given = {"kind": "alertmanager", "url": alertmanager, "allow_private": True}
    store.put(worker, {"alerts": ("alertmanager", "ticket", json.dumps(given))})
    compiler = Compiler(None)
    detect(worker, "log_damage", "segment 1", by="a test", evidence={})
    detect(worker, "dead_letters", "daily", by="a test", evidence={})
    notices.run(worker, compiler)
    both = [("refold_dead_letters", "daily", "ticket"), ("refold_log_damage", "segment 1", "page")]
    wait_until(lambda: alerts(alertmanager) == both)
    notices.send_again(worker, compiler)
    wait_until(lambda: len(told(pager)) == 2)
    resolve(worker, "log_damage", "segment 1", by="a person")
    notices.run(worker, compiler)
    wait_until(lambda: alerts(alertmanager) == both[:1])
    wait_until(lambda: ("resolved", "segment 1") in told(pager))
    notices.send_again(worker, compiler)
    # Nothing came twice, and what is open stays so.
    assert sorted(told(pager)) == [("firing", "daily"), ("firing", "segment 1"), ("resolved", "segment 1")]
    assert alerts(alertmanager) == both[:1]
    assert [one.failures for one in store.routes(worker)] == [0]
