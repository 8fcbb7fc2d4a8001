"""Who runs the server when root starts it, and what that user must be able to reach."""

import fcntl
import logging
import os
import pwd
import stat
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from refold.errors import DatabaseError

SYSTEM_USER = "embedded_postgres"

_logger = logging.getLogger(__name__)


def account_for(data_dir: Path) -> pwd.struct_passwd | None:
    """Whom the programs of PostgreSQL have to run as; None: as this process.

    For root this is the owner of the cluster, if there is one already, or else ``embedded_postgres``.

    Raises:
        DatabaseError: the system user is missing and cannot be created.
    """
    if os.geteuid() != 0:
        return None
    if data_dir.exists() and (owner := data_dir.stat().st_uid) != 0:
        return pwd.getpwuid(owner)
    with _one_at_a_time():
        try:
            return pwd.getpwnam(SYSTEM_USER)
        except KeyError:
            options = ["--system", "--user-group", "--no-create-home", "--shell", "/usr/sbin/nologin"]
            done = subprocess.run(["useradd", *options, SYSTEM_USER], capture_output=True, text=True)
        try:
            return pwd.getpwnam(SYSTEM_USER)
        except KeyError:
            raise DatabaseError(f"cannot create the system user {SYSTEM_USER}: {done.stderr.strip()}") from None


@contextmanager
def _one_at_a_time() -> Iterator[None]:
    """useradd looks for the name before it takes its own lock: two at once give one name two ids in turn."""
    directory = os.open("/etc", os.O_RDONLY)
    try:
        fcntl.flock(directory, fcntl.LOCK_EX)
        yield
    finally:
        os.close(directory)


def give(path: Path, account: pwd.struct_passwd | None) -> None:
    """Makes a file that root wrote the property of the account."""
    if account:
        os.chown(path, account.pw_uid, account.pw_gid, follow_symlinks=False)


def let_reach(path: Path, account: pwd.struct_passwd) -> None:
    """Lets the account pass the directories above a path."""
    for parent in path.resolve().parents:
        if parent.stat().st_uid != account.pw_uid:
            _permit(parent, stat.S_IXOTH)


def let_run(installation: Path, account: pwd.struct_passwd) -> None:
    """Lets the account run what root installed for itself, below a directory."""
    let_reach(installation, account)
    for folder, _, files in os.walk(installation):
        _permit(Path(folder), stat.S_IROTH | stat.S_IXOTH)
        for name in files:
            path = Path(folder, name)
            executable = path.stat().st_mode & stat.S_IXUSR
            _permit(path, stat.S_IROTH | (stat.S_IXOTH if executable else 0))


def _permit(path: Path, bits: int) -> None:
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & bits != bits:
        path.chmod(mode | bits)
        _logger.info("changed the mode of %s from %o to %o", path, mode, mode | bits)
