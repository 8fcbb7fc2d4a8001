"""What the tests of reconcile share."""

from collections.abc import Iterator

import pytest

from refold.postgres.connect import connect as connect_as
from tests.support.live import make_live
from tests.support.reconcile_shop import Shop, shopping


@pytest.fixture
def shop(database_url: str) -> Iterator[Shop]:
    tables = make_live(database_url)
    with connect_as(database_url, "refold_worker", autocommit=True) as worker:
        one = Shop(database_url, tables, worker)
        one.append(shopping())
        one.drain()
        yield one
