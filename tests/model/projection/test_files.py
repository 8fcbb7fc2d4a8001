"""Files of a project as editors and operating systems leave them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from refold.errors import DefinitionError
from refold.model.projection.definition import Definition, load_directory
from refold.model.projection.files import Overlooked, overlooked, project_files, read_text

BOM = b"\xef\xbb\xbf"
FACTS = "SELECT event_id, user_id, action FROM events"
COUNT = "SELECT action, count(*) AS n FROM events GROUP BY action"
LEVELS = "SELECT user_id, rank() OVER (PARTITION BY user_id ORDER BY ts) AS r FROM events"
TRANSFORM = """
from pydantic import BaseModel
from refold import Event, transform

class Row(BaseModel):
    action: str

@transform()
def seen(event: Event) -> Row: ...
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "projections"


def load(folder: Path, files: Mapping[str, str | bytes]) -> dict[str, Definition]:
    """The projections of a folder with these files."""
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return load_directory(folder)


def refused(folder: Path, files: Mapping[str, str | bytes]) -> DefinitionError:
    with pytest.raises(DefinitionError) as refusal:
        load(folder, files)
    return refusal.value


def test_a_byte_order_mark_is_no_part_of_the_text(folder: Path) -> None:
    with_mark = load(folder / "a", {"n.sql": BOM + COUNT.encode(), "seen.py": BOM + TRANSFORM.encode()})
    without = load(folder / "b", {"n.sql": COUNT, "seen.py": TRANSFORM})
    assert {name: one.fingerprint for name, one in with_mark.items()} == {
        name: one.fingerprint for name, one in without.items()
    }
    assert with_mark["n"].source == COUNT
    assert with_mark["seen"].source == TRANSFORM


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (COUNT.encode("utf-16"), "not UTF-8"),
        (b"-- caf\xe9\n" + COUNT.encode(), "not UTF-8"),
        (COUNT.encode("utf-16-le"), "n.sql:1: holds a NUL character"),
    ],
)
def test_other_encodings_are_refused_with_the_remedy(folder: Path, text: bytes, message: str) -> None:
    refusal = refused(folder, {"n.sql": text})
    assert message in str(refusal)
    assert refusal.remedy == "Save it as UTF-8."


def test_a_file_that_cannot_be_read_is_named(folder: Path) -> None:
    folder.mkdir()
    (folder / "n.sql").symlink_to(folder / "gone")
    assert str(refused(folder, {})) == f"{folder / 'n.sql'}: cannot be read: No such file or directory"


def test_which_files_define_something(folder: Path) -> None:
    found = load(
        folder,
        {
            "b.SQL": COUNT,
            "a/c.sql": COUNT,
            "a/deeper/seen.Py": TRANSFORM,
            # What macOS, editors and the author leave beside.
            "._b.sql": b"\0\x05\x16\x07",
            ".b.sql.swp": b"\0",
            ".draft.sql": "SELECT",
            "b.sql~": "SELECT",
            "b.sql.orig": "SELECT",
            "README.md": "SELECT",
            "_draft.sql": "SELECT",
            "_drafts/b.sql": "SELECT",
            ".git/b.sql": "SELECT",
            "__pycache__/seen.py": "SELECT",
        },
    )
    assert [(name, one.path and str(one.path.relative_to(folder))) for name, one in found.items()] == [
        ("b", "b.SQL"),
        ("c", "a/c.sql"),
        ("seen", "a/deeper/seen.Py"),
    ]
    assert [one.language for one in found.values()] == ["sql", "sql", "python"]


SOMEBODY_MEANS = {
    "daily.sql.txt": "daily.sql",
    "DAILY.SQL.TXT": "DAILY.SQL",
    "deeper/daily.sql.txt": "daily.sql",
    "daily.sql ": "daily.sql",
    "daily.sql.docx": "daily.sql",
    "daily.sql.1": "daily.sql",
    "daily.py.txt": "daily.py",
    "daily.psql": "daily.sql",
    "daily.pgsql": "daily.sql",
    "daily.txt": "daily.sql",
    "daily": "daily.sql",
}
NOBODY_MEANS = [
    "daily.sql~", "#daily.sql#", ".#daily.sql", ".daily.sql.swp", "daily.sql.swp", "daily.sql.orig", "daily.sql.rej",
    "daily.sql.bak", "daily.sql.tmp", "daily.sql.old", "daily.sql.disabled", "daily.sql.example", "daily.pyc",
    "_daily.sql.txt", "daily.csv", "README.md", "Makefile",
]  # fmt: skip


@pytest.mark.parametrize("name", SOMEBODY_MEANS)
def test_what_somebody_may_mean_is_not_overlooked_in_silence(folder: Path, name: str) -> None:
    load(folder, {name: f"-- What is done.\n{COUNT}", "n.sql": COUNT})
    assert overlooked(folder, ".sql", ".py") == [Overlooked(folder / name, SOMEBODY_MEANS[name])]


