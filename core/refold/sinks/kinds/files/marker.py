"""The file `_refold.json` of a folder: whose it is, and the version that it was given last."""

from __future__ import annotations

from collections.abc import Callable

from pydantic import BaseModel, ConfigDict, ValidationError

from refold.sinks.receiver import Misconfigured, NotOwner, Shape, Version

NAME = "_refold.json"
"""Readers of a folder pass over names that begin with an underscore."""


class _Column(BaseModel):
    name: str
    type: str


class Marker(BaseModel):
    """What the file holds.

    Args:
        refold: version of this form.
        sink: name of the sink.
        projection: name of the metric.
        owner: the token of the database that delivers.
        format: the files' format.
        compression: and compression.
        columns: names and SQL types, in order.
        key: names of the columns that identify a row.
        version: epoch and number of the version that was given last; None before the first.
    """

    model_config = ConfigDict(frozen=True)

    refold: int = 1
    sink: str
    projection: str
    owner: str
    format: str
    compression: str
    columns: tuple[_Column, ...]
    key: tuple[str, ...]
    version: tuple[int, int] | None = None

    @classmethod
    def of(cls, shape: Shape, format: str, compression: str, owner: str) -> Marker:
        """Return the marker of a folder that no version was given to."""
        return cls(
            sink=shape.sink,
            projection=shape.projection,
            owner=owner,
            format=format,
            compression=compression,
            columns=tuple(_Column(name=column.name, type=column.type) for column in shape.columns),
            key=shape.key,
        )

    @property
    def given(self) -> Version | None:
        """Return the version that the folder was given last."""
        return None if self.version is None else Version(*self.version)

    def same_form(self, other: Marker) -> bool:
        """Return whether files under another marker have the form of those under this one."""
        return self.with_version(None) == other.model_copy(update={"version": None, "owner": self.owner})

    def with_version(self, version: Version | None) -> Marker:
        """Return the marker with another version."""
        return self.model_copy(update={"version": None if version is None else tuple(version)})

    def to_bytes(self) -> bytes:
        """Return the content of the file."""
        return (self.model_dump_json(indent=2) + "\n").encode()


def read_marker(content: bytes, where: str) -> Marker:
    """Return the marker that a file holds.

    Args:
        content: of the file.
        where: the file's address, for messages.

    Raises:
        Misconfigured: it is not refold's, or a newer refold wrote it.
    """
    try:
        marker = Marker.model_validate_json(content)
    except ValidationError:
        raise Misconfigured(
            f"{where} is not a file of refold", remedy="Give the sink a folder of its own, or remove this file."
        ) from None
    if marker.refold != 1:
        raise Misconfigured(f"{where} was written by a newer refold", remedy="Deliver with that version of refold.")
    return marker


def check_owner(found: Marker, own: Marker, where: str, accepts: Callable[[str], bool]) -> None:
    """See that a folder belongs to this sink of this database.

    Args:
        found: the marker of the folder.
        own: the sink's own.
        where: the folder's address, for messages.
        accepts: returns whether the folder may hold a token.

    Raises:
        Misconfigured: it belongs to another sink, or holds another metric.
        NotOwner: another database delivers to it.
    """
    if (found.sink, found.projection) != (own.sink, own.projection):
        raise Misconfigured(
            f"{where} holds {found.projection} of the sink {found.sink}",
            remedy=f"Give the sink {own.sink} a folder of its own; or empty this one, if nobody needs it.",
        )
    if not accepts(found.owner):
        raise NotOwner(
            f"another database delivers the sink {own.sink} to {where}",
            remedy=f"If this database is a copy, give its sink another folder. If it takes over: "
            f"`refold sinks claim {own.sink}`.",
        )
