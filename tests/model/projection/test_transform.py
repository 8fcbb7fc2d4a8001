"""Transforms: how a Python file is read, and what rows it makes of a page."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from refold.errors import DefinitionError
from refold.model.projection.failure import FunctionFailed
from refold.model.projection.plan import LOG_COLUMNS
from refold.model.projection.transform import Transform, load

STREAMS = {"events": LOG_COLUMNS, "items": ("event_id", "item")}
HEAD = """
import enum, typing, datetime, decimal, uuid
from pydantic import BaseModel, Field
from refold import Event, transform

class Row(BaseModel):
    event_id: str
    action: str = Field(description="What was done.")

class Item(BaseModel):
    item: str
"""
KINDS = """
import collections.abc, dataclasses, typing_extensions

class Word(enum.StrEnum):
    A = "a"

class Plain(enum.Enum):
    A = "a"

class Number(enum.Enum):
    ONE = 1

class Counted(enum.IntEnum):
    ONE = enum.auto()

class Share(enum.Enum):
    HALF = decimal.Decimal("0.50")

class Mixed(enum.Enum):
    ONE = 1
    A = "a"

@dataclasses.dataclass
class Point:
    x: int

class Pair(typing.NamedTuple):
    x: int

class Keys(typing_extensions.TypedDict):
    x: int

Positive = typing.Annotated[int, Field(gt=0)]
UserId = typing.NewType("UserId", str)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


def loaded(folder: Path, text: str) -> Transform:
    """The transform `made` of a file with this text under the usual imports and models."""
    path = folder / "made.py"
    path.write_text(HEAD + text)
    return load(path, STREAMS)


def event(event_id: str = "e", **fields: Any) -> dict[str, Any]:
    """A row of the log as a page has it."""
    return {
        "txid": 7, "position": 9, "ordinal": 0, "event_id": event_id, "user_id": None, "action": "view",
        "ts": datetime(2026, 3, 2, tzinfo=UTC), "metadata": {}, "version": 1,
    } | fields  # fmt: skip


# ---------------------------------------------------------------- reading the file


def test_the_annotations_say_everything(folder: Path) -> None:
    made = loaded(
        folder,
        '''
@transform()
def made(event: Event) -> Row | None:
    """Rows.

    More of it.
    """
''',
    )
    assert made.plan.upkeep == "transform"
    assert made.plan.stream == "events"
    assert made.plan.reads == LOG_COLUMNS
    assert [(column.name, column.comment) for column in made.plan.columns] == [
        ("event_id", None),
        ("action", "What was done."),
    ]
    assert made.plan.description == "Rows.\n\nMore of it."
    assert made.plan.stream_columns == ("event_id", "action")
    assert not made.many


def test_it_reads_only_what_its_argument_names(folder: Path) -> None:
    made = loaded(folder, "@transform(reads='items')\ndef made(row: Item) -> list[Row]: ...".replace("Row]", "Item]"))
    assert made.plan.stream == "items"
    assert made.plan.reads == ("item",)
    assert made.plan.stream_columns == ("event_id", "item")
    assert made.many


@pytest.mark.parametrize(
    ("annotation", "kind"),
    [
        ("str", 'text COLLATE "C"'),
        ("str | None", 'text COLLATE "C"'),
        ("typing.Optional[int]", "bigint"),
        ("bool", "boolean"),
        ("float", "double precision"),
        ("decimal.Decimal", "numeric"),
        ("datetime.datetime", "timestamptz"),
        ("datetime.date", "date"),
        ("datetime.timedelta", "interval"),
        ("uuid.UUID", "uuid"),
        ("bytes", "bytea"),
        ("dict[str, int]", "jsonb"),
        ("list[str]", "jsonb"),
        ("tuple[int, str] | None", "jsonb"),
        ("set[str]", "jsonb"),
        ("collections.abc.Sequence[str]", "jsonb"),
        ("collections.abc.Mapping[str, int]", "jsonb"),
        ("Item", "jsonb"),
        ("list[Item] | None", "jsonb"),
        ("Item | Row", "jsonb"),
        ("Point", "jsonb"),
        ("Pair", "jsonb"),
        ("Keys", "jsonb"),
        ("typing.Literal['a', 'b']", 'text COLLATE "C"'),
        ("typing.Literal['a', None]", 'text COLLATE "C"'),
        ("typing.Literal['a'] | typing.Literal['b']", 'text COLLATE "C"'),
        ("typing.Literal[Word.A]", 'text COLLATE "C"'),
        ("Word", 'text COLLATE "C"'),
        ("Plain | None", 'text COLLATE "C"'),
        ("Number", "bigint"),
        ("Counted", "bigint"),
        ("Share", "numeric"),
        ("Positive | None", "bigint"),
        ("UserId", 'text COLLATE "C"'),
    ],
)
def test_the_models_fields_are_columns(folder: Path, annotation: str, kind: str) -> None:
    text = (
        f"{KINDS}class Typed(BaseModel):\n    value: {annotation}\n@transform()\ndef made(event: Event) -> Typed: ..."
    )
    assert loaded(folder, text).types == (kind,)


