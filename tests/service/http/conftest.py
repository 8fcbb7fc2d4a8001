"""A door for each test."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.door import Served


@pytest.fixture
def door(database_url: str, tmp_path: Path) -> Iterator[Served]:
    with Served(database_url, tmp_path / "serve.log") as served:
        yield served
