"""Transforms: a pure Python function from one event to a row, to nothing, or to several rows.

    @transform(reads="events")
    def enriched_events(event: Event) -> Enriched: ...

The annotations say everything else: the parameter's model which columns of the stream it needs, the returned
model what the table looks like, `| None` that it may leave events out, `list[…]` that one event may become
several rows.
"""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from operator import itemgetter
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID

from pydantic import BaseModel, ConfigDict

from refold.errors import DefinitionError
from refold.projections.plan import LOG, Column, KeyPart, Plan

Function = TypeVar("Function", bound=Callable[..., Any])
Picker = Callable[[Mapping[str, Any]], tuple[Any, ...]]

_MARK = "__refold_transform__"
_TYPES: dict[type, str] = {
    bool: "boolean",
    int: "bigint",
    float: "double precision",
    Decimal: "numeric",
    str: 'text COLLATE "C"',
    bytes: "bytea",
    datetime: "timestamptz",
    date: "date",
    time: "time",
    timedelta: "interval",
    UUID: "uuid",
    dict: "jsonb",
    list: "jsonb",
}


class FunctionFailed(Exception):
    """An event cannot be read, its function fails, or its rows cannot be written; the cause is what was raised."""

    def __init__(self, cause: Exception) -> None:
        super().__init__(f"{type(cause).__name__}: {cause}")


class Event(BaseModel):
    """An event as transforms receive it from the log. `ts` is an aware UTC datetime."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    event_id: str
    user_id: str | None
    action: str
    ts: datetime
    metadata: dict[str, Any]
    version: int


def transform(*, reads: str = LOG, version: int = 1) -> Callable[[Function], Function]:
    """Marks the function that is the projection named like it and its file.

    Args:
        reads: the stream, `events` or an event-grain projection.
        version: raise it when something that the function uses outside its file has changed; changes in
            the file itself are seen.
    """

    def mark(function: Function) -> Function:
        setattr(function, _MARK, (reads, version))
        return function

    return mark


@dataclass(frozen=True, slots=True)
class Transform:
    """A loaded transform.

    Args:
        plan: how it is kept.
        function: the pure function.
        takes: model of its argument.
        gives: model of its rows.
        many: whether it returns lists; its rows then have ids `<event_id>#<n>`.
        types: SQL type of each column, in the order of the model's fields.
        code: hash of the source and version.
    """

    plan: Plan
    function: Callable[[Any], Any]
    takes: type[BaseModel]
    gives: type[BaseModel]
    many: bool
    types: tuple[str, ...]
    code: str

    def rows(self, page: Iterable[Mapping[str, Any]]) -> Iterator[tuple[Any, ...]]:
        """The rows that a page of the stream becomes: coordinates, event_id, then the model's fields.

        Args:
            page: rows of the stream as mappings, with txid, position, ordinal and event_id.

        Raises:
            FunctionFailed: the function raised, the row is not what it takes, or it returned something else than it
                declares.
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
                for at, one in enumerate(answer):
                    ordinal = at if self.plan.stream == LOG else _paired(row["ordinal"], at)
                    yield self._row(one, row, ordinal, f"{row['event_id']}#{at}", values)
            elif answer is not None:
                yield self._row(answer, row, row["ordinal"], row["event_id"], values)

    def _check(self, answer: Any) -> None:
        if self.many and not isinstance(answer, list):
            raise TypeError(f"{self.plan.name} declares a list and returned {type(answer).__name__}")
        for one in answer if self.many else () if answer is None else (answer,):
            if not isinstance(one, self.gives):
                raise TypeError(f"{self.plan.name} declares {self.gives.__name__} and returned {type(one).__name__}")

    def _row(self, one: Any, row: Mapping[str, Any], ordinal: int, event_id: str, values: Picker) -> tuple[Any, ...]:
        return (row["txid"], row["position"], ordinal, event_id, *values(one.__dict__))


def _picker(names: Sequence[str]) -> Picker:
    """What takes these values out of a mapping, as a tuple; in C where there are several."""
    if len(names) > 1:
        return itemgetter(*names)
    return lambda mapping: tuple(mapping[name] for name in names)


def _paired(ordinal: int, at: int) -> int:
    """One number for the pair, different for every pair (Cantor): the rows of a list over a list must not tie."""
    return (ordinal + at) * (ordinal + at + 1) // 2 + at


