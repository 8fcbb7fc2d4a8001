"""What the tests of faults share."""

import pytest


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers that wait for time to pass fail the test."""

    def sleep(seconds: float) -> None:
        raise AssertionError(f"a worker waits {seconds} s")

    monkeypatch.setattr("refold.service.worker.loop.time.sleep", sleep)
