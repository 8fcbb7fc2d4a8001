"""Two clusters: one that everything was made in, and one that it is restored into."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count

import psycopg
import pytest
from psycopg import sql

from refold.embedded import EmbeddedServer
from refold.engine.deployment.deploy import rebuild
from refold.postgres.connect import connect
from refold.store.schema.migrate import migrate
from tests.support.clusters import advance, cluster, dump, make_database, restore
from tests.support.live import SHOP, drain, make_live
from tests.support.restored import EARLY, FAR, LAG, LATE, Dumps, append


@pytest.fixture(scope="session")
def old() -> Iterator[EmbeddedServer]:
    """The cluster that the dumps come from; its transaction ids are far on."""
    with cluster() as server:
        advance(server, FAR)
        yield server


@pytest.fixture(scope="session")
def new() -> Iterator[EmbeddedServer]:
    """A fresh cluster, in which transaction ids are low."""
    with cluster() as server:
        yield server


@pytest.fixture(scope="session")
def dumps(old: EmbeddedServer) -> Dumps:
    """The shop, dumped when it had few events, and later: with more, a lag, and a build to roll back to."""
    url = make_database(old, "shop")
    migrate(url)
    with psycopg.connect(url) as conn:
        conn.execute("UPDATE refold.settings SET segment_size = 1000")
    make_live(url)
    append(url, EARLY)
    drain(url)
    early = dump(url)
    append(url, LATE)
    with connect(url, "refold_worker", autocommit=True) as conn:
        rebuild(conn, SHOP, ["totals"], lambda progress: None)
    drain(url)
    append(url, LATE + LAG)
    return Dumps(early, dump(url), url)


_numbers = count()


@pytest.fixture
def fresh(new: EmbeddedServer) -> Iterator[Callable[[], str]]:
    """Makes empty databases in the fresh cluster, and removes them."""
    yield from _databases(new, None)


@pytest.fixture(scope="session")
def template(new: EmbeddedServer, dumps: Dumps) -> str:
    """The late dump, restored into the fresh cluster."""
    url = make_database(new, "template_late")
    restore(dumps.late, url)
    return "template_late"


@pytest.fixture
def restored(new: EmbeddedServer, template: str) -> Iterator[str]:
    """A database as it is after the late dump was restored into the fresh cluster."""
    make = _databases(new, template)
    yield next(make)()
    next(make, None)


def _databases(server: EmbeddedServer, template: str | None) -> Iterator[Callable[[], str]]:
    made: list[str] = []
    with psycopg.connect(server.url, autocommit=True) as admin:

        def make() -> str:
            name = f"restored_{next(_numbers)}"
            query = sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name))
            if template is not None:
                query += sql.SQL(" TEMPLATE {}").format(sql.Identifier(template))
            admin.execute(query)
            made.append(name)
            return server.url_of(name)

        yield make
        for name in made:
            admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))