@pytest.mark.parametrize(
    ("text", "message", "remedy"),
    [
        ("def made(event: Event) -> Row: ...", "no transform named made", "mark it"),
        ("@transform()\ndef other(event: Event) -> Row: ...", "no transform named made", "Give the function"),
        ("@transform()\ndef made(event): ...", "must take one pydantic model", "def made(event: Event)"),
        ("@transform()\ndef made(event: Event, more: Event) -> Row: ...", "must take one pydantic model", "Event"),
        ("@transform()\ndef made(event: Event): ...", "must declare what it returns", None),
        ("@transform()\ndef made(event: Event) -> dict: ...", "must declare what it returns", None),
        ("@transform()\ndef made(event: Event) -> Missing: ...", "fails when it is loaded: NameError", None),
        ("@transform()\ndef made(event: 'Missing') -> Row: ...", "cannot be resolved", None),
        ("@transform(reads='nothing')\ndef made(event: Event) -> Row: ...", "no stream named nothing", "Streams:"),
        ("@transform(reads='items')\ndef made(event: Event) -> Row: ...", "items has no column user_id", "Columns:"),
        ("@transform()\ndef made(event: Event) -> list[Row]: ...", "refold makes the ids", "Remove event_id"),
        (
            "class Bad(BaseModel):\n    position: int\n@transform()\ndef made(event: Event) -> Bad: ...",
            "named position",
            None,
        ),
        ("class Bad(BaseModel):\n    a__b: int\n@transform()\ndef made(event: Event) -> Bad: ...", "named a__b", None),
        (
            "class Bad(BaseModel):\n    x: object\n@transform()\ndef made(event: Event) -> Bad: ...",
            "no column type",
            "Use str",
        ),
        (
            "class Bad(BaseModel):\n    x: int | str\n@transform()\ndef made(event: Event) -> Bad: ...",
            "Bad.x: there is no column type for int | str",
            "Use str",
        ),
        (
            f"{KINDS}class Bad(BaseModel):\n    x: Mixed\n@transform()\ndef made(event: Event) -> Bad: ...",
            "no column type for Mixed",
            "Use str",
        ),
        (
            "class Bad(BaseModel):\n    x: 'Missing'\n@transform()\ndef made(event: Event) -> Bad: ...",
            "an annotation of Bad cannot be resolved",
            "not under `if TYPE_CHECKING`",
        ),
        ("@transform()\nasync def made(event: Event) -> Row: ...", "made is async", "Write def"),
        ("@transform()\ndef made(event: Event) -> Row:\n    yield event", "made has a yield", "-> list[Model]"),
        ("@transform()\nasync def made(event: Event) -> Row:\n    yield event", "made is async", "Write def"),
        ("made = transform()(type('Made', (), {})())", "made is not a function but Made", "Mark a function"),
        ("@transform()\ndef made(event: Event) -> typing.List: ...", "must declare what it returns", None),
        ("import _missing", "No module named '_missing'", "beside the file or in a folder above it, or install"),
        ("1 / 0", "fails when it is loaded: ZeroDivisionError", None),
    ],
)
def test_what_is_wrong_is_said(folder: Path, text: str, message: str, remedy: str | None) -> None:
    with pytest.raises(DefinitionError) as refused:
        loaded(folder, text)
    assert message in str(refused.value)
    assert refused.value.path == folder / "made.py"
    assert remedy is None or (refused.value.remedy is not None and remedy in refused.value.remedy)


def test_the_line_of_the_function_is_named(folder: Path) -> None:
    with pytest.raises(DefinitionError) as refused:
        loaded(folder, "@transform()\ndef made(event: Event) -> dict: ...")
    assert refused.value.line == len(HEAD.splitlines()) + 1


def test_the_code_is_the_file_and_the_version(folder: Path) -> None:
    text = "@transform(version={})\ndef made(event: Event) -> Row: ..."
    first, second = (loaded(folder, text.format(version)).code for version in (1, 2))
    assert first != second
    assert loaded(folder, text.format(1)).code == first
    assert loaded(folder, text.format(1) + "\n# A comment.").code != first


def test_without_helpers_the_code_is_what_it_always_was(folder: Path) -> None:
    text = HEAD + "@transform(version=3)\ndef made(event: Event) -> Row: ..."
    (folder / "made.py").write_text(text)
    # Else every transform would be built again after an update.
    assert load(folder / "made.py", STREAMS).code == hashlib.sha256(f"3\n{text}".encode()).hexdigest()


