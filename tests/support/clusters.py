"""Clusters of a test's own, and what operators do with them: dump, restore, base backup."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
from psycopg import sql

from refold.embedded import EmbeddedServer
from refold.embedded.account import account_for
from refold.embedded.binaries import Binaries
from refold.store.schema.migrate import migrate

SETTINGS = {"fsync": "off", "max_prepared_transactions": "5", "max_connections": "40"}


@contextmanager
def cluster(settings: dict[str, str] | None = None) -> Iterator[EmbeddedServer]:
    """A server with an empty cluster, gone afterwards. The roles of refold are in it."""
    directory = Path(tempfile.mkdtemp(prefix="refold-cluster-"))
    with EmbeddedServer.start(directory, {**SETTINGS, **(settings or {})}, delete=True) as server:
        migrate(server.url)
        yield server


def make_database(server: EmbeddedServer, name: str) -> str:
    """An empty database; gives its URL."""
    with psycopg.connect(server.url, autocommit=True) as admin:
        admin.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    return server.url_of(name)


def advance(server: EmbeddedServer, upto: int) -> None:
    """Uses up transaction ids of a cluster, until the next one is `upto` at least."""
    with psycopg.connect(server.url, autocommit=True) as admin:
        admin.execute(
            f"""
            DO $$ BEGIN
                WHILE pg_snapshot_xmax(pg_current_snapshot())::text::bigint < {upto} LOOP
                    PERFORM pg_current_xact_id();
                    COMMIT;
                END LOOP;
            END $$""".encode()
        )


def next_txid(server: EmbeddedServer) -> int:
    """The id that the next transaction of a cluster gets."""
    with psycopg.connect(server.url, autocommit=True) as admin:
        row = admin.execute("SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint").fetchone()
        assert row is not None
        return int(row[0])


def dump(url: str, *options: str, bin_dir: Path | None = None) -> bytes:
    """What pg_dump writes, in its own format; of another version's server its own program writes it."""
    return _program("pg_dump", "--format=custom", *options, url, bin_dir=bin_dir)


def restore(archive: bytes, url: str, *options: str, bin_dir: Path | None = None) -> None:
    """Restores a dump; any error is one."""
    _program("pg_restore", "--exit-on-error", *options, f"--dbname={url}", given=archive, bin_dir=bin_dir)


def _program(name: str, *arguments: str, given: bytes | None = None, bin_dir: Path | None = None) -> bytes:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PG")}
    done = subprocess.run(
        [Binaries.find(bin_dir).directory / name, *arguments],
        input=given,
        capture_output=True,
        timeout=60,
        env=environment,
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


@contextmanager
def standby(primary: EmbeddedServer) -> Iterator[EmbeddedServer]:
    """A server that repeats what another one writes."""
    with base_backup(primary) as directory:
        signal = directory / "data" / "standby.signal"
        signal.touch()
        owner = (directory / "data" / "PG_VERSION").stat()
        os.chown(signal, owner.st_uid, owner.st_gid)
        follows = {"primary_conninfo": primary.url, "wal_retrieve_retry_interval": "100ms"}
        with EmbeddedServer.start(directory, {**SETTINGS, **follows}) as server:
            yield server
            server.stop(immediate=True)


@contextmanager
def base_backup(server: EmbeddedServer) -> Iterator[Path]:
    """A physical backup of a running server, as a directory that a server can be started in."""
    parent = Path(tempfile.mkdtemp(prefix="refold-backup-"))
    account = account_for(server.data_dir)
    parent.chmod(0o755)
    directory = parent / "server"
    directory.mkdir(mode=0o700)
    if account is not None:
        os.chown(directory, account.pw_uid, account.pw_gid)
    try:
        Binaries.find(None).run(
            "pg_basebackup", "-D", "data", "-d", server.url, "-c", "fast", "--no-sync", where=directory, account=account
        )
        yield directory
    finally:
        if (directory / "data" / "postmaster.pid").exists():
            EmbeddedServer.start(directory).stop(immediate=True)
        shutil.rmtree(parent)
