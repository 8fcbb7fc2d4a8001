"""Where the benchmarks run: a server, and a database of its own for each of them."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from platform import python_version

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from refold.embedded import EmbeddedServer
from refold.embedded.binaries import Binaries
from refold.store.schema.migrate import migrate

SETTINGS = {
    "fsync": "on",
    "shared_buffers": "1GB",
    "max_wal_size": "8GB",
    "checkpoint_timeout": "30min",
    "work_mem": "64MB",
    "maintenance_work_mem": "256MB",
    "max_connections": "100",
}
"""Of the embedded server. Commits are as durable as by default; checkpoints stay out of the measurements."""


@dataclass(frozen=True, slots=True)
class Server:
    """A server to measure on.

    Args:
        url: a libpq URL or connection string of a superuser.
    """

    url: str

    @property
    def pgbench(self) -> str:
        """The program pgbench, of the embedded PostgreSQL; it works with every server."""
        return str(Binaries.find(None).directory / "pgbench")

    @property
    def psql(self) -> str:
        """The program psql, of the embedded PostgreSQL."""
        return str(Binaries.find(None).directory / "psql")

    def url_of(self, database: str) -> str:
        """The connection string of a database on this server."""
        return make_conninfo(self.url, dbname=database)

    def describe(self) -> dict[str, str]:
        """What the figures depend on: versions, processors and the settings that matter."""
        with psycopg.connect(self.url) as conn:
            row = conn.execute("SELECT current_setting('server_version')").fetchone()
            assert row is not None
            found = {
                "postgres": str(row[0]).split(" ")[0],
                "python": python_version(),
                "psycopg": f"{psycopg.__version__} ({psycopg.pq.__impl__})",
                "processors": str(len(os.sched_getaffinity(0))),
            }
            names = ["fsync", "synchronous_commit", "shared_buffers", "work_mem", "max_wal_size"]
            for name in names:
                shown = conn.execute("SELECT current_setting(%s)", (name,)).fetchone()
                assert shown is not None
                found[name] = str(shown[0])
        return found

    @contextmanager
    def database(self, name: str, *, install: bool = True) -> Iterator[str]:
        """A fresh database, dropped at the end; gives its connection string.

        Args:
            name: part of the database's name.
            install: make refold's schema in it.
        """
        full = f"refold_benchmark_{os.getpid()}_{name}"
        drop = sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(full))
        with psycopg.connect(self.url, autocommit=True) as admin:
            admin.execute(drop)
            admin.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(full)))
        try:
            if install:
                migrate(self.url_of(full))
            yield self.url_of(full)
        finally:
            with psycopg.connect(self.url, autocommit=True) as admin:
                admin.execute(drop)


@contextmanager
def serve(url: str | None) -> Iterator[Server]:
    """The server at a URL, or else an embedded one that is gone afterwards."""
    if url is not None:
        yield Server(url)
        return
    directory = Path(tempfile.mkdtemp(prefix="refold-benchmark-"))
    with EmbeddedServer.start(directory, SETTINGS, delete=True) as embedded:
        yield Server(embedded.url)


def database_name(url: str) -> str:
    """The database that a connection string names."""
    return str(conninfo_to_dict(url)["dbname"])
