"""The store of the archive: a folder of this host, or of an object store, through pyarrow.fs.

A file of the log is put there once, under a name of its own, and is never written over. Only the marker is replaced.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Protocol
from urllib.parse import parse_qsl, urlsplit

from refold.engine.archive.failures import Missing, StoreFailed, arrow
from refold.errors import InputError

CHUNK = 4 << 20
"""Bytes in memory at once when a file is sent or fetched."""
_TEMPORARY = ".refold-"
"""How names of unfinished files begin."""
_PROTOCOLS = ("s3", "gs", "gcs", "abfs", "abfss")

Beat = Callable[[], None]
"""Gives a sign of life; called every few megabytes."""


@dataclass(frozen=True, slots=True)
class Content:
    """What a file was found to hold.

    Args:
        size: bytes.
        sha256: of all of them.
    """

    size: int
    sha256: bytes


class Store(Protocol):
    """Files by their names, which may have folders. Each method raises a StoreFailed."""

    def put(self, name: str, file: BinaryIO, beat: Beat) -> Content:
        """Put a new file there, which appears whole or not at all where the store can do that; return what was sent.

        Raises:
            StoreFailed: also if there is a file of that name.
        """
        ...

    def fetch(self, name: str, file: BinaryIO, beat: Beat) -> Content:
        """Copy a file into one of this host, and return what it holds.

        Raises:
            Missing: the store has no such file.
        """
        ...

    def size(self, name: str) -> int | None:
        """Return the size of a file, bytes; None if there is none."""
        ...

    def read(self, name: str) -> bytes | None:
        """Return the content of a small file; None if there is none."""
        ...

    def replace(self, name: str, content: bytes) -> None:
        """Put a small file in the place of the one of that name."""
        ...

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""
        ...

    def names(self, folder: str) -> dict[str, int]:
        """Return the names of all files below a folder, with their sizes in bytes."""
        ...


def open_store(location: str) -> Store:
    """Return the store at an address.

    Args:
        location: an absolute path, `file:///…`, or `s3://…`, `gs://…`, `abfs://…` as pyarrow.fs takes them. Passwords
            and keys come from the environment.

    Raises:
        InputError: the address is not one of a store, or holds a secret.
        StoreFailed: pyarrow is missing, or cannot open it.
    """
    protocol, mark, rest = location.partition("://")
    if not mark or protocol == "file":
        path = Path(rest if mark else location)
        if not path.is_absolute():
            raise InputError(f"{location} is not an absolute path", remedy="Write /path or s3://bucket/prefix.")
        return LocalStore(path)
    if protocol not in _PROTOCOLS:
        raise InputError(
            f"{protocol}:// is not known as a store", remedy="Use a path, s3://, gs:// or abfs:// (see pyarrow.fs)."
        )
    address = urlsplit(location)
    if address.password or any("secret" in name or "key" in name for name, _ in parse_qsl(address.query)):
        raise InputError(
            f"the address of the store holds a password, which everybody who may look would see: {address.hostname}",
            remedy="Leave it out, and set the variables that the store's SDK reads, such as AWS_SECRET_ACCESS_KEY.",
        )
    with _told(f"cannot open {location}"):
        files, root = arrow("pyarrow.fs").FileSystem.from_uri(location)
    return RemoteStore(files, root.rstrip("/"), f"{protocol}://{root.rstrip('/')}")


class LocalStore:
    """A folder of this host. The folder above it must exist, so that nothing is written below a missing mount."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def put(self, name: str, file: BinaryIO, beat: Beat) -> Content:
        target = self._folder / name
        with _told(f"cannot write {target}"):
            self._make(target.parent)
            self._tidy(target.parent)
            with self._temporary(target) as (temporary, copy):
                sent = _copy(file, copy, beat)
                copy.flush()
                os.fsync(copy.fileno())
                _give_name(temporary, target)
            _flush_folder(target.parent)
        return sent

    def fetch(self, name: str, file: BinaryIO, beat: Beat) -> Content:
        path = self._folder / name
        with _told(f"cannot read {path}"), path.open("rb") as source:
            return _copy(source, file, beat)

    def size(self, name: str) -> int | None:
        with _told(f"cannot read {self._folder / name}"):
            try:
                return (self._folder / name).stat().st_size
            except FileNotFoundError:
                return None

    def read(self, name: str) -> bytes | None:
        with _told(f"cannot read {self._folder / name}"):
            try:
                return (self._folder / name).read_bytes()
            except FileNotFoundError:
                return None

    def replace(self, name: str, content: bytes) -> None:
        target = self._folder / name
        with _told(f"cannot write {target}"):
            self._make(target.parent)
            with self._temporary(target) as (temporary, copy):
                copy.write(content)
                copy.flush()
                os.fsync(copy.fileno())
                os.replace(temporary, target)
            _flush_folder(target.parent)

    def remove(self, name: str) -> None:
        with _told(f"cannot remove {self._folder / name}"):
            (self._folder / name).unlink(missing_ok=True)

    def names(self, folder: str) -> dict[str, int]:
        with _told(f"cannot list {self._folder / folder}"):
            return {
                path.relative_to(self._folder).as_posix(): path.stat().st_size
                for path in sorted((self._folder / folder).rglob("*"))
                if path.is_file() and not path.name.startswith(_TEMPORARY)
            }

    def _make(self, folder: Path) -> None:
        if not folder.is_dir():
            if folder != self._folder:
                self._make(folder.parent)
            folder.mkdir(exist_ok=True)
            _flush_folder(folder.parent)

    @contextlib.contextmanager
    def _temporary(self, target: Path) -> Iterator[tuple[Path, BinaryIO]]:
        temporary = target.with_name(f"{_TEMPORARY}{secrets.token_hex(4)}")
        try:
            with temporary.open("xb") as copy:
                yield temporary, copy
        finally:
            temporary.unlink(missing_ok=True)

    @staticmethod
    def _tidy(folder: Path) -> None:
        """Remove what killed processes left unfinished; only one writes at a time."""
        for path in folder.iterdir():
            if path.name.startswith(_TEMPORARY):
                path.unlink(missing_ok=True)


