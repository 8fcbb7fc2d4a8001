"""Transforms: a pure Python function from one event to a row, to nothing, or to several rows.

    @transform(reads="events")
    def enriched_events(event: Event) -> Enriched: ...

The annotations say everything else: the parameter's model which columns of the stream it needs, the returned
model what the table looks like, `| None` that it may leave events out, `list[…]` that one event may become
several rows.
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
        version: raise it when something that the function uses has changed unseen, such as an installed package
            or a file of data; changes in its own file, and in those that it imports from beside it, are seen.
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
        none: whether it says that it may return None.
        types: SQL type of each column, in the order of the model's fields.
        code: hash of the version, the source, and that of the helpers it imports.
    """

    plan: Plan
    function: Callable[[Any], Any]
    takes: type[BaseModel]
    gives: type[BaseModel]
    many: bool
    none: bool
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
                for at, one in enumerate(answer or ()):
                    ordinal = at if self.plan.stream == LOG else _paired(row["ordinal"], at)
                    yield self._row(one, row, ordinal, f"{row['event_id']}#{at}", values)
            elif answer is not None:
                yield self._row(answer, row, row["ordinal"], row["event_id"], values)

    def _check(self, answer: Any) -> None:
        if answer is None and (self.none or not self.many):
            return
        if self.many and not isinstance(answer, list):
            raise TypeError(f"{self.plan.name} declares a list and returned {type(answer).__name__}")
        for one in answer if self.many else (answer,):
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


def load(path: Path, streams: Mapping[str, tuple[str, ...]], modules: Modules | None = None) -> Transform:
    """Runs a transform's file and reads its function's annotations.

    Args:
        path: the file; its name is the projection's.
        streams: what it may read, with the columns of each.
        modules: those of the folder of projections; by default of the file's own folder.

    Raises:
        DefinitionError: the file does not define what is needed; with a remedy.
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
        # They were once written by name.
        parts.append("enums by value")
    code = hashlib.sha256("\x1f".join(parts).encode()).hexdigest()
    return Transform(plan, function, takes, gives, many, none, kinds, code)


def _function(modules: Modules, path: Path, name: str) -> Any:
    function = getattr(modules.run(path), name, None)
    if function is None or not hasattr(function, _MARK):
        raise DefinitionError(
            f"there is no transform named {name} in it",
            path=path,
            remedy=f"Name the function like the file and mark it: @transform() def {name}(event: Event) -> …;"
            f" a file of helpers is called _{name}.py.",
        )
    return function


def _line(function: Any) -> int | None:
    code = getattr(inspect.unwrap(function), "__code__", None)
    return None if code is None else int(code.co_firstlineno)


def _not_plain(function: Any) -> tuple[str, str] | None:
    """Why something that is marked is no function to be called with an event, and the remedy."""
    inner = inspect.unwrap(function)
    if not inspect.isfunction(inner):
        return f"is no function but {type(inner).__name__}", "Mark a function: @transform() def …."
    if inspect.iscoroutinefunction(inner) or inspect.isasyncgenfunction(inner):
        return (
            "is async, and a transform is a function of its event alone: it waits for nothing",
            "Write def instead of async def.",
        )
    if inspect.isgeneratorfunction(inner):
        return "has a yield, and a transform returns its rows", "Return a list, and declare it: -> list[Model]."
    return None


def _annotations(
    function: Any, name: str, error: Callable[..., DefinitionError]
) -> tuple[type[BaseModel], type[BaseModel], bool, bool]:
    """What a function takes and gives, whether in lists, and whether it may give None."""
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
            f"{name} must take one pydantic model", "from refold import Event; def name(event: Event) -> Row: …"
        )
    gives, many = _returned(hints.get("return"))
    if gives is None:
        raise error(f"{name} must say what it returns: a pydantic model, `Model | None` or `list[Model]`")
    assert takes is not None
    for model in (takes, gives):
        try:
            # Its annotations may name what stands below it.
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
    """The columns that a model becomes, and the SQL type of each but event_id."""
    columns = []
    kinds = []
    for field, info in gives.model_fields.items():
        if field == "event_id":
            if many:
                raise error("the rows of a list get ids of their own; leave event_id out of the model")
            columns.append(Column(field, field, info.description))
            continue
        if field in ("txid", "position", "ordinal") or "__" in field:
            raise error(f"a column cannot be named {field}")
        kind = column_type(info.annotation)
        if kind is None:
            raise error(
                f"{gives.__name__}.{field}: there is no column type for {_shown(info.annotation)}",
                "Use str, int, bool, Decimal, float, datetime, date, UUID, an Enum or Literal of one of them, a model, "
                "a dict, list or tuple, or one of these | None.",
            )
        columns.append(Column(field, field, info.description))
        kinds.append(kind)
    return tuple(columns), tuple(kinds)


def _shown(annotation: Any) -> str:
    """An annotation as it is written."""
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
