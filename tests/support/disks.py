"""File systems of their own, which are soon full; they need the right to mount one."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from refold.embedded import EmbeddedServer
from refold.embedded.account import account_for
from refold.store.schema.migrate import migrate


@contextmanager
def small_disk(megabytes: int) -> Iterator[Path]:
    """A file system of its own that is soon full."""
    parent = Path(tempfile.mkdtemp(prefix="refold-disk-"))
    parent.chmod(0o711)
    place = parent / "disk"
    place.mkdir()
    options = ["-t", "tmpfs", "-o", f"size={megabytes}m,mode=0755", "tmpfs"]
    mounted = subprocess.run(["mount", *options, place], capture_output=True, text=True)
    if mounted.returncode:
        shutil.rmtree(parent)
        pytest.skip(f"needs the right to mount a file system: {mounted.stderr.strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)
        shutil.rmtree(parent)


@contextmanager
def filled(place: Path, leave: int) -> Iterator[Callable[[], None]]:
    """Somebody else's file takes up the room but for some bytes; gives what removes it."""
    ballast = place / "ballast"

    def remove() -> None:
        ballast.unlink(missing_ok=True)

    # Without a buffer, which would still want to be written after the disk is full.
    with ballast.open("wb", buffering=0) as file:
        # Others write meanwhile: what there is room for is found by trying.
        with contextlib.suppress(OSError):
            while True:
                file.write(bytes(64 * 1024))
        file.truncate(max(os.fstat(file.fileno()).st_size - leave, 0))
    try:
        yield remove
    finally:
        remove()


def on_a_small_disk(server: EmbeddedServer, place: Path) -> str:
    """A database with refold in a tablespace there; gives its URL."""
    space = place / "space"
    space.mkdir()
    account = account_for(server.data_dir)
    if account is not None:
        os.chown(space, account.pw_uid, account.pw_gid)
    with psycopg.connect(server.url, autocommit=True) as admin:
        admin.execute(f"CREATE TABLESPACE small LOCATION '{space}'".encode())
        admin.execute("CREATE DATABASE shop TABLESPACE small")
    url = server.url_of("shop")
    migrate(url)
    return url
