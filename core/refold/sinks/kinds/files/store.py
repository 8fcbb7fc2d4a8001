"""Where the files are: a folder of this host or an object store. Both replace a file at once or not at all."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import importlib
import os
import secrets
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, BinaryIO, Protocol

from refold.sinks.kinds.files.failures import failure
from refold.sinks.receiver import DeliveryError, Misconfigured, Unavailable

Fill = Callable[[BinaryIO], None]
"""Writes the content of a file."""

_TEMPORARY = ".refold-"
"""How names of unfinished files begin; readers of folders pass over names that begin with a full stop."""

_PACKAGES = {
    "s3": "s3fs",
    "s3a": "s3fs",
    "gs": "gcsfs",
    "gcs": "gcsfs",
    "az": "adlfs",
    "abfs": "adlfs",
}
"""The object stores, in which a file appears whole or not at all, and the package that speaks to each."""
_AZURE = ("az", "abfs")


class Store(Protocol):
    """A folder of files, without folders in it. Each method raises a DeliveryError."""

    def prepare(self) -> None:
        """See that the folder can be used, and remove what killed processes left unfinished."""
        ...

    def names(self) -> list[str]:
        """Return the names of all files."""
        ...

    def read(self, name: str) -> bytes | None:
        """Return the content of a small file; None if there is no such file."""
        ...

    def opened(self, name: str) -> contextlib.AbstractContextManager[BinaryIO]:
        """Open a file for reading.

        Raises:
            FileNotFoundError: there is no such file.
        """
        ...

    def replace(self, name: str, fill: Fill, before: Callable[[], None] = lambda: None) -> None:
        """Put a file in the place of the one of that name.

        Args:
            name: the file's name.
            fill: writes its content.
            before: is called when all is written and nothing is replaced yet; what it raises ends the replacement.
        """
        ...

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""
        ...


def open_store(url: str, options: Mapping[str, Any], shown: str, hidden: Collection[str]) -> Store:
    """Return the store that an address names.

    Args:
        url: an absolute path, or an address such as `s3://bucket/prefix`.
        options: options of the fsspec file system.
        shown: the address for messages.
        hidden: values that messages must not show.

    Raises:
        Misconfigured: the protocol is unknown, its package is missing, or it does not take these options.
    """
    protocol, mark, path = url.partition("://")
    if not mark or protocol in ("file", "local"):
        if options:
            raise Misconfigured(
                "storage: a folder of this host has no options", remedy="Remove [files.storage], or correct the url."
            )
        return LocalFolder(Path(path if mark else url))
    if protocol not in _PACKAGES:
        raise Misconfigured(
            f"url: {protocol}:// is not known as a store that replaces a file at once",
            remedy=f"Use a path, {', '.join(f'{one}://' for one in _PACKAGES)}.",
        )
    return ObjectStore(protocol, path, options, shown, hidden)


class LocalFolder:
    """A folder of this host.

    Args:
        folder: its path. The folder above it must exist, so that nothing is written below a missing mount.
    """

    def __init__(self, folder: Path) -> None:
        if not folder.is_absolute():
            raise Misconfigured(f"url: {folder} is not an absolute path", remedy="Write file:///path.")
        self._folder = folder

    def prepare(self) -> None:
        with self._told("cannot use the folder"):
            if not self._folder.is_dir():
                self._folder.mkdir(exist_ok=True)
                _flush_folder(self._folder.parent)
            _remove_abandoned(self._folder, _TEMPORARY)

    def names(self) -> list[str]:
        with self._told("cannot list"):
            return sorted(entry.name for entry in os.scandir(self._folder) if entry.is_file())

    def read(self, name: str) -> bytes | None:
        with self._told("cannot read", name):
            try:
                return (self._folder / name).read_bytes()
            except FileNotFoundError:
                return None

    @contextlib.contextmanager
    def opened(self, name: str) -> Iterator[BinaryIO]:
        with (self._folder / name).open("rb") as file, self._told("cannot read", name):
            yield file

    def replace(self, name: str, fill: Fill, before: Callable[[], None] = lambda: None) -> None:
        temporary = self._folder / f"{_TEMPORARY}{name}.{secrets.token_hex(4)}"
        try:
            with self._told("cannot write", name):
                with temporary.open("xb") as file:
                    _hold(file)
                    fill(file)
                    file.flush()
                    os.fsync(file.fileno())
                    before()
                    _rename(temporary, self._folder / name)
                # Without it, a power failure could bring the old file back after the version moved on.
                _flush_folder(self._folder)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise

    def remove(self, name: str) -> None:
        with self._told("cannot remove", name):
            try:
                (self._folder / name).unlink()
            except FileNotFoundError:
                return
            _flush_folder(self._folder)

    @contextlib.contextmanager
    def _told(self, doing: str, name: str = "") -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise failure(error, f"{doing} {self._folder / name}") from error


class ObjectStore:
    """A folder of an object store, through fsspec.

    A file is written on this host first, and then sent: so that rows that fail half-way never complete an upload.

    Args:
        protocol: such as `s3`.
        path: bucket and prefix.
        options: of the fsspec file system.
        shown: the address for messages.
        hidden: values that messages must not show.
    """

    def __init__(
        self, protocol: str, path: str, options: Mapping[str, Any], shown: str, hidden: Collection[str]
    ) -> None:
        self._path, self._shown, self._hidden = path.rstrip("/"), shown, hidden
        # Azure's file system refuses to replace a file unless it is told to.
        self._put = {"overwrite": True} if protocol in _AZURE else {}
        digest = hashlib.sha256(f"{protocol}://{self._path}".encode()).hexdigest()[:16]
        self._spool = f"{_TEMPORARY}sink-{digest}-"
        try:
            fsspec = importlib.import_module("fsspec")
            # Not the instance that another sink has, and no list of files from the past.
            self._files = fsspec.filesystem(
                protocol, skip_instance_cache=True, **({"use_listings_cache": False} | dict(options))
            )
        except ImportError as error:
            package = _PACKAGES[protocol] if error.name != "fsspec" else "'refold[files]'"
            raise Misconfigured(
                f"url: {protocol}:// needs a package that is not installed", remedy=f"Run `pip install {package}`."
            ) from None
        except Exception as error:
            raise failure(error, f"cannot open {shown}", hidden) from error

    def prepare(self) -> None:
        with contextlib.suppress(OSError):
            _remove_abandoned(Path(tempfile.gettempdir()), self._spool)

    def names(self) -> list[str]:
        with self._told("cannot list"):
            try:
                found = self._files.find(self._path, maxdepth=1)
            except FileNotFoundError as error:
                if _says_no_bucket(error):
                    raise
                return []
            return sorted(one.rsplit("/", 1)[-1] for one in found)

    def read(self, name: str) -> bytes | None:
        with self._told("cannot read", name):
            try:
                return bytes(self._files.cat_file(f"{self._path}/{name}"))
            except FileNotFoundError as error:
                if _says_no_bucket(error):
                    raise
                return None

    @contextlib.contextmanager
    def opened(self, name: str) -> Iterator[BinaryIO]:
        with contextlib.ExitStack() as stack:
            try:
                file = stack.enter_context(self._files.open(f"{self._path}/{name}", "rb"))
            except FileNotFoundError:
                raise
            except Exception as error:
                raise failure(error, f"cannot read {self._shown}/{name}", self._hidden) from error
            with self._told("cannot read", name):
                yield file

    def replace(self, name: str, fill: Fill, before: Callable[[], None] = lambda: None) -> None:
        with contextlib.ExitStack() as stack:
            try:
                file = stack.enter_context(tempfile.NamedTemporaryFile(prefix=self._spool))
                _hold(file)
                fill(file)  # type: ignore[arg-type]
                file.flush()
            except OSError as error:
                raise failure(error, f"cannot write below {tempfile.gettempdir()}") from error
            before()
            with self._told("cannot write", name):
                self._files.put_file(file.name, f"{self._path}/{name}", **self._put)

    def remove(self, name: str) -> None:
        with self._told("cannot remove", name), contextlib.suppress(FileNotFoundError):
            self._files.rm_file(f"{self._path}/{name}")

    @contextlib.contextmanager
    def _told(self, doing: str, name: str = "") -> Iterator[None]:
        where = f"{self._shown}/{name}" if name else self._shown
        try:
            yield
        except DeliveryError:
            raise
        except Exception as error:
            raise failure(error, f"{doing} {where}", self._hidden) from error


def _says_no_bucket(error: BaseException) -> bool:
    response: Any = getattr(error.__cause__, "response", None)
    return isinstance(response, dict) and response.get("Error", {}).get("Code") == "NoSuchBucket"


def _hold(file: IO[bytes]) -> None:
    """Lock an unfinished file, as long as it is open and its process lives. Not every file system has locks."""
    with contextlib.suppress(OSError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _remove_abandoned(folder: Path, beginning: str) -> None:
    """Remove the unfinished files of processes that are gone. Another that delivers at this moment holds its own."""
    for path in folder.iterdir():
        if path.name.startswith(beginning):
            with contextlib.suppress(OSError), path.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink()


def _rename(temporary: Path, target: Path) -> None:
    try:
        os.replace(temporary, target)
    except FileNotFoundError:
        raise Unavailable(f"the unfinished file of {target} was removed") from None


def _flush_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise  # those file systems cannot flush a folder, or need not
    finally:
        os.close(descriptor)
