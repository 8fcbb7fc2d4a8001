"""The database of a test: a clone of a template, on a server that the session starts.

The server is the embedded one, or the one that REFOLD_TEST_DATABASE_URL names (a superuser's URL).
Under pytest-xdist every worker starts its own, or has a template of its own on the named one.
"""

import os
import signal
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote
from zlib import crc32

import psycopg
import pytest
import typer.main
import typer.testing
from hypothesis import settings
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict
from pytest_postgresql import factories

from refold.cli.commands import COMMANDS
from refold.postgres.connect import connect as connect_as

if TYPE_CHECKING:
    from tests.support.scratch import Scratch

settings.register_profile("default", deadline=None, print_blob=True, max_examples=40)
settings.register_profile("quick", parent=settings.get_profile("default"), max_examples=20)
settings.register_profile("thorough", parent=settings.get_profile("default"), max_examples=1000)
settings.load_profile("default")

# Behind `&` in a script it is ignored, and so it would be by the programs that tests interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--part", metavar="K/N", help="run only this one of N parts, the K-th, of the tests that are chosen"
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves out the tests of other parts; by their names, so that each is in the same part everywhere."""
    if (part := config.getoption("--part")) is None:
        return
    number, parts = (int(one) for one in part.split("/"))
    mine: dict[bool, list[pytest.Item]] = {True: [], False: []}
    for one in items:
        mine[crc32(one.nodeid.encode()) % parts == number % parts].append(one)
    config.hook.pytest_deselected(items=mine[False])
    items[:] = mine[True]


SERVER_SETTINGS = {"max_connections": "100", "max_prepared_transactions": "5", "fsync": "off"}


@dataclass(frozen=True)
class ServerUnderTest:
    """Where the tests' server is, in the words of pytest-postgresql."""

    host: str
    port: int
    user: str
    password: str | None
    maintenance_dbname: str
    options: str = ""
    template_dbname: str | None = None
    dbname: str | None = None

    @classmethod
    def at(cls, url: str) -> "ServerUnderTest":
        given = {name: str(value) for name, value in conninfo_to_dict(url).items()}
        return cls(
            host=given.get("host", ""),
            port=int(given.get("port", 5432)),
            user=given.get("user", "postgres"),
            password=given.get("password"),
            maintenance_dbname=given.get("dbname", "postgres"),
        )

    def url_of(self, database: str) -> str:
        """The libpq URL of a database on this server."""
        user = quote(self.user, safe="")
        if self.password is not None:
            user += ":" + quote(self.password, safe="")
        return f"postgresql://{user}@/{quote(database, safe='')}?host={quote(self.host)}&port={self.port}"


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """What commands print is looked at as a whole; where they break lines is for tests/cli/test_width.py."""
    monkeypatch.setenv("COLUMNS", "1000")


@pytest.fixture(autouse=True, scope="session")
def commands_built_once() -> Iterator[None]:
    """Builds the commands of `refold` once: typer does it for each call, which takes longer than most of them run."""

    @cache
    def built(application: typer.Typer) -> Any:
        for one in COMMANDS.values():
            import_module(f"refold.cli.{one.module}")
        return typer.main.get_command(application)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(typer.testing, "_get_command", built)
        yield


@pytest.fixture(scope="session")
def server() -> Iterator[ServerUnderTest]:
    """The server of this session."""
    url = os.environ.get("REFOLD_TEST_DATABASE_URL")
    if url:
        yield ServerUnderTest.at(url)
        return
    from refold.embedded import EmbeddedServer

    # Not below pytest's own directory, which pytest closes to the user that runs the server.
    directory = Path(tempfile.mkdtemp(prefix="refold-test-"))
    with EmbeddedServer.start(directory, SERVER_SETTINGS, delete=True) as embedded:
        yield ServerUnderTest.at(embedded.url)


def load_schema(*, host: str, port: int, user: str, dbname: str, password: str | None, **_: Any) -> None:
    """Makes refold's schema in the template; pytest-postgresql calls it once a session."""
    from refold.store.schema.migrate import migrate

    migrate(ServerUnderTest(host, port, user, password, dbname).url_of(dbname))


