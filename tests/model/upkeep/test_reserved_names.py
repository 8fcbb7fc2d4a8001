"""No name that a projection may give to a column, or to a query of its own, is taken for one of refold's."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from keyword import iskeyword
from pathlib import Path
from typing import Any

import psycopg
import pytest
from pydantic import BaseModel

from refold import append
from refold.engine.deployment.deploy import rebuild
from refold.engine.reconcile.compare import _BY_KEY
from refold.engine.reconcile.reconcile import reconcile
from refold.errors import DefinitionError
from refold.model.projection.plan import LOG_COLUMNS
from refold.model.projection.query import analyse
from refold.model.sql_text import ident
from tests.support.law import PROJECT, project, worker_connection
from tests.support.live import drain, make_live, wrong
from tests.support.making import events

from .test_golden import SHOWN, generated

KEYS = 24
"""Names that are the key of one projection; an index takes 32 columns."""
RESERVED = {"txid", "position", "ordinal", "event_id"}


def inner_names() -> list[str]:
    """Every name in the SQL that refold generates which a column could have; its key words are in upper case."""
    text = "\n".join([_BY_KEY, *map(generated, SHOWN)])
    text = re.sub(r"--.*|'[^']*'|%\(\w+\)s|::\w+|refold\w*\.\w+", " ", text)
    found = set(re.findall(r"(?<![\w.])([a-z_][a-z0-9_]*)\b(?!\s*\()", text))
    # And what a person would think of.
    found |= {"slice", "new", "old", "gone", "member", "hash", "rows", "kept", "excluded", "page", "upto", "delta", "e"}
    # Reserved words, of which some have a value where they stand without quotes.
    found |= {"user", "current_date", "order", "true", "null", "Mixed Case"}
    found |= {"written", "fresh", "touched", "relation", "build_id", "row", "key", "side", "d", "arrived", "before"}
    return sorted(name for name in found - RESERVED if "__" not in name)


NAMES = inner_names()
CHUNKS = [NAMES[at : at + KEYS] for at in range(0, len(NAMES), KEYS)]
MODEL = [name for name in NAMES if name.isidentifier() and not iskeyword(name) and not hasattr(BaseModel, name)]


def value(name: str) -> str:
    """Something else for each name."""
    return f"(version * {NAMES.index(name) + 1}) % {NAMES.index(name) % 3 + 2}"


def test_the_names_are_found() -> None:
    assert {"unread", "changes", "expected", "actual", "found", "full_page"} <= set(NAMES) | {"found"}
    assert len(NAMES) > 30


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A project in which every kind of projection has every name, as a key and as anything else."""

    def write(name: str, outputs: Sequence[str], source: str, tail: str = "") -> None:
        (tmp_path / f"{name}.sql").write_text(f"SELECT {', '.join(outputs)} FROM {source} {tail}")

    write("named", ["event_id", *(f"{value(name)} AS {ident(name)}" for name in NAMES)], "events")
    fields = "\n".join(f"    {name}: int" for name in MODEL)
    values = ", ".join(f"{name}={value(name).replace('version', 'event.version')}" for name in MODEL)
    (tmp_path / "made.py").write_text(
        "from pydantic import BaseModel\nfrom refold import Event, transform\n\n\n"
        f"class Made(BaseModel):\n{fields}\n\n\n"
        f'@transform()\ndef made(event: Event) -> Made:\n    """Python."""\n    return Made({values})\n'
    )
    for at, names in enumerate(CHUNKS):
        keys = [ident(name) for name in names]
        rest = [ident(name) for name in CHUNKS[at - 1]]
        group = f"GROUP BY {', '.join(keys)}"
        write(f"merged{at}", [*keys, *(f"sum({name}) AS {name}" for name in rest)], "named", group)
        write(f"failing{at}", [*keys, *(f"10 / (max({name}) + 1) AS {name}" for name in rest)], "named", group)
        write(f"bare{at}", keys, "named", group)
        counted = [f"count(DISTINCT {name}) AS {name}" for name in rest[:2]]
        write(f"sets{at}", [*keys, *counted, *(f"min({name}) AS {name}" for name in rest[2:])], "named", group)
        middles = [f"mode() WITHIN GROUP (ORDER BY {name}) AS {name}" for name in rest]
        write(f"lasting{at}", [*keys, *middles], "named", group)
        write(f"replaced{at}", [*keys, *middles], "named", f"{group} HAVING count(*) % 5 <> 0")
    return tmp_path


TRANSFORMS = {"made": "SELECT " + ", ".join(f"{value(name)} AS {ident(name)}" for name in MODEL) + " FROM events"}


@pytest.fixture
def worker(database_url: str) -> Iterator[psycopg.Connection[Any]]:
    with worker_connection(database_url) as conn:
        yield conn


