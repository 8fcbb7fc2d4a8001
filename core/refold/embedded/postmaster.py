"""The process that postmaster.pid names: whether it lives, and what to do if it does not."""

import os
import pwd
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from refold.errors import DatabaseError, InputError

_PROC = Path("/proc/self")


@dataclass(frozen=True)
class Postmaster:
    """A server process that lives."""

    pid: int
    ready: bool
    """Whether it accepts connections."""

    port: int
    socket_dir: str

    @classmethod
    def find(cls, data_dir: Path) -> Self | None:
        """The postmaster of a cluster, if it lives.

        Raises:
            InputError: nobody can look there: it is a file, or another user's.
        """
        lines = _pid_file(data_dir)
        if not lines or not _serves(int(lines[0]), data_dir):
            return None
        # The file grows while the server starts: pid, directory, time, port, socket, host, key, status.
        if len(lines) < 8:
            return cls(int(lines[0]), ready=False, port=0, socket_dir="")
        return cls(int(lines[0]), lines[7].strip() in ("ready", "standby"), int(lines[3]), lines[4])


def clear_remains(data_dir: Path, deadline_s: float) -> None:
    """Clears the way for a new postmaster after one that was killed.

    Its backends end by themselves and are waited for: a new postmaster must not run beside them. The
    process id in postmaster.pid may by now be another program's, which PostgreSQL would take for a
    running server.

    Raises:
        DatabaseError: backends still run after ``deadline_s`` seconds.
    """
    import psutil

    deadline = time.monotonic() + deadline_s
    while orphans := [pid for pid in psutil.pids() if _serves(pid, data_dir)]:
        if time.monotonic() > deadline:
            raise DatabaseError(f"the server of {data_dir} was killed, but its processes {orphans} still run")
        time.sleep(0.05)
    lines = _pid_file(data_dir)
    if lines and psutil.pid_exists(int(lines[0])):
        if len(lines) >= 5 and lines[4]:
            Path(lines[4], f".s.PGSQL.{lines[3]}.lock").unlink(missing_ok=True)
        (data_dir / "postmaster.pid").unlink()


def _pid_file(data_dir: Path) -> list[str]:
    try:
        text = (data_dir / "postmaster.pid").read_text(encoding="utf-8", errors="surrogateescape")
    except FileNotFoundError:
        return []
    except OSError as error:
        raise InputError(_why(data_dir, error), remedy="Name a directory of your own in REFOLD_HOME.") from error
    return text.splitlines()


def _why(data_dir: Path, error: OSError) -> str:
    """Why nothing can be read below a directory."""
    server = data_dir.parent
    if isinstance(error, NotADirectoryError):
        file = next(path for path in (data_dir, *data_dir.parents) if path.exists())
        return f"the embedded server lives in a directory, and {file} is a file"
    if isinstance(error, PermissionError):
        return f"the embedded server in {server} is {_owner_of(server)}'s, and {_user(os.geteuid())} may not enter it"
    return f"cannot look for the embedded server in {server}: {error.strerror or error}"


def _owner_of(directory: Path) -> str:
    """Whose the deepest directory is that can be seen of a path."""
    for path in (directory, *directory.parents):
        try:
            return _user(path.stat().st_uid)
        except OSError:
            continue
    return "nobody"


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"


def _serves(pid: int, data_dir: Path) -> bool:
    """Whether a process belongs to the server of a cluster: all of them work in its directory."""
    if _PROC.is_dir():
        # Every command comes through here, and psutil takes a tenth of its time to import.
        try:
            there = _PROC.parent / str(pid)
            name, place = (there / "comm").read_bytes(), os.readlink(there / "cwd")
        except OSError:
            return False
        return name.strip() == b"postgres" and place == os.path.realpath(data_dir)
    import psutil

    try:
        process = psutil.Process(pid)
        return process.name() == "postgres" and process.cwd() == os.path.realpath(data_dir)
    except psutil.Error:
        return False
