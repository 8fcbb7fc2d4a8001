"""The contract between a sink and its receiver, which every kind of sink implements.

A kind is a class with the options of its part of the sink's file (a pydantic model), registered as an entry point of
the group `refold.sinks`. A sink calls its receiver from one thread, in the order of versions, and holds no transaction
meanwhile. It may call again with what was given before: after a crash, or because an answer was lost.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, Protocol

from pydantic import BaseModel

from refold.errors import RefoldError
from refold.model.erasure import ErasureNotice


class Version(NamedTuple):
    """The state of the metric that a delivery shows. Versions of a sink only grow.

    Args:
        epoch: grows when another build of the metric is shown, after a restore, and when slices are compared.
        number: grows with each transaction that changes rows of the build.
    """

    epoch: int
    number: int

    def __str__(self) -> str:
        return f"{self.epoch}.{self.number}"


class Column(NamedTuple):
    """A column of the metric: its name, and its type as SQL, such as `numeric(10,2)` or `text[]`."""

    name: str
    type: str


@dataclass(frozen=True, slots=True)
class Shape:
    """The form of the rows that a sink delivers.

    Args:
        sink: name of the sink.
        projection: name of the metric.
        columns: the columns of its rows, in order.
        key: names of the columns that identify a row.
    """

    sink: str
    projection: str
    columns: tuple[Column, ...]
    key: tuple[str, ...]


ANY = "*"
"""Among the accepted tokens: a person has claimed the receiver, whoever delivered to it."""


class Owner(NamedTuple):
    """What tells a database from a copy of it: a token that changes whenever a receiver is opened.

    Args:
        token: the new token.
        accepted: the tokens that the receiver may hold by now.
    """

    token: str
    accepted: frozenset[str]

    def accepts(self, held: str) -> bool:
        """Return whether a receiver with this token belongs to the database."""
        return ANY in self.accepted or held == self.token or held in self.accepted


class Change(NamedTuple):
    """A row as it is at a version, or that it is gone.

    Args:
        key: the columns of the key as the text of a JSON object.
        slice: number of the slice that the row belongs to.
        values: the columns as texts that Postgres writes and reads, None for NULL; None if the row is gone.
        json: the row as the text of a JSON object; empty if the kind does not need it, or if the row is gone.
    """

    key: str
    slice: int
    values: tuple[str | None, ...] | None
    json: str = ""


class Checksum(NamedTuple):
    """Rows of a slice, and the sum of their hashes."""

    rows: int
    hash: int


class Receiver(Protocol):
    """What all receivers have. A receiver is opened once, used by one thread, and closed."""

    Options: ClassVar[type[BaseModel]]
    """The keys of its part of the sink's file; unknown keys are refused."""

    needs_json: ClassVar[bool]
    """Whether it needs `Change.json`."""

    def open(self, shape: Shape, owner: Owner) -> Version | None:
        """Connect and prepare; return the version that the receiver was given last, None if it cannot tell.

        Args:
            shape: the form of the rows.
            owner: who delivers. A receiver that can keep a text keeps `owner.token`, and compares it at every delivery.

        Raises:
            NotOwner: the receiver holds a token that is not among `owner.accepted`.
            DeliveryError: as for `deliver`.
        """
        ...

    def ping(self) -> str:
        """Deliver something that changes nothing, and return what the receiver answered, in a few words.

        Raises:
            DeliveryError: as for `deliver`.
        """
        ...

    def close(self) -> None:
        """Let go of connections; never fails."""
        ...


class KeyedReceiver(Receiver, Protocol):
    """A receiver that takes single rows by their keys: webhooks, tables, topics."""

    remembers: ClassVar[bool]
    """Whether it can find the rows that it has of a slice (`sweep`). For one that cannot, the sink keeps the keys that
    it has delivered."""

    def deliver(self, version: Version, changes: Sequence[Change]) -> None:
        """Deliver rows; return when the receiver has confirmed all of them.

        Raises:
            DeliveryError: one of its subclasses says what the sink does then.
        """
        ...

    def sweep(self, version: Version, slice_: int) -> None:
        """Remove the rows of a slice that were delivered under an older version: the sink has just given all of it."""
        ...


class SlicedReceiver(Receiver, Protocol):
    """A receiver that takes whole slices: files."""

    def replace(self, version: Version, slice_: int, rows: Iterable[Change]) -> None:
        """Replace what the receiver has of a slice, at once or not at all; no rows: the slice is gone.

        Raises:
            DeliveryError: as for `deliver`.
        """
        ...


class Audited(Protocol):
    """A receiver whose rows can be read back."""

    def slices(self) -> Collection[int]:
        """Return the slices of which the receiver has rows."""
        ...

    def checksums(self, slices: Sequence[int] | None) -> Mapping[int, Checksum]:
        """Return the checksums of what the receiver has, by slice, computed from its rows as Postgres hashes them."""
        ...


class Readable(Protocol):
    """A receiver whose rows can be read back, but that cannot hash them: the audit does."""

    def slices(self) -> Collection[int]:
        """Return the slices of which the receiver has rows."""
        ...

    def rows(self, slice_: int) -> Iterable[tuple[str | None, ...]]:
        """Yield the rows of a slice as they were given.

        Raises:
            Damaged: what the receiver has is not what was delivered.
            DeliveryError: as for `deliver`.
        """
        ...


class Told(Protocol):
    """A receiver that is told of erasures, because nobody knows what it did with former rows."""

    def tell(self, erased: ErasureNotice) -> None:
        """Tell of an erasure, whose keys the receiver has been given by now.

        Raises:
            DeliveryError: as for `deliver`.
        """
        ...


class DeliveryError(RefoldError):
    """A delivery failed.

    Args:
        message: what the receiver said, without secrets; one line.
        status: the status of the answer, such as `503` or an SQLSTATE.
        remedy: what to do.
    """

    def __init__(self, message: str, *, status: str = "", remedy: str | None = None) -> None:
        super().__init__(message, remedy=remedy)
        self.status = status


class Unavailable(DeliveryError):
    """The receiver cannot take it now: the sink tries again, for as long as it takes.

    Args:
        retry_after: seconds that the receiver asked to wait, or None.
    """

    def __init__(
        self, message: str, *, status: str = "", remedy: str | None = None, retry_after: float | None = None
    ) -> None:
        super().__init__(message, status=status, remedy=remedy)
        self.retry_after = retry_after


class Misconfigured(DeliveryError):
    """No row can be delivered until a person changes something: a secret, an address, a table. Nothing is given up."""


class Refused(DeliveryError):
    """The receiver refuses something of these rows. The sink finds the row by halves; the others go on."""


class TooLarge(DeliveryError):
    """The receiver takes fewer rows or bytes at once; the sink delivers smaller batches for a while."""


class Gone(DeliveryError):
    """The receiver asks never to be called again: the sink stops until a person resumes it."""


class NotOwner(DeliveryError):
    """Another database delivers to this receiver: this one may be a copy. It delivers nothing until a person claims
    it."""


class Damaged(DeliveryError):
    """What the receiver has of a slice is not what was delivered: somebody else has changed it, or it is of an older
    form of the metric. The slice has to be delivered again."""
