"""The account that runs the server when root starts it, and its access to files."""

import fcntl
import os
import pwd
import shutil
import stat
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from refold.errors import DatabaseError

SYSTEM_USER = "embedded_postgres"


def account_for(data_dir: Path) -> pwd.struct_passwd | None:
    """Return the account that must run PostgreSQL's programs; None: the account of this process.

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
    """Change the owner of a file that root wrote to the account."""
    if account:
        os.chown(path, account.pw_uid, account.pw_gid, follow_symlinks=False)


def make_parents(path: Path, account: pwd.struct_passwd | None) -> None:
    """Create the missing directories above a path, and let the account traverse them.

    Args:
        path: future path.
        account: account that must reach it; None: this process.
    """
    missing = [parent for parent in path.parents if not parent.exists()]
    for parent in reversed(missing):
        parent.mkdir(exist_ok=True)
        if account is not None:
            parent.chmod(stat.S_IMODE(parent.stat().st_mode) | stat.S_IXOTH)


def closed(path: Path, account: pwd.struct_passwd | None = None) -> Path | None:
    """Return the first directory above a path that an account cannot traverse; None if it can reach the path.

    Args:
        path: path that need not exist.
        account: None: any user who is neither the owner nor in the group.
    """
    for parent in reversed(path.resolve().parents):
        if parent.exists() and not _may(parent, account, stat.S_IXOTH):
            return parent
    return None


def runnable(installation: Sequence[Path], account: pwd.struct_passwd) -> bool:
    """Return whether the account can run the programs in some directories."""
    return all(closed(folder, account) is None and _readable(folder, account) for folder in installation)


def _readable(folder: Path, account: pwd.struct_passwd) -> bool:
    for place, _, files in os.walk(folder):
        if not _may(Path(place), account, stat.S_IROTH | stat.S_IXOTH):
            return False
        for name in files:
            path = Path(place, name)
            executable = path.stat().st_mode & stat.S_IXUSR
            if not _may(path, account, stat.S_IROTH | (stat.S_IXOTH if executable else 0)):
                return False
    return True


def copy_to(installation: Sequence[Path], root: Path, place: Path, account: pwd.struct_passwd) -> None:
    """Copy an installation for an account to a place that does not exist yet.

    Args:
        installation: directories that refer to each other by their paths below `root`.
        root: directory that becomes `place`.
        place: target directory; it appears when the copy is complete.
        account: owner of the copy.
    """
    new = place.with_name("postgresql.new")
    shutil.rmtree(new, ignore_errors=True)
    for folder in installation:
        shutil.copytree(folder, new / folder.relative_to(root), symlinks=True)
    for inside, _, files in os.walk(new):
        give(Path(inside), account)
        for name in files:
            give(Path(inside, name), account)
    new.rename(place)


def _may(path: Path, account: pwd.struct_passwd | None, bits: int) -> bool:
    """Return whether an account has permissions, which are given as the bits for others."""
    found = path.stat()
    if account is not None and found.st_uid == account.pw_uid:
        bits <<= 6
    elif account is not None and found.st_gid == account.pw_gid:
        bits <<= 3
    return found.st_mode & bits == bits
