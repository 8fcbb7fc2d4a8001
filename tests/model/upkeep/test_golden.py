"""The SQL that refold generates, as it runs: read the files in golden/ to review it.

`REFOLD_UPDATE_GOLDEN=1 pytest tests/model/upkeep/test_golden.py` writes them anew. A person reads the difference.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest

from refold.model.sql_text import EVERYTHING
from refold.model.stream.page_sql import LOG_STREAM, Stream
from refold.model.upkeep import recompute
from refold.model.upkeep.generate import generate
from refold.model.upkeep.statements import Base, Relation, Statements
from refold.model.upkeep.transform import statements as transform_statements
from tests.support.law import project

GOLDEN = Path(__file__).parent / "golden"
SHOWN = (
    "clicks",  # facts on the log
    "notable",  # facts over a list
    "totals",  # merge, every aggregate
    "seen",  # merge of keys alone
    "item_counts",  # merge over a list
    "visitors",  # members: three sets
    "medians",  # recompute, by its GROUP BY, over facts
    "days",  # recompute whose rows may go again
    "sessions",  # recompute by a declared key
    "funnels",  # funnel: two of them, one with its times
    "everybody",  # funnel, with what else can be merged, over the log
    "bought",  # recompute, of funnels in their other form
    "items",  # transform
)


def generated(name: str) -> str:
    """All statements of a build of a projection, under headings."""
    definition = project()[name]
    stream = (
        LOG_STREAM if definition.upstream is None else Stream(f"refold_builds.{definition.upstream}__1", ordinal=True)
    )
    if definition.transform is None:
        statements = generate(definition.plan, stream, f"{name}__1")
    else:
        statements = transform_statements(definition.transform, stream, f"{name}__1")
    sections = [f"-- {name}: {definition.plan.upkeep}, because: {definition.plan.because}"]
    sections += [f"-- {heading}\n{sql};" for heading, sql in (*_sections(statements), *_with_a_base(name, stream))]
    if definition.plan.upkeep == "recompute":
        sections.append(
            f"-- the key's index on the stream\n{recompute.key_index(definition.plan, stream, 'key_index')};"
        )
    return "\n\n".join(sections) + "\n"


def _sections(statements: Statements) -> Iterator[tuple[str, str]]:
    for field in fields(statements):
        value = getattr(statements, field.name)
        if isinstance(value, Base):
            yield from _base(value)
            continue
        if isinstance(value, bool) or not value or (field.name == "load_next" and value == statements.load):
            continue  # No statement, or every step is like the first.
        if callable(value):
            told = {"folded": "rows with the events in `arriving`", "standing": "rows of purged events, of `another`"}
            yield told[field.name], value("arriving" if field.name == "folded" else "another")
            continue
        for one in (value,) if isinstance(value, str) else value:
            if isinstance(one, Relation):
                yield f"audit of {one.table}", one.differences(EVERYTHING, EVERYTHING)
                yield f"healing of {one.table}: delete", one.delete()
                yield f"healing of {one.table}: insert", one.insert()
            else:
                yield field.name, one


def _base(base: Base) -> Iterator[tuple[str, str]]:
    yield from (("base: create", one) for one in base.create)
    yield "base: fold the events in `arriving`", base.fold("arriving")
    yield "base: undo", base.undo
    yield "base: settle", base.settle
    yield "base: copy that of `another`", base.copy("another")
    yield from (("base: load", one) for one in base.load)


def _with_a_base(name: str, stream: Stream) -> Iterator[tuple[str, str]]:
    """What differs once events have left the log."""
    definition = project()[name]
    if stream.ordinal or definition.plan.upkeep not in ("facts", "merge", "members"):
        return
    statements = generate(definition.plan, stream, f"{name}__1", based=True)
    for relation in statements.relations:
        yield f"with a base: audit of {relation.table}", relation.differences(EVERYTHING, EVERYTHING)
        yield f"with a base: healing of {relation.table}: insert", relation.insert()


@pytest.mark.parametrize("name", SHOWN)
def test_the_generated_sql_is_the_reviewed_one(name: str) -> None:
    path = GOLDEN / f"{name}.sql"
    if os.environ.get("REFOLD_UPDATE_GOLDEN"):
        path.write_text(generated(name), encoding="utf-8")
    assert generated(name) == path.read_text(encoding="utf-8")


def test_every_file_is_of_a_projection() -> None:
    assert sorted(path.stem for path in GOLDEN.iterdir()) == sorted(SHOWN)


def test_every_kind_is_shown() -> None:
    kinds = {definition.plan.upkeep for definition in project().values()}
    assert {project()[name].plan.upkeep for name in SHOWN} == kinds
