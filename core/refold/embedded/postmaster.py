"""The process that postmaster.pid names: finding it, and cleaning up after it was killed."""

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
    """A running server process."""

    pid: int
    ready: bool
    """Whether it accepts connections."""

    port: int
    socket_dir: str

    @classmethod
    def find(cls, data_dir: Path) -> Self | None:
        """Return the running postmaster of a cluster, if any.

        Raises:
            InputError: the directory cannot be read: it is a file, or belongs to another user.
        """
        lines = _pid_file(data_dir)
        if not lines or not _serves(int(lines[0]), data_dir):
            return None
        # The file grows while the server starts: pid, directory, time, port, socket, host, key, status.
        if len(lines) < 8:
            return cls(int(lines[0]), ready=False, port=0, socket_dir="")
        return cls(int(lines[0]), lines[7].strip() in ("ready", "standby"), int(lines[3]), lines[4])

    def answers(self) -> bool:
        """Return whether a session could begin."""
        from psycopg import conninfo, pq

        place = conninfo.make_conninfo(host=self.socket_dir, port=self.port, connect_timeout=5)
        return pq.PGconn.ping(os.fsencode(place)) == pq.Ping.OK


def clear_remains(data_dir: Path, deadline_s: float) -> None:
    """Remove the remains of a killed postmaster, so that a new one can start.

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
        raise InputError(_why(data_dir, error), remedy="Set REFOLD_HOME to your own directory.") from error
    return text.splitlines()


def _why(data_dir: Path, error: OSError) -> str:
    """Return why a directory cannot be read."""
    server = data_dir.parent
    if isinstance(error, NotADirectoryError):
        file = next(path for path in (data_dir, *data_dir.parents) if path.exists())
        return f"the embedded server needs a directory, but {file} is a file"
    if isinstance(error, PermissionError):
        return (
            f"the embedded server in {server} belongs to {_owner_of(server)}; {_user(os.geteuid())} may not access it"
        )
    return f"cannot find the embedded server in {server}: {error.strerror or error}"


def _owner_of(directory: Path) -> str:
    """Return the owner of the deepest visible directory of a path."""
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
    """Return whether a process belongs to a cluster's server; all its processes work in its directory."""
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