def load(path: Path, streams: Mapping[str, tuple[str, ...]]) -> Transform:
    """Runs a transform's file and reads its function's annotations.

    Args:
        path: the file; its name is the projection's.
        streams: what it may read, with the columns of each.

    Raises:
        DefinitionError: the file does not define what is needed; with a remedy.
    """
    name = path.stem
    source = path.read_text(encoding="utf-8")
    function = _function(path, name)
    reads, version = getattr(function, _MARK)
    line = function.__code__.co_firstlineno
    if reads not in streams:
        raise DefinitionError(
            f"there is no stream named {reads}",
            path=path,
            line=line,
            remedy=f"Streams: {', '.join(sorted(streams))}.",
        )
    try:
        hints = typing.get_type_hints(function)
    except NameError as error:
        raise DefinitionError(f"an annotation cannot be resolved: {error}", path=path, line=line) from error
    parameters = list(inspect.signature(function).parameters)
    takes = hints.get(parameters[0]) if len(parameters) == 1 else None
    if not _is_model(takes):
        raise DefinitionError(
            f"{name} must take one pydantic model",
            path=path,
            line=line,
            remedy="from refold import Event; def name(event: Event) -> Row: …",
        )
    gives, many = _returned(hints.get("return"))
    if gives is None:
        raise DefinitionError(
            f"{name} must say what it returns: a pydantic model, `Model | None` or `list[Model]`",
            path=path,
            line=line,
        )
    wanted = tuple(takes.model_fields)  # type: ignore[union-attr]
    for column in wanted:
        if column not in streams[reads]:
            raise DefinitionError(
                f"{reads} has no column {column}",
                path=path,
                line=line,
                remedy=f"Columns: {', '.join(streams[reads])}.",
            )
    columns = []
    kinds = []
    for field, info in gives.model_fields.items():
        if field == "event_id":
            if many:
                raise DefinitionError(
                    "the rows of a list get ids of their own; leave event_id out of the model",
                    path=path,
                    line=line,
                )
            columns.append(Column(field, field, info.description))
            continue
        if field in ("txid", "position", "ordinal") or "__" in field:
            raise DefinitionError(f"a column cannot be named {field}", path=path, line=line)
        kind = _sql_type(info.annotation)
        if kind is None:
            raise DefinitionError(
                f"{gives.__name__}.{field}: there is no column type for {info.annotation}",
                path=path,
                line=line,
                remedy="Use str, int, bool, Decimal, float, datetime, date, UUID, dict or list, or one of them | None.",
            )
        columns.append(Column(field, field, info.description))
        kinds.append(kind)
    plan = Plan(
        name=name,
        upkeep="transform",
        stream=reads,
        reads=wanted,
        key=(KeyPart("event_id", "event_id"),),
        columns=tuple(columns),
        description=inspect.cleandoc(function.__doc__ or ""),
        because="a Python function of one event",
    )
    code = hashlib.sha256(f"{version}\n{source}".encode()).hexdigest()
    return Transform(plan, function, takes, gives, many, tuple(kinds), code)  # type: ignore[arg-type]


def _function(path: Path, name: str) -> Any:
    spec = importlib.util.spec_from_file_location(f"refold_projection_{name}", path)
    if spec is None or spec.loader is None:
        raise DefinitionError("not a Python file", path=path)
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise DefinitionError(
            f"the file fails when it is loaded: {type(error).__name__}: {error}", path=path
        ) from error
    function = getattr(module, name, None)
    if function is None or not hasattr(function, _MARK):
        raise DefinitionError(
            f"there is no transform named {name} in it",
            path=path,
            remedy=f"Name the function like the file and mark it: @transform() def {name}(event: Event) -> …",
        )
    return function


def _is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _optional(annotation: Any) -> Any:
    """The annotation without `| None`."""
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        rest = [part for part in typing.get_args(annotation) if part is not type(None)]
        return rest[0] if len(rest) == 1 else annotation
    return annotation


def _returned(annotation: Any) -> tuple[type[BaseModel] | None, bool]:
    inner = _optional(annotation)
    many = typing.get_origin(inner) is list
    if many:
        inner = typing.get_args(inner)[0]
    return (inner, many) if _is_model(inner) else (None, many)


def _sql_type(annotation: Any) -> str | None:
    inner = _optional(annotation)
    if typing.get_origin(inner) is typing.Literal:
        inner = type(typing.get_args(inner)[0])
    inner = typing.get_origin(inner) or inner
    if isinstance(inner, type) and issubclass(inner, Enum):
        inner = str if issubclass(inner, str) else inner
    if isinstance(inner, type) and issubclass(inner, BaseModel):
        return None
    for kind, sql in _TYPES.items():
        if inner is kind or (kind is str and isinstance(inner, type) and issubclass(inner, str)):
            return sql
    return None
