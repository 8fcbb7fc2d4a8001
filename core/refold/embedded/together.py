"""An embedded server that several processes use, and that is stopped by who started it if nobody else uses it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from fcntl import LOCK_EX, LOCK_NB, LOCK_SH, flock
from pathlib import Path

from refold.embedded.server import EmbeddedServer


@contextmanager
def used_together(
    directory: Path | None = None, *, kept: Callable[[], None] = lambda: None
) -> Iterator[EmbeddedServer]:
    """Yield the running server of a directory; in the end it is stopped if it was started here and nobody else uses it.

    Args:
        directory: directory of the server; see `EmbeddedServer.start`.
        kept: called in the end if it was started here and stays, because others use it.

    Raises:
        InputError: see `EmbeddedServer.start`.
        DatabaseError: see `EmbeddedServer.start`.
    """
    with ExitStack() as stack:
        while True:
            server = stack.enter_context(EmbeddedServer.start(directory, keep=False))
            users = stack.enter_context((server.directory / "users").open("w"))
            # Whoever stops it holds the lock until it has stopped: then it is started again, here.
            flock(users, LOCK_SH)
            if server.running:
                break
            users.close()
            server.keep()
        try:
            yield server
        finally:
            try:
                flock(users, LOCK_EX | LOCK_NB)
            except BlockingIOError:
                if server.keep():
                    kept()
            server.close()