def record(url: str, number: int, prefix: str) -> None:
    batch = events(number, prefix)
    for at, event in enumerate(batch):
        event["version"] = at % 5 + 1
    with psycopg.connect(url) as conn:
        append(conn, batch)


@pytest.mark.exhaustive
def test_every_name_in_every_kind_through_its_whole_life(
    database_url: str, admin: psycopg.Connection[Any], worker: psycopg.Connection[Any], folder: Path
) -> None:
    record(database_url, 20, "a")
    tables = make_live(database_url, folder)
    record(database_url, 13, "b")
    drain(database_url, folder)
    record(database_url, 3, "c")
    drain(database_url, folder)
    assert wrong(database_url, folder, TRANSFORMS) == {}
    report = reconcile(worker, folder)
    assert (report.drift, report.skipped, report.checksums) == (0, [], [])
    for name, table in tables.items():
        if name in ("named", "made"):
            admin.execute(f"UPDATE {table} SET {ident(MODEL[0])} = 77 WHERE event_id = 'a0'".encode())
        elif name.startswith("bare"):
            admin.execute(f"DELETE FROM {table}".encode())
        else:
            last = CHUNKS[int(name[-1]) - 1][-1]
            admin.execute(f"UPDATE {table} SET {ident(last)} = 1000".encode()) if "failing" not in name else None
    report = reconcile(worker, folder, depth="slice")
    assert report.skipped == []
    assert report.drift > 0
    assert wrong(database_url, folder, TRANSFORMS) == {}
    rebuild(worker, folder, ["named", "made"], lambda progress: None, cascade=True)
    assert wrong(database_url, folder, TRANSFORMS) == {}
    assert admin.execute("SELECT count(*) FROM refold.dead_letters").fetchone() == (0,)


def test_what_differs_is_shown_whole_whatever_its_columns_are_called(
    database_url: str, admin: psycopg.Connection[Any], worker: psycopg.Connection[Any], tmp_path: Path
) -> None:
    (tmp_path / "seen.sql").write_text("SELECT user_id AS d, count(*) AS side FROM events GROUP BY d")
    record(database_url, 3, "a")
    table = make_live(database_url, tmp_path)["seen"]
    admin.execute(f"UPDATE {table} SET side = 9 WHERE d = 'u1'".encode())
    [finding] = reconcile(worker, tmp_path).findings
    assert (finding.key, finding.before, finding.after) == ({"d": "u1"}, {"d": "u1", "side": 9}, {"d": "u1", "side": 1})


@pytest.mark.parametrize("name", ["page", "upto", "touched", "fresh", "gone", "written", "checksums", "e", "delta"])
def test_a_query_of_the_authors_does_not_come_before_refolds(database_url: str, tmp_path: Path, name: str) -> None:
    (tmp_path / "doings.sql").write_text(
        f"-- key: user_id\nWITH {name} AS (SELECT user_id, max(ts) AS last_at FROM events GROUP BY user_id)\n"
        f"SELECT user_id, last_at, count(*) AS n FROM {name} JOIN events USING (user_id) GROUP BY user_id, last_at"
    )
    make_live(database_url, tmp_path)
    for prefix in "ab":
        record(database_url, 7, prefix)
        drain(database_url, tmp_path)
        assert wrong(database_url, tmp_path, {}) == {}


def test_refolds_own_names_are_refused() -> None:
    with pytest.raises(DefinitionError, match="touched__"):
        analyse(
            "metric",
            "-- key: user_id\nWITH touched__ AS (SELECT user_id FROM events) SELECT user_id FROM touched__",
            {"events": LOG_COLUMNS},
        )


@pytest.mark.parametrize("text", ["{stream}", "stream__here", "stream__here_"])
def test_a_text_that_looks_like_a_place_for_the_stream_stays_what_it_is(
    database_url: str, tmp_path: Path, text: str
) -> None:
    (tmp_path / "texts.sql").write_text(
        f"SELECT user_id, mode() WITHIN GROUP (ORDER BY action || '{text}') AS said FROM events GROUP BY user_id"
    )
    record(database_url, 3, "a")
    make_live(database_url, tmp_path)
    record(database_url, 3, "b")
    drain(database_url, tmp_path)
    with psycopg.connect(database_url) as conn:
        said = conn.execute("SELECT said FROM metrics.texts ORDER BY 1").fetchall()
    assert said == [(f"{action}{text}",) for action in ("cart", "purchase", "view")]


def test_the_law_speaks_of_every_kind() -> None:
    assert {definition.plan.upkeep for definition in project().values()} == {
        "facts", "merge", "members", "funnel", "recompute", "transform",
    }  # fmt: skip
    assert PROJECT.is_dir()
