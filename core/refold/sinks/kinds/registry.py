"""The kinds of sinks that are installed: refold's own, and those of other packages (entry points `refold.sinks`)."""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points
from typing import Any

from pydantic import ValidationError

from refold.errors import InputError, RefoldError
from refold.model.sink.sink_file import SinkFile, options_of
from refold.sinks.receiver import KeyedReceiver, SlicedReceiver

GROUP = "refold.sinks"
_OWN = {
    "files": "refold.sinks.kinds.files:Files",
    "postgres": "refold.sinks.kinds.postgres:PostgresReceiver",
    "webhook": "refold.sinks.kinds.webhook.receiver:WebhookReceiver",
}

Kind = type[KeyedReceiver] | type[SlicedReceiver]
AnyReceiver = KeyedReceiver | SlicedReceiver


def kinds() -> dict[str, EntryPoint]:
    """Return the entry points of all kinds, by name."""
    own = [EntryPoint(name, value, GROUP) for name, value in _OWN.items()]
    return {one.name: one for one in (*own, *sorted(entry_points(group=GROUP), key=lambda one: one.name))}


def kind(name: str) -> Kind:
    """Return the class of a kind.

    Raises:
        InputError: the kind is not installed here, or a package that it needs is missing.
    """
    found = kinds().get(name)
    if found is None:
        raise InputError(f"the kind {name} of sinks is not installed here", remedy="Install the package that has it.")
    try:
        made: Kind = found.load()
    except ImportError as error:
        raise InputError(
            f"the kind {name} of sinks needs the package {error.name}", remedy=f"pip install 'refold[{name}]'"
        ) from error
    return made


def receiver(definition: str) -> AnyReceiver:
    """Return the receiver of a sink that was deployed, not opened yet."""
    name, options = options_of(definition)
    made = kind(name)
    return made(made.Options(**options))  # type: ignore[call-arg]


def reads_back(name: str) -> bool:
    """Return whether what a receiver of a kind has can be read back.

    Raises:
        InputError: as for `kind`.
    """
    made = kind(name)
    return hasattr(made, "checksums") or hasattr(made, "rows")


def mistakes_of(file: SinkFile) -> list[RefoldError]:
    """Return what is wrong with the options in a file."""
    try:
        made = kind(file.kind)
    except InputError as error:
        return [file.wrong("kind", str(error), error.remedy)]
    try:
        made.Options(**file.options)
    except ValidationError as error:
        return [_wrong(file, made, one) for one in error.errors()]
    return []


def _wrong(file: SinkFile, made: Kind, one: Any) -> RefoldError:
    key = ".".join([file.kind, *(str(part) for part in one["loc"] if isinstance(part, str))])
    fields = made.Options.model_fields
    known = ", ".join(field.alias or name for name, field in fields.items())
    match one["type"]:
        case "extra_forbidden":
            return file.wrong(key, "is not known", f"The keys of [{file.kind}] are {known}.")
        case "missing":
            field = fields.get(str(one["loc"][-1]))
            return file.wrong(key, "is missing", None if field is None else field.description)
        case _:
            return file.wrong(key, str(one["msg"]).removeprefix("Value error, "))
