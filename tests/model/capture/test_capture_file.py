"""Reading of captures/*.toml: all mistakes of all files at once, each with its file, line, key and remedy."""

from pathlib import Path

import pytest

from refold.errors import DefinitionError, RefoldError
from refold.model.capture.capture_file import CaptureFile, load_captures

GOOD = 'table = "shop.orders"\naction = "\'x\'"\n'


def load(folder: Path, text: str, name: str = "orders") -> tuple[list[CaptureFile], list[RefoldError]]:
    (folder / f"{name}.toml").write_text(text)
    mistakes: list[RefoldError] = []
    return load_captures(folder, mistakes), mistakes


def test_the_smallest_file(tmp_path: Path) -> None:
    (one,), mistakes = load(tmp_path, GOOD)
    assert mistakes == []
    assert (one.name, one.schema, one.table, list(one.expressions)) == ("orders", "shop", "orders", ["insert"])
    assert (one.on_error, one.two_phase, one.id, one.columns) == ("fail", False, None, None)
    assert one.expressions["insert"].user == "NULL"


def test_expressions_of_one_operation(tmp_path: Path) -> None:
    text = GOOD + "operations = ['insert', 'truncate', 'update']\n[update]\nuser = 'new.u'\n[truncate]\naction = 'y'\n"
    (one,), mistakes = load(tmp_path, text)
    assert mistakes == []
    assert list(one.expressions) == ["insert", "update", "truncate"]
    assert one.expressions["update"].user == "new.u"
    assert one.expressions["update"].action == "'x'"
    # Without a row, only what is said for it counts.
    assert one.expressions["truncate"].user == "NULL"
    assert one.key_of("update", "user") == "update.user"
    assert one.key_of("update", "action") == "action"


@pytest.mark.parametrize(
    ("written", "schema", "table"),
    [
        ("orders", None, "orders"),
        ("Shop.Orders", "shop", "orders"),
        ('\\"My Shop\\".\\"a.b\\"\\"c\\"', "My Shop", 'a.b"c'),
    ],
)
def test_names_of_tables(tmp_path: Path, written: str, schema: str | None, table: str) -> None:
    (one,), _ = load(tmp_path, f'table = "{written}"\naction = "1"\n')
    assert (one.schema, one.table) == (schema, table)


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("action = 'x'", None, "table: is missing"),
        ("table = 'a.b.c'\naction = 'x'", 1, "table: must be the name of a table"),
        ("table = 'a'", None, "action: is missing"),
        (GOOD + "usr = 'x'", 3, "usr: is not known. Did you mean user?"),
        (GOOD + "operations = ['insrt']", 3, "operations: 'insrt' is not known. Did you mean insert?"),
        (GOOD + "operations = []", 3, "operations: must be a list"),
        (GOOD + "user = 7", 3, "user: must be the text of an SQL expression, not 7"),
        (GOOD + "time = ' '", 3, "time: must be the text of an SQL expression"),
        (GOOD + "on_error = 'ignore'", 3, "on_error: must be fail or pause, not 'ignore'"),
        (GOOD + "two_phase = 'yes'", 3, "two_phase: must be true or false"),
        (GOOD + "columns = ['a']", 3, "columns: there is no update among the operations"),
        (GOOD + "id = 'a'", 3, "id: must be a list of columns"),
        (GOOD + "[update]\nuser = 'x'", 3, "update: is not among the operations"),
        (GOOD + "[insert]\n\nmeta = 'x'", 5, "insert.meta: is not known. Did you mean metadata?"),
        (GOOD + "update = 'x'", 3, "update: must be a table of expressions"),
        ("table = orders", 1, "is not TOML"),
    ],
)
def test_mistakes(tmp_path: Path, text: str, line: int | None, message: str) -> None:
    loaded, mistakes = load(tmp_path, text)
    assert loaded == []
    (wrong,) = mistakes
    assert isinstance(wrong, DefinitionError)
    assert message in str(wrong)
    assert wrong.line == line


def test_all_mistakes_of_all_files(tmp_path: Path) -> None:
    load(tmp_path, "usr = 'x'\non_error = 'x'")
    _, mistakes = load(tmp_path, GOOD, "Bad-Name")
    told = "\n".join(map(str, mistakes))
    assert len(mistakes) == 5
    for part in ("usr: is not known", "table: is missing", "action: is missing", "on_error", "cannot name a capture"):
        assert part in told


def test_files_that_are_put_away(tmp_path: Path) -> None:
    for name in ("_draft.toml", ".hidden.toml", "orders.toml~"):
        (tmp_path / name).write_text("x")
    assert load_captures(tmp_path, []) == []
    assert load_captures(tmp_path / "none", []) == []