class RemoteStore:
    """A folder of an object store.

    Args:
        files: pyarrow's file system.
        root: bucket and prefix.
        shown: the address for messages.
    """

    def __init__(self, files: Any, root: str, shown: str) -> None:
        self._files, self._root, self._shown = files, root, shown

    def put(self, name: str, file: BinaryIO, beat: Beat) -> Content:
        if self.size(name) is not None:
            raise StoreFailed(f"{self._shown}/{name} is there already")
        with _told(f"cannot write {self._shown}/{name}"), self._files.open_output_stream(self._path(name)) as target:
            return _copy(file, target, beat)

    def fetch(self, name: str, file: BinaryIO, beat: Beat) -> Content:
        with _told(f"cannot read {self._shown}/{name}"), self._files.open_input_stream(self._path(name)) as source:
            return _copy(source, file, beat)

    def size(self, name: str) -> int | None:
        with _told(f"cannot read {self._shown}/{name}"):
            found = self._files.get_file_info(self._path(name))
            return int(found.size) if found.is_file else None

    def read(self, name: str) -> bytes | None:
        with _told(f"cannot read {self._shown}/{name}"):
            if not self._files.get_file_info(self._path(name)).is_file:
                return None
            with self._files.open_input_stream(self._path(name)) as source:
                return bytes(source.read())

    def replace(self, name: str, content: bytes) -> None:
        with _told(f"cannot write {self._shown}/{name}"), self._files.open_output_stream(self._path(name)) as target:
            target.write(content)

    def remove(self, name: str) -> None:
        with _told(f"cannot remove {self._shown}/{name}"):
            if self._files.get_file_info(self._path(name)).is_file:
                self._files.delete_file(self._path(name))

    def names(self, folder: str) -> dict[str, int]:
        with _told(f"cannot list {self._shown}/{folder}"):
            selector = arrow("pyarrow.fs").FileSelector(self._path(folder), recursive=True, allow_not_found=True)
            found = self._files.get_file_info(selector)
            return {one.path.removeprefix(f"{self._root}/"): int(one.size) for one in found if one.is_file}

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"


def _copy(source: Any, target: Any, beat: Beat) -> Content:
    digest, size = hashlib.sha256(), 0
    while part := source.read(CHUNK):
        target.write(part)
        digest.update(part)
        size += len(part)
        beat()
    return Content(size, digest.digest())


@contextlib.contextmanager
def _told(doing: str) -> Iterator[None]:
    """Raise what a store says as a StoreFailed."""
    try:
        yield
    except StoreFailed:
        raise
    except FileNotFoundError as error:
        raise Missing(f"{doing}: {_words(error)}") from error
    except (OSError, ValueError, NotImplementedError) as error:
        # pyarrow's own errors are among them.
        raise StoreFailed(f"{doing}: {_words(error)}") from error


def _words(error: BaseException) -> str:
    return (getattr(error, "strerror", None) or str(error) or type(error).__name__).splitlines()[0][:300]


def _give_name(temporary: Path, target: Path) -> None:
    """Give a whole file its name, unless another has it."""
    try:
        os.link(temporary, target)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.ENOSYS) or target.exists():
            raise
        # A file system without hard links. No other attempt has this name.
        os.rename(temporary, target)


def _flush_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
