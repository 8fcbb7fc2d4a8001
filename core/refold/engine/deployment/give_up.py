"""What a command has shown as failed is given up: it does not go live by itself a minute later."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress

import psycopg

from refold.errors import BuildError, RefoldError
from refold.postgres.sqlstate import transient
from refold.store.builds import state
from refold.store.builds.build import Build, set_error

_AGAIN = "Nothing goes live before: `refold deploy` goes on from here, `refold status` shows what stands."
_LOCK_TIMEOUT = "5s"


@contextmanager
def given_up_on_errors(conn: psycopg.Connection, deployment: int) -> Iterator[None]:
    """Takes a deployment from the workers, who would make it live, when the block ends with an error.

    Its builds stay beside the live ones, kept up to date, for the next `refold deploy` or `refold promote`. Whoever
    merely ends (Ctrl-C, a kill) has shown nothing as failed: the workers go on.

    Args:
        conn: acts as refold_worker, in autocommit mode.
        deployment: whose builds.
    """
    try:
        yield
    except Exception:
        # Without a connection nothing can be given up.
        with suppress(psycopg.OperationalError, psycopg.InterfaceError):
            conn.execute(
                "UPDATE refold.deployments SET given_up_at = now() WHERE deployment = %s AND promoted_at IS NULL",
                (deployment,),
            )
        raise


@contextmanager
def retired_on_errors(conn: psycopg.Connection, build: Build) -> Iterator[None]:
    """Retires a build, and what reads it, whose own SQL or function fails in the block: no worker could do better.

    Args:
        conn: acts as refold_worker, in autocommit mode.
        build: one that is not live.

    Raises:
        BuildError: the same, with the projection's name and what to do.
    """
    try:
        yield
    except Exception as error:
        if transient(error) or isinstance(error, psycopg.errors.QueryCanceled):
            # It is the server that is full, slow or away.
            raise
        message = str(error).partition("\n")[0]
        # Somebody may be at it, and will fail in the same way.
        with suppress(psycopg.errors.LockNotAvailable), conn.transaction():
            conn.execute(f"SET LOCAL lock_timeout = '{_LOCK_TIMEOUT}'".encode())
            set_error(conn, build, message)
            state.give_up(conn, build)
            state.retire_orphans(conn)
        remedy = error.remedy if isinstance(error, RefoldError) else None
        raise BuildError(
            f"{build.projection} cannot be kept: {message}",
            remedy=remedy or f"Mend it. {_AGAIN}",
        ) from error
