"""Giving up failed deployments: after a command has reported an error, no worker makes its builds live."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress

import psycopg

from refold.errors import BuildError, RefoldError
from refold.postgres.sqlstate import transient
from refold.store.builds import state
from refold.store.builds.build import Build, set_error

_AGAIN = (
    "Nothing of this deployment is live. `refold status` shows its builds, and `refold deploy` continues with them."
)
_LOCK_TIMEOUT = "5s"


@contextmanager
def given_up_on_errors(conn: psycopg.Connection, deployment: int) -> Iterator[None]:
    """Give up a deployment if the block ends with an error, so that no worker makes it live.

    Its builds stay beside the live ones, kept up to date, for the next `refold deploy` or `refold promote`. A command
    that is interrupted (Ctrl-C, a kill) has reported no error, and workers continue its deployment.

    Args:
        conn: acts as refold_worker, in autocommit mode.
        deployment: number of the deployment.
    """
    try:
        yield
    except Exception as error:
        # Without a connection the deployment cannot be given up.
        with suppress(psycopg.OperationalError, psycopg.InterfaceError):
            conn.execute(
                "UPDATE refold.deployments SET given_up_at = now(), given_up_because = %s"
                " WHERE deployment = %s AND promoted_at IS NULL",
                (_because(error), deployment),
            )
        raise


def _because(error: Exception) -> str:
    """Return an error in words, with its remedy."""
    message = str(error).partition("\n")[0] or type(error).__name__
    remedy = error.remedy if isinstance(error, RefoldError) else None
    return f"{message.rstrip('.')}. {remedy}" if remedy else message


@contextmanager
def retired_on_errors(conn: psycopg.Connection, build: Build) -> Iterator[None]:
    """Retire a build and its readers if its SQL or function fails in the block: it would fail in any worker.

    Args:
        conn: acts as refold_worker, in autocommit mode.
        build: a build that is not live.

    Raises:
        BuildError: the error of the build, with the projection's name and a remedy.
    """
    try:
        yield
    except Exception as error:
        if transient(error) or isinstance(error, psycopg.errors.QueryCanceled):
            # The server is full, slow or gone; the build is not the cause.
            raise
        message = str(error).partition("\n")[0]
        # A worker may hold the build, and will fail in the same way.
        with suppress(psycopg.errors.LockNotAvailable), conn.transaction():
            conn.execute(f"SET LOCAL lock_timeout = '{_LOCK_TIMEOUT}'".encode())
            set_error(conn, build, message)
            state.give_up(conn, build)
            state.retire_orphans(conn)
        remedy = error.remedy if isinstance(error, RefoldError) else None
        raise BuildError(
            f"{build.projection} cannot be kept: {message}",
            remedy=remedy or f"Correct the projection. {_AGAIN}",
        ) from error
