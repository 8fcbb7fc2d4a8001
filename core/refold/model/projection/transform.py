"""Transforms: a pure Python function from one event to a row, to nothing, or to several rows.

    @transform(reads="events")
    def enriched_events(event: Event) -> Enriched: ...

The annotations define the rest. The fields of the parameter's model are the columns that the function needs of the
stream, and the fields of the returned model are the columns of the table. With `| None` the function may leave events
out, and with `list[…]` one event may become several rows.
"""

from __future__ import annotations

import hashlib
import inspect
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from operator import itemgetter
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, PydanticUserError

from refold.errors import DefinitionError
from refold.model.projection.column_types import column_type, holds_enum, optional
from refold.model.projection.failure import FunctionFailed
from refold.model.projection.files import read_text
from refold.model.projection.modules import Modules
from refold.model.projection.plan import LOG, Column, KeyPart, Plan

Function = TypeVar("Function", bound=Callable[..., Any])
Picker = Callable[[Mapping[str, Any]], tuple[Any, ...]]

_MARK = "__refold_transform__"


class Event(BaseModel):
    """An event as a transform receives it from the log. `ts` is an aware datetime in UTC."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    event_id: str
    user_id: str | None
    action: str
    ts: datetime
    metadata: dict[str, Any]
    version: int


def transform(*, reads: str = LOG, version: int = 1) -> Callable[[Function], Function]:
    """Mark a function as a transform: the projection that has the name of the function and of its file.

    Args:
        reads: the stream: `events`, or the name of an event-grain projection.
        version: raise it when something changes that refold does not see, such as an installed package or a file of
            data. refold sees changes of the function's file, and of the project's files that it imports.
    """

    def mark(function: Function) -> Function:
        setattr(function, _MARK, (reads, version))
        return function

    return mark


@dataclass(frozen=True, slots=True)
class Transform:
    """A loaded transform.

    Args:
        plan: how the projection is kept.
        function: the pure function of one event.
        takes: the model of its argument.
        gives: the model of its rows.
        many: whether it returns lists; its rows then have ids `<event_id>#<n>`.
        none: whether its annotation allows it to return None.
        types: the SQL type of each column except event_id, in the order of the model's fields.
        code: a hash of its version, its source, and the source of the helpers that it imports.
        upcast: the SQL of the metadata that it gets, if upcasters change the log's.
    """

    plan: Plan
    function: Callable[[Any], Any]
    takes: type[BaseModel]
    gives: type[BaseModel]
    many: bool
    none: bool
    types: tuple[str, ...]
    code: str
    upcast: str | None = None

    def rows(self, page: Iterable[Mapping[str, Any]]) -> Iterator[tuple[Any, ...]]:
        """Yield the rows that the function makes of a page: coordinates, event_id, then the model's fields.

        Args:
            page: rows of the stream as mappings, with txid, position, ordinal and event_id.

        Raises:
            FunctionFailed: the function raised an exception, a row does not fit its parameter's model, or it returned
                a value that its annotation does not allow.
        """
        validate = self.takes.__pydantic_validator__.validate_python
        wanted = self.plan.reads
        values = _picker([column.name for column in self.plan.columns if column.name != "event_id"])
        for row in page:
            try:
                answer = self.function(validate({name: row[name] for name in wanted}))
                self._check(answer)
            except Exception as error:
                raise FunctionFailed(error) from error
            if self.many:
                for at, one in enumerate(answer or ()):
                    ordinal = at if self.plan.stream == LOG else _paired(row["ordinal"], at)
                    yield self._row(one, row, ordinal, f"{row['event_id']}#{at}", values)
            elif answer is not None:
                yield self._row(answer, row, row["ordinal"], row["event_id"], values)

    def _check(self, answer: Any) -> None:
        if answer is None and (self.none or not self.many):
            return
        if self.many and not isinstance(answer, list):
            raise TypeError(f"{self.plan.name} declares a list, but returned {type(answer).__name__}")
        for one in answer if self.many else (answer,):
            if not isinstance(one, self.gives):
                raise TypeError(f"{self.plan.name} declares {self.gives.__name__}, but returned {type(one).__name__}")

    def _row(self, one: Any, row: Mapping[str, Any], ordinal: int, event_id: str, values: Picker) -> tuple[Any, ...]:
        return (row["txid"], row["position"], ordinal, event_id, *values(one.__dict__))


def _picker(names: Sequence[str]) -> Picker:
    """Return a function that takes these values out of a mapping, as a tuple; it runs in C for several names."""
    if len(names) > 1:
        return itemgetter(*names)
    return lambda mapping: tuple(mapping[name] for name in names)


def _paired(ordinal: int, at: int) -> int:
    """Return a number that is different for every pair (Cantor's pairing function).

    Without it, two rows of a list over a list could have the same coordinates.
    """
    return (ordinal + at) * (ordinal + at + 1) // 2 + at


def load(path: Path, streams: Mapping[str, tuple[str, ...]], modules: Modules | None = None) -> Transform:
    """Run a transform's file, read the annotations of its function, and return the transform.

    Args:
        path: the file; the projection has its name.
        streams: the streams that it may read, by name, with the columns of each.
        modules: the modules of the folder of projections; by default those of the file's own folder.

    Raises:
        DefinitionError: the file fails, or its function is not a transform.
    """
    modules = modules or Modules(path.parent)
    name = path.stem
    function = _function(modules, path, name)
    reads, version = getattr(function, _MARK)
    line = _line(function)

    def error(message: str, remedy: str | None = None) -> DefinitionError:
        return DefinitionError(message, path=path, line=line, remedy=remedy)

    if reads not in streams:
        raise error(f"there is no stream named {reads}", f"Streams: {', '.join(sorted(streams))}.")
    refused = _not_plain(function)
    if refused is not None:
        raise error(f"{name} {refused[0]}", refused[1])
    takes, gives, many, none = _annotations(function, name, error)
    wanted = tuple(takes.model_fields)
    for column in wanted:
        if column not in streams[reads]:
            raise error(f"{reads} has no column {column}", f"Columns: {', '.join(streams[reads])}.")
    columns, kinds = _columns(gives, many, error)
    plan = Plan(
        name=name,
        upkeep="transform",
        stream=reads,
        reads=wanted,
        key=(KeyPart("event_id", "event_id"),),
        columns=columns,
        description=inspect.cleandoc(function.__doc__ or ""),
        because="a Python function of one event",
    )
    parts = [f"{version}\n{read_text(path)}"]
    parts += [f"{helper}\n{text}" for helper, text in modules.helpers(path)]
    if any(holds_enum(info.annotation) for info in gives.model_fields.values()):
        # Enums were once stored by name: tables from that time must be rebuilt.
        parts.append("enums by value")
    code = hashlib.sha256("\x1f".join(parts).encode()).hexdigest()
    return Transform(plan, function, takes, gives, many, none, kinds, code)


def _function(modules: Modules, path: Path, name: str) -> Any:
    function = getattr(modules.run(path), name, None)
    if function is None or not hasattr(function, _MARK):
        raise DefinitionError(
            f"the file defines no transform named {name}",
            path=path,
            remedy=f"Give the function the name of the file and mark it: @transform() def {name}(event: Event) -> ….;"
            f" if the file only holds helpers, rename it to _{name}.py.",
        )
    return function


def _line(function: Any) -> int | None:
    code = getattr(inspect.unwrap(function), "__code__", None)
    return None if code is None else int(code.co_firstlineno)


def _not_plain(function: Any) -> tuple[str, str] | None:
    """Return why a marked object is not a plain function, and the remedy; None if it is one."""
    inner = inspect.unwrap(function)
    if not inspect.isfunction(inner):
        return f"is not a function but {type(inner).__name__}", "Mark a function: @transform() def …."
    if inspect.iscoroutinefunction(inner) or inspect.isasyncgenfunction(inner):
        return (
            "is async, but a transform is a function of its event alone and awaits nothing",
            "Write def instead of async def.",
        )
    if inspect.isgeneratorfunction(inner):
        return "has a yield, but a transform returns its rows", "Return a list, and declare it: -> list[Model]."
    return None


def _annotations(
    function: Any, name: str, error: Callable[..., DefinitionError]
) -> tuple[type[BaseModel], type[BaseModel], bool, bool]:
    """Return the models that a function takes and returns, whether it returns lists, and whether None is allowed."""
    try:
        hints = typing.get_type_hints(function)
    except (NameError, TypeError) as problem:
        raise error(
            f"an annotation cannot be resolved: {problem}",
            "Define or import it at the top of the file, not under `if TYPE_CHECKING`.",
        ) from problem
    parameters = list(inspect.signature(function).parameters)
    takes = hints.get(parameters[0]) if len(parameters) == 1 else None
    if not _is_model(takes):
        raise error(
            f"{name} must take one pydantic model",
            f"Write, for example: from refold import Event; def {name}(event: Event) -> Row: …",
        )
    gives, many = _returned(hints.get("return"))
    if gives is None:
        raise error(
            f"{name} must declare what it returns",
            "Annotate it with a pydantic model: `-> Model`, `-> Model | None` or `-> list[Model]`.",
        )
    assert takes is not None
    for model in (takes, gives):
        try:
            # An annotation may name a class that the file defines below the model.
            model.model_rebuild()
        except (NameError, PydanticUserError) as problem:
            raise error(
                f"an annotation of {model.__name__} cannot be resolved: {getattr(problem, 'message', problem)}",
                "Define or import it at the top of the file, not under `if TYPE_CHECKING`.",
            ) from problem
    return takes, gives, many, type(None) in typing.get_args(hints["return"])


def _columns(
    gives: type[BaseModel], many: bool, error: Callable[..., DefinitionError]
) -> tuple[tuple[Column, ...], tuple[str, ...]]:
    """Return the columns of a model, and the SQL type of each except event_id."""
    columns = []
    kinds = []
    for field, info in gives.model_fields.items():
        if field == "event_id":
            if many:
                raise error(
                    f"{gives.__name__}.event_id: refold makes the ids of rows that a list returns",
                    "Remove event_id from the model.",
                )
            columns.append(Column(field, field, info.description))
            continue
        if field in ("txid", "position", "ordinal") or "__" in field:
            raise error(
                f"{gives.__name__}.{field}: a column cannot be named {field}",
                "Use a name without a double underscore, and not ordinal, position, txid.",
            )
        kind = column_type(info.annotation)
        if kind is None:
            raise error(
                f"{gives.__name__}.{field}: there is no column type for {_shown(info.annotation)}",
                "Use str, int, bool, Decimal, float, datetime, date, UUID, an Enum or Literal of one of them, a model, "
                "a dict, a list or a tuple; each of these may be `| None`.",
            )
        columns.append(Column(field, field, info.description))
        kinds.append(kind)
    return tuple(columns), tuple(kinds)


def _shown(annotation: Any) -> str:
    """Return an annotation as it is written in Python."""
    plain = isinstance(annotation, type) and typing.get_origin(annotation) is None
    return annotation.__name__ if plain else str(annotation)


def _is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _returned(annotation: Any) -> tuple[type[BaseModel] | None, bool]:
    inner = optional(annotation)
    many = typing.get_origin(inner) is list
    if many:
        inner = next(iter(typing.get_args(inner)), None)
    return (inner, many) if _is_model(inner) else (None, many)
