"""A folder of files as the receiver of a metric's rows: one file for each slice, replaced as a whole.

The folder holds `slice-NUMBER.ENDING` for each slice that has rows, and `_refold.json`.
Each step leaves either the old or the new file of a slice. The marker follows the files: a version in it was given.
"""

from __future__ import annotations

import itertools
import re
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, BinaryIO, ClassVar

from pydantic import BaseModel

from refold.sinks.kinds.files import options as file_options
from refold.sinks.kinds.files.csv_format import Csv
from refold.sinks.kinds.files.file_format import FileFormat, Row
from refold.sinks.kinds.files.jsonl_format import Jsonl
from refold.sinks.kinds.files.marker import NAME, Marker, check_owner, read_marker
from refold.sinks.kinds.files.packing import Packing
from refold.sinks.kinds.files.parquet_format import Parquet
from refold.sinks.kinds.files.store import Store, open_store
from refold.sinks.receiver import Change, Damaged, DeliveryError, Misconfigured, Owner, Shape, Unavailable, Version
from refold.sinks.secrets import is_reference, resolve, resolve_optional

_PING = ".refold-ping"
_SLICE = re.compile(r"slice-(-?\d+)(\.(?:parquet|(?:csv|jsonl)(?:\.gz)?))")


class Files:
    """The receiver.

    Args:
        options: the sink's options.
    """

    Options: ClassVar[type[BaseModel]] = file_options.Options
    needs_json: ClassVar[bool] = True

    def __init__(self, options: file_options.Options) -> None:
        self._options = options
        self._shown = options.url

    def open(self, shape: Shape, owner: Owner) -> Version | None:
        """Prepare the folder, write the new token into it, and return the version that it was given last.

        The version is 0.0 if it is new, or if it was given rows of another form: then all slices have to be delivered.

        Raises:
            Misconfigured: the folder cannot be used, or belongs to another sink.
            NotOwner: another database delivers to it.
            Unavailable: it cannot be reached now.
        """
        self._form = _form(shape, self._options)
        self._own = Marker.of(shape, self._options.format, self._options.compressed, owner.token)
        self._store = self._opened_store()
        self._store.prepare()
        self._stale = self._files_of_other_formats()
        found = self._marker(owner.accepts)
        self._write_marker(found.given if found is not None and self._own.same_form(found) else None)
        return self._given or Version(0, 0)

    def ping(self) -> str:
        """Write a file, remove it, and return what was done."""
        begin = time.monotonic()
        self._store.replace(_PING, lambda file: _write(file, b""))
        self._store.remove(_PING)
        return f"a file in {self._shown} written and removed in {(time.monotonic() - begin) * 1000:.0f} ms"

    def close(self) -> None:
        """Do nothing: no connection is held between calls."""

    def replace(self, version: Version, slice_: int, rows: Iterable[Change]) -> None:
        """Replace the file of a slice, at once or not at all; no rows: the file is removed.

        Args:
            version: of these rows.
            slice_: number of the slice.
            rows: its rows, in an order that is the same whenever the rows are.

        Raises:
            Refused: the format has no form for a value.
            Unavailable: the disk is full, the store is busy, or another process uses the folder meanwhile.
            Misconfigured: access is denied, or the bucket is gone.
            NotOwner: another database has taken the folder over.
        """
        failed: list[Exception] = []
        present = _present(rows, failed)
        first = next(present, None)
        name = self._name(slice_)
        if first is None:
            self._refuse_stale(version)
            self._store.remove(name)
        else:
            whole = itertools.chain([first], present)
            try:
                self._store.replace(
                    name, lambda file: self._form.write(file, whole), before=lambda: self._refuse_stale(version)
                )
            except DeliveryError:
                if failed:
                    raise failed[0] from None
                raise
        for other in self._stale.get(slice_, ()):
            self._store.remove(other)
        self._stale.pop(slice_, None)
        if self._given is None or self._given < version:
            self._write_marker(version)

    def slices(self) -> list[int]:
        """Return the numbers of the slices that the folder has files of, in order."""
        return sorted({slice_ for slice_, _, _ in self._slice_files()})

    def rows(self, slice_: int) -> Iterator[Row]:
        """Yield the rows of a slice as they were given: texts that Postgres reads, None for NULL.

        Without a file there are no rows.

        Raises:
            Damaged: the file is not what was delivered; deliver the slice again.
            Unavailable, Misconfigured: as for `replace`.
        """
        name = self._name(slice_)
        if slice_ in self._stale:
            raise Damaged(f"{self._shown} has the slice {slice_} in another format")
        try:
            with self._store.opened(name) as file:
                yield from self._form.read(file)
        except FileNotFoundError:
            return
        except Damaged as error:
            raise Damaged(f"{self._shown}/{name} is not what was delivered: {error}") from None

    def _name(self, slice_: int) -> str:
        return f"slice-{slice_}{self._form.ending}"

    def _slice_files(self) -> Iterator[tuple[int, str, str]]:
        """Yield number, ending and name of each file of a slice."""
        for name in self._store.names():
            found = _SLICE.fullmatch(name)
            if found is not None:
                yield int(found[1]), found[2], name

    def _files_of_other_formats(self) -> dict[int, list[str]]:
        """Return what is left of a format that the sink had before, by slice. Each goes when its slice is replaced."""
        found: dict[int, list[str]] = {}
        for slice_, ending, name in self._slice_files():
            if ending != self._form.ending:
                found.setdefault(slice_, []).append(name)
        return found

    def _marker(self, accepts: Callable[[str], bool]) -> Marker | None:
        content = self._store.read(NAME)
        if content is None:
            return None
        found = read_marker(content, f"{self._shown}/{NAME}")
        check_owner(found, self._own, self._shown, accepts)
        return found

    def _write_marker(self, version: Version | None) -> None:
        content = self._own.with_version(version).to_bytes()
        self._store.replace(NAME, lambda file: _write(file, content))
        self._given = version

    def _refuse_stale(self, version: Version) -> None:
        """See that no newer delivery was here: a process that was frozen past its lease must not replace its files."""
        found = self._marker(lambda held: held == self._own.owner)
        if found is None:
            raise Unavailable(f"{self._shown}/{NAME} was removed", remedy="Nothing: the sink opens the folder again.")
        if found.with_version(None) != self._own:
            raise Unavailable(f"{self._shown} has had files of another form since it was opened")
        if found.given is not None and version < found.given:
            raise Unavailable(f"{self._shown} was given version {found.given}, and this delivery is of {version}")
        self._given = found.given

    def _opened_store(self) -> Store:
        url, hidden = self._options.url, list[str]()
        if is_reference(url):
            hidden.append(resolve(url, "url"))
            try:
                url = file_options.checked_url(hidden[0])
            except ValueError as error:
                raise Misconfigured(f"url: {self._shown} holds no address", remedy=_sentence(str(error))) from None
        storage = _resolved(self._options.storage, "storage", hidden)
        return open_store(url, storage, self._shown, hidden)


def _present(rows: Iterable[Change], failed: list[Exception]) -> Iterator[Change]:
    """Yield the rows that are there. An error of whoever reads them is kept: it is none of the store."""
    try:
        yield from (change for change in rows if change.values is not None)
    except Exception as error:
        failed.append(error)
        raise


def _form(shape: Shape, options: file_options.Options) -> FileFormat:
    if options.format == "parquet":
        return Parquet(shape.columns, options.compressed)
    kind = Csv if options.format == "csv" else Jsonl
    return kind(shape.columns, Packing(options.compressed))


def _resolved(storage: dict[str, Any], what: str, hidden: list[str]) -> dict[str, Any]:
    """Return options of a file system with the values that references name, which are added to `hidden`."""
    found: dict[str, Any] = {}
    for name, value in storage.items():
        if isinstance(value, dict):
            found[name] = _resolved(value, f"{what}.{name}", hidden)
        elif isinstance(value, str):
            found[name] = resolve_optional(value, f"{what}.{name}")
            if is_reference(value):
                hidden.append(found[name])
        else:
            found[name] = value
    return found


def _write(file: BinaryIO, content: bytes) -> None:
    file.write(content)


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + "."
