"""A pgbouncer that pools transactions, in front of the tests' server."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import psycopg

from tests.conftest import ServerUnderTest
from tests.support.waiting import wait_until

BINARY = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")


@contextmanager
def pgbouncer(server: ServerUnderTest, database: str, *users: str, pool: int = 3) -> Iterator[str]:
    """Starts one; gives the URL of a database behind it.

    Args:
        server: behind it; trusts those that connect through its socket.
        users: further logins.
        database: which.
        pool: connections to the server at most; fewer than there are clients, so that they must share.
    """
    assert BINARY is not None
    directory = Path(tempfile.mkdtemp(prefix="refold-bouncer-"))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    names = (server.user, *users)
    (directory / "users.txt").write_text("".join(f'"{name}" ""\n' for name in names))
    (directory / "pgbouncer.ini").write_text(f"""
[databases]
{database} = host={server.host} port={server.port}
[pgbouncer]
listen_addr =
listen_port = {port}
unix_socket_dir = {directory}
auth_type = trust
auth_file = {directory}/users.txt
pool_mode = transaction
default_pool_size = {pool}
ignore_startup_parameters = extra_float_digits
""")
    command = [BINARY, str(directory / "pgbouncer.ini")]
    if os.getuid() == 0:
        # It refuses to run as root; the server's own user can reach the server's socket.
        owner = Path(server.host).owner()
        for path in (directory, *directory.iterdir()):
            shutil.chown(path, owner)
        command[1:1] = ["-u", owner]
    log = (directory / "log").open("w")
    process = subprocess.Popen(command, stdout=log, stderr=log)
    behind = replace(server, host=str(directory), port=port, password=None)
    url = behind.url_of(database)

    def answers() -> bool:
        assert process.poll() is None, (directory / "log").read_text()
        try:
            psycopg.connect(url, connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True

    try:
        wait_until(answers)
        yield url
    finally:
        process.terminate()
        process.wait(10)
        log.close()
        shutil.rmtree(directory)
