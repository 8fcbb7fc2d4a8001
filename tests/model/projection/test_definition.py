"""A folder of projections as a graph: order, names, fingerprints."""

from __future__ import annotations

from pathlib import Path

import pytest

from refold.errors import DefinitionError
from refold.model.projection.definition import from_source, load_directory
from refold.model.projection.plan import LOG_COLUMNS

FACTS = "SELECT event_id, user_id, action FROM events"
COUNT = "SELECT action, count(*) AS n FROM {} GROUP BY action"
TRANSFORM = """
from pydantic import BaseModel
from refold import transform

class Row(BaseModel):
    action: str

@transform(reads={reads!r}, version=1)
def {name}(row: Row) -> Row:
    return row
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "projections"


def write(folder: Path, **files: str) -> Path:
    folder.mkdir(exist_ok=True)
    for name, text in files.items():
        suffix = ".py" if "@transform" in text else ".sql"
        (folder / (name + suffix)).write_text(text)
    return folder


def refused(folder: Path) -> DefinitionError:
    with pytest.raises(DefinitionError) as refusal:
        load_directory(folder)
    return refusal.value


# ---------------------------------------------------------------- the graph


def test_upstream_comes_first_whatever_the_names(folder: Path) -> None:
    write(
        folder,
        a_counts=COUNT.format("m_rows"),
        m_rows=TRANSFORM.format(name="m_rows", reads="z_facts"),
        z_facts=FACTS,
        _draft="not read at all",
    )
    definitions = load_directory(folder)
    assert list(definitions) == ["z_facts", "m_rows", "a_counts"]
    assert [definition.upstream for definition in definitions.values()] == [None, "z_facts", "m_rows"]
    assert [definition.language for definition in definitions.values()] == ["sql", "python", "sql"]
    assert definitions["a_counts"].path == folder / "a_counts.sql"


def test_a_circle_is_shown(folder: Path) -> None:
    write(folder, a="SELECT event_id FROM b", b="SELECT event_id FROM c", c=TRANSFORM.format(name="c", reads="a"))
    assert "in a circle: a → b → c → a" in str(refused(folder))


def test_a_stream_that_is_not_there_is_guessed(folder: Path) -> None:
    write(folder, facts=FACTS, counts=COUNT.format("fact"))
    assert "no stream named fact. Did you mean facts?" in str(refused(folder))
    assert refused(folder).path == folder / "counts.sql"


def test_a_grouped_projection_is_no_stream(folder: Path) -> None:
    write(folder, counts=COUNT.format("events"), more="SELECT action, sum(n) AS n FROM counts GROUP BY action")
    assert "counts is a metric" in str(refused(folder))
    assert refused(folder).path == folder / "more.sql"


def test_readers_see_the_columns_of_their_stream(folder: Path) -> None:
    write(folder, facts="SELECT action AS doing FROM events", counts=COUNT.format("facts"))
    assert "facts has no column action" in str(refused(folder))
    write(folder, counts="SELECT doing, count(DISTINCT event_id) AS n FROM facts GROUP BY doing")
    assert load_directory(folder)["counts"].plan.reads == ("event_id", "doing")


def test_there_must_be_a_folder(folder: Path) -> None:
    assert "refold init" in str(refused(folder).remedy)
    assert load_directory(write(folder)) == {}


# ---------------------------------------------------------------- names


@pytest.mark.parametrize("name", ["Counts", "per-day", "per__day", "1st", "größe", "a" * 33, "trailing_"])
def test_names_must_suit_postgres(folder: Path, name: str) -> None:
    write(folder, **{name: FACTS})
    assert f"{name} cannot be the name" in str(refused(folder))
    assert "lower-case words" in str(refused(folder).remedy)


@pytest.mark.parametrize("name", ["events", "freshness"])
def test_names_that_refold_needs_itself(folder: Path, name: str) -> None:
    write(folder, **{name: FACTS})
    assert f"the name {name} is taken" in str(refused(folder))


def test_two_files_of_one_name(folder: Path) -> None:
    write(folder, rows=FACTS)
    write(folder, rows=TRANSFORM.format(name="rows", reads="events"))
    assert "has the same name" in str(refused(folder))


def test_what_is_no_python_or_no_text(folder: Path) -> None:
    write(folder, rows="@transform\ndef (")
    assert refused(folder).line == 2
    (folder / "rows.py").unlink()
    (folder / "rows.sql").write_bytes(b"SELECT '\xff' AS x, event_id FROM events")
    assert "not UTF-8" in str(refused(folder))


# ---------------------------------------------------------------- fingerprints: what counts as a change


def fingerprint(source: str, above: str = "") -> str:
    return from_source("metric", source, {"events": LOG_COLUMNS}, {"events": above}).fingerprint


@pytest.mark.parametrize(
    "same",
    [
        "-- A comment.\nSELECT action, count(*) AS n FROM events GROUP BY action",
        "select   action,\n  COUNT(*) as n\nfrom events\ngroup by action;",
    ],
)
def test_layout_and_comments_do_not_count(same: str) -> None:
    assert fingerprint(same) == fingerprint(COUNT.format("events"))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (COUNT.format("events"), COUNT.format("events").replace("AS n", "AS m")),
        ("SELECT event_id, 'x' AS a FROM events", "SELECT event_id, 'X' AS a FROM events"),
        (
            "SELECT event_id, ts + interval '1 day 12:00:00' AS due FROM events",
            "SELECT event_id, ts + interval '1 day 13:00:00' AS due FROM events",
        ),
        (
            "-- key: user_id\nSELECT DISTINCT user_id, action FROM events",
            "-- key: user_id, action\nSELECT DISTINCT user_id, action FROM events",
        ),
    ],
)
def test_meaning_counts(one: str, other: str) -> None:
    assert fingerprint(one) != fingerprint(other)


def test_a_change_above_is_a_change_below(folder: Path) -> None:
    write(folder, facts=FACTS, rows=TRANSFORM.format(name="rows", reads="facts"), counts=COUNT.format("rows"))
    before = {name: definition.fingerprint for name, definition in load_directory(folder).items()}
    write(folder, facts=FACTS + " WHERE user_id IS NOT NULL")
    after = {name: definition.fingerprint for name, definition in load_directory(folder).items()}
    assert before.keys() == after.keys()
    assert not set(before.values()) & set(after.values())