def test_annotations_may_wait(folder: Path) -> None:
    """`from __future__ import annotations`, quotes, and names that come later in the file."""
    text = """
class Later(BaseModel):
    when: datetime.datetime
    inner: Inner | None = None
    more: list[Inner] = []

class Inner(BaseModel):
    n: decimal.Decimal

@transform()
def made(event: Event) -> Later | None:
    return Later(when=event.ts, more=[Inner(n="1.10")])
"""
    (folder / "made.py").write_text("from __future__ import annotations\n" + HEAD + text)
    made = load(folder / "made.py", STREAMS)
    assert made.types == ("timestamptz", "jsonb", "jsonb")
    [row] = made.rows([event()])
    assert row[4:6] == (datetime(2026, 3, 2, tzinfo=UTC), None)


def test_what_stands_around_the_function_is_no_matter(folder: Path) -> None:
    text = "import functools\n@transform()\n@functools.wraps(len)\ndef made(event: Event) -> Item: ..."
    cached = "import functools\n@transform()\n@functools.cache\ndef made(event: Event) -> Item: ..."
    assert loaded(folder, cached).plan.reads == LOG_COLUMNS
    with pytest.raises(DefinitionError, match="made is not a function but builtin"):
        loaded(folder, text)


# ---------------------------------------------------------------- rows


ECHO = """
@transform()
def made(event: Event) -> Row | None:
    return None if event.action == "noise" else Row(event_id="mine", action=event.action)
"""
MANY = """
@transform()
def made(event: Event) -> list[Item]:
    return [Item(item=item) for item in event.metadata["items"]]
"""
LETTERS = """
@transform(reads="items")
def made(row: Item) -> list[Item]:
    return [Item(item=letter) for letter in row.item]
"""
TYPED = """
class Typed(BaseModel):
    amount: decimal.Decimal
    day: datetime.date
    more: dict[str, int] | None

@transform()
def made(event: Event) -> Typed:
    return Typed(amount="1.10", day=event.ts.date(), more=None)
"""


def test_a_row_has_the_coordinates_and_the_id_of_its_event(folder: Path) -> None:
    made = loaded(folder, ECHO)
    page = [event("a"), event("b", action="noise"), event("c", position=10, ordinal=3)]
    # The function does not choose the id: that is what lets an event in once.
    assert list(made.rows(page)) == [(7, 9, 0, "a", "view"), (7, 10, 3, "c", "view")]


def test_the_rows_of_a_list_are_numbered(folder: Path) -> None:
    made = loaded(folder, MANY)
    page = [event("a", metadata={"items": ["x", "y"]}), event("b", metadata={"items": []})]
    assert list(made.rows(page)) == [(7, 9, 0, "a#0", "x"), (7, 9, 1, "a#1", "y")]


def test_the_rows_of_a_list_over_a_list_do_not_tie(folder: Path) -> None:
    made = loaded(folder, LETTERS)
    page = [{**event(f"a#{at}"), "ordinal": at, "item": "xyz"} for at in range(20)]
    rows = list(made.rows(page))
    assert len({row[:3] for row in rows}) == len(rows) == 60
    assert len({row[3] for row in rows}) == 60
    # The numbers are of the row alone, not of the page it came in.
    assert list(made.rows(page[5:6])) == rows[15:18]


def test_a_list_may_be_none_if_that_is_declared(folder: Path) -> None:
    made = loaded(folder, "@transform()\ndef made(event: Event) -> list[Item] | None: ...")
    assert list(made.rows([event()])) == []


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("-> Row:\n    return {'action': 'x'}", "declares Row, but returned dict"),
        ("-> list[Item]:\n    return Item(item='x')", "declares a list, but returned Item"),
        ("-> list[Item]:\n    return None", "declares a list, but returned NoneType"),
        ("-> list[Item]:\n    return [None]", "declares Item, but returned NoneType"),
    ],
)
def test_what_is_returned_is_what_was_declared(folder: Path, body: str, message: str) -> None:
    made = loaded(folder, f"@transform()\ndef made(event: Event) {body}")
    with pytest.raises(FunctionFailed, match=message) as failed:
        list(made.rows([event()]))
    assert isinstance(failed.value.__cause__, TypeError)


def test_the_stream_must_fit_the_argument(folder: Path) -> None:
    made = loaded(folder, "@transform(reads='items')\ndef made(row: Item) -> Item:\n    return row")
    with pytest.raises(FunctionFailed) as failed:
        list(made.rows([{**event(), "item": None}]))
    assert isinstance(failed.value.__cause__, ValidationError)


def test_values_keep_their_types(folder: Path) -> None:
    [row] = loaded(folder, TYPED).rows([event()])
    assert row[4:] == (Decimal("1.10"), datetime(2026, 3, 2).date(), None)
    assert str(row[4]) == "1.10"