def test_what_nobody_means_is(folder: Path) -> None:
    load(
        folder,
        {
            **dict.fromkeys(NOBODY_MEANS, COUNT),
            "Makefile": "all:",
            "n.sql": COUNT,
            "t.PY": TRANSFORM.replace("seen", "t"),
        },
    )
    load(
        folder,
        {"notes.txt": "With all of it from June on", "notes": "Select the best.", "image": b"\xff\xfe\0"},
    )
    assert overlooked(folder, ".sql", ".py") == []
    assert overlooked(folder / "gone", ".sql") == []


def test_a_folder_that_leads_back_is_no_circle(folder: Path) -> None:
    folder.mkdir()
    (folder / "again").symlink_to(folder, target_is_directory=True)
    assert list(load(folder, {"n.sql": COUNT})) == ["n"]


@pytest.mark.parametrize("second", ["n.SQL", "n.py", "sub/n.sql"])
def test_a_name_is_taken_once_in_all_folders(folder: Path, second: str) -> None:
    refusal = refused(
        folder, {"n.sql": COUNT, second: TRANSFORM.replace("seen", "n") if second.endswith("py") else COUNT}
    )
    assert "has the same name" in str(refusal)
    assert "names are unique across folders" in str(refusal.remedy)


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("DAILY.SQL", "at most 32 characters: daily.sql."),
        ("per-day.sql", "at most 32 characters: per_day.sql."),
        ("daily copy.sql", "at most 32 characters: daily_copy.sql."),
        ("daily (1).sql", "at most 32 characters."),
    ],
)
def test_a_name_that_cannot_be_one_is_refused_with_one_that_can(folder: Path, name: str, remedy: str) -> None:
    assert remedy in str(refused(folder, {name: COUNT}).remedy)


@pytest.mark.parametrize(
    ("text", "same"),
    [
        (COUNT + ";\n-- Made on Monday.", COUNT),
        (COUNT + ";;\n/* Made on Monday. */\n;", COUNT),
        (";" + COUNT, COUNT),
        (COUNT.replace("\n", "\r\n") + ";\r\n", COUNT),
        (f"-- key: user_id -- one at a time\n{LEVELS}", f"-- key: user_id\n{LEVELS}"),
        (f"-- key: USER_ID\n{LEVELS}", f"-- key: user_id\n{LEVELS}"),
        (f'--KEY:"user_id"--\n{LEVELS}', f"-- key: user_id\n{LEVELS}"),
    ],
)
def test_the_same_query(folder: Path, text: str, same: str) -> None:
    found = load(folder, {"one.sql": text, "other.sql": same})
    assert found["one"].fingerprint == found["other"].fingerprint
    assert found["one"].plan.key == found["other"].plan.key


def test_names_without_quotes_are_those_in_lower_case(folder: Path) -> None:
    queries: dict[str, str | bytes] = {
        "counts.sql": "SELECT ACTION, COUNT(*) AS n FROM FACTS GROUP BY Action",
        "facts.sql": "SELECT EVENT_ID, action FROM Refold.EVENTS",
    }
    found = load(folder, queries)
    assert [(name, one.upstream) for name, one in found.items()] == [("facts", None), ("counts", "facts")]
    assert "no stream named FACTS" in str(refused(folder, {"counts.sql": 'SELECT action FROM "FACTS"'}))


@pytest.mark.parametrize("made", ["VIEW", "OR REPLACE VIEW", "TABLE", "MATERIALIZED VIEW"])
def test_a_statement_around_the_select_is_refused_as_such(folder: Path, made: str) -> None:
    refusal = refused(folder, {"counts.sql": f"-- What is done.\nCREATE {made} counts AS\n{COUNT};"})
    assert "counts.sql:2: a projection is one SELECT, not CREATE" in str(refusal)
    assert "Remove everything before SELECT" in str(refusal.remedy)


def test_a_comment_that_declares_the_key_describes_nothing(folder: Path) -> None:
    found = load(folder, {"n.sql": f"-- What each one did.\n-- KEY: user_id -- one at a time\n{LEVELS};\n-- The end."})
    assert found["n"].plan.description == "What each one did."


def test_views_are_found_in_the_same_way(folder: Path) -> None:
    assert project_files(folder, ".sql") == []
    load(folder, {"deeper/b.SQL": BOM + COUNT.encode(), "a.sql": COUNT, "._a.sql": b"\0"})
    found = project_files(folder, ".sql")
    assert [path.name for path in found] == ["a.sql", "b.SQL"]
    assert [read_text(path) for path in found] == [COUNT, COUNT]