# The process id in the name: sessions at the same time, on one server, do not meet.
template = factories.postgresql_noproc(depends_on="server", dbname=f"refold_test_{os.getpid()}", load=[load_schema])


@pytest.fixture(scope="session")
def templates(template: Any) -> Iterator[Callable[[str], ServerUnderTest]]:
    """Like the template, with a folder of tests/projects live in it; made when it is first asked for."""
    from tests.support.live import PROJECTS, make_live

    made: dict[str, ServerUnderTest] = {}
    original = ServerUnderTest(
        host=template.host,
        port=template.port,
        user=template.user,
        password=template.password,
        maintenance_dbname=template.maintenance_dbname,
        template_dbname=template.template_dbname,
        dbname=template.dbname,
    )

    def of(project: str) -> ServerUnderTest:
        if project not in made:
            name = f"{original.template_dbname}_{project}"
            made[project] = replace(original, template_dbname=name)
            maintenance.execute(
                sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(
                    sql.Identifier(name), sql.Identifier(str(original.template_dbname))
                )
            )
            make_live(original.url_of(name), PROJECTS / project)
        return made[project]

    with psycopg.connect(original.url_of(original.maintenance_dbname), autocommit=True) as maintenance:
        yield of
        for one in made.values():
            name = sql.Identifier(str(one.template_dbname))
            maintenance.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(name))


@pytest.fixture
def origin(request: pytest.FixtureRequest, template: Any, templates: Callable[[str], ServerUnderTest]) -> Any:
    """What this test's database is a clone of: `@pytest.mark.live("shop")` has that project deployed already."""
    marker = request.node.get_closest_marker("live")
    return template if marker is None else templates(*marker.args)


conn = factories.postgresql("origin")


@pytest.fixture
def database_url(server: ServerUnderTest, conn: psycopg.Connection[tuple[Any, ...]]) -> Iterator[str]:
    """The libpq URL of this test's own database, a fresh clone of the template."""
    url = server.url_of(conn.info.dbname)
    yield url
    # A prepared transaction that a test left behind keeps its database from being dropped.
    with psycopg.connect(url, autocommit=True) as admin:
        left = admin.execute("SELECT gid FROM pg_prepared_xacts WHERE database = current_database()")
        for (gid,) in left.fetchall():
            admin.execute(sql.SQL("ROLLBACK PREPARED {}").format(sql.Literal(gid)))


@pytest.fixture
def connect(database_url: str) -> Iterator[Callable[..., psycopg.Connection[tuple[Any, ...]]]]:
    """Further connections to this test's database, with psycopg's options; closed at the end."""
    opened: list[psycopg.Connection[tuple[Any, ...]]] = []

    def connect(**options: Any) -> psycopg.Connection[tuple[Any, ...]]:
        opened.append(psycopg.connect(database_url, **options))
        return opened[-1]

    yield connect
    for connection in opened:
        connection.close()


@pytest.fixture
def producers(database_url: str) -> Iterator[Callable[..., psycopg.Connection[Any]]]:
    """Makes connections that act as a producer."""
    opened: list[psycopg.Connection[Any]] = []

    def connect(**options: Any) -> psycopg.Connection[Any]:
        opened.append(connect_as(database_url, "refold_producer", **options))
        return opened[-1]

    yield connect
    for connection in opened:
        connection.close()


@pytest.fixture
def producer(producers: Callable[..., psycopg.Connection[Any]]) -> psycopg.Connection[Any]:
    """A connection that acts as a producer."""
    return producers()


@pytest.fixture
def admin(conn: psycopg.Connection[Any]) -> psycopg.Connection[Any]:
    """A superuser's connection in autocommit mode."""
    conn.autocommit = True
    return conn


@pytest.fixture
def scratch(tmp_path: Path, database_url: str) -> Iterator["Scratch"]:
    """An empty folder of projections, its database, and a worker's connection."""
    from tests.support.law import worker_connection
    from tests.support.scratch import Scratch

    with worker_connection(database_url) as worker:
        yield Scratch(tmp_path, database_url, worker)
