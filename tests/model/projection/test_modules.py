"""Helpers beside a transform: how they are found, and that the fingerprint is of them too."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from refold.errors import DefinitionError
from refold.model.projection.definition import load_directory
from refold.model.projection.modules import Modules

TRANSFORM = """
from pydantic import BaseModel
from refold import Event, transform
{imports}

class Row(BaseModel):
    amount: int

@transform(reads={reads!r})
def {name}(event: Event) -> Row:
    {inside}
    return Row(amount={amount})
"""
MONEY = "def cents(text):\n    return int(float(text) * 100)\n"
HELPERS = {
    "_money.py": MONEY,
    "_lib/__init__.py": "from . import _deep\nfrom ._deep import cents\n",
    "_lib/_deep.py": "from .._money import cents\n",
    "_lib/prices.py": "import _money\nimport decimal\nRATE = decimal.Decimal(1)\ncents = _money.cents\n",
    "_loose/tools.py": "from _lib.prices import cents\n",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "projections"


def write(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def transform(name: str = "made", **parts: str) -> str:
    return TRANSFORM.format(**{"name": name, "reads": "events", "imports": "", "inside": "", "amount": "1"} | parts)


def amount(folder: Path, name: str = "made") -> Any:
    """What the transform makes of an event, as it is on the disk now."""
    found = load_directory(folder)[name].transform
    assert found is not None
    event = {
        "txid": 1, "position": 1, "ordinal": 0, "event_id": "e", "user_id": None, "action": "view",
        "ts": "2026-03-02T00:00:00Z", "metadata": {}, "version": 1,
    }  # fmt: skip
    [row] = found.rows([event])
    return row[-1]


def fingerprint(folder: Path, name: str = "made") -> str:
    return load_directory(folder)[name].fingerprint


@pytest.mark.parametrize(
    ("imports", "amount_of"),
    [
        ("import _money", "_money.cents('1.5')"),
        ("import _money as m", "m.cents('1.5')"),
        ("from _money import cents", "cents('1.5')"),
        ("from _money import *", "cents('1.5')"),
        ("from ._money import cents", "cents('1.5')"),
        ("from . import _money", "_money.cents('1.5')"),
        ("import _lib", "_lib.cents('1.5')"),
        ("import _lib.prices", "_lib.prices.cents('1.5') * int(_lib.prices.RATE)"),
        ("import _lib.prices as p", "p.cents('1.5')"),
        ("from _lib import prices", "prices.cents('1.5')"),
        ("from _loose import tools", "tools.cents('1.5')"),
        ("from _loose.tools import cents", "cents('1.5')"),
        ("def late(): from _lib.prices import cents; return cents", "late()('1.5')"),
    ],
)
def test_a_helper_is_found_and_its_change_is_a_change(folder: Path, imports: str, amount_of: str) -> None:
    write(folder, {**HELPERS, "made.py": transform(imports=imports, amount=amount_of)})
    assert amount(folder) == 150
    before = fingerprint(folder)
    # As long, and within the same second: nothing that Python caches may answer.
    write(folder, {"_money.py": MONEY.replace("* 100", "* 200")})
    assert fingerprint(folder) != before
    assert amount(folder) == 300
    write(folder, {"_money.py": MONEY})
    assert fingerprint(folder) == before
    assert not list(folder.rglob("__pycache__"))


def test_what_is_not_imported_is_no_part_of_it(folder: Path) -> None:
    write(folder, {**HELPERS, "made.py": transform(imports="import _money")})
    before = fingerprint(folder)
    write(folder, {"_lib/prices.py": "RATE = 2", "_other.py": "1 / 0", "_lib/_deep.py": "("})
    assert fingerprint(folder) == before


def test_the_nearest_one_is_found_up_to_the_projections(folder: Path) -> None:
    write(folder.parent, {"_beyond.py": "x = 0"})
    write(folder, {"_rate.py": "x = 1", "_top.py": "x = 1", "a/_rate.py": "x = 2", "a/b/_own.py": "x = 3"})
    inside = "import _own, _rate, _top\n    from .. import _rate as above\n    from ..._top import x as top"
    write(
        folder, {"a/b/made.py": transform(inside=inside, amount="_own.x * 1000 + _rate.x * 100 + above.x * 10 + top")}
    )
    assert amount(folder) == 3221
    for imports, message in (
        ("import _beyond", "No module named '_beyond'"),
        ("from ...._beyond import x", "the project has no folder 3 levels above b"),
    ):
        write(folder, {"a/b/made.py": transform(imports=imports)})
        with pytest.raises(DefinitionError, match=message) as refused:
            load_directory(folder)
        assert refused.value.line == 4


def test_a_transform_may_import_the_model_of_another(folder: Path) -> None:
    write(
        folder,
        {
            "first.py": transform("first"),
            "second.py": transform("second", reads="first", imports="from first import Row as Event"),
        },
    )
    before = load_directory(folder)
    assert before["second"].upstream == "first"
    assert before["second"].plan.reads == ("amount",)


def test_what_is_installed_is_not_hidden_by_a_projection(folder: Path) -> None:
    write(folder, {"statistics.py": transform("statistics"), "typer.py": transform("typer")})
    write(folder, {"made.py": transform(imports="import statistics, typer", amount="statistics.mode([7, 7])")})
    assert amount(folder) == 7


def test_every_load_has_modules_of_its_own_and_takes_the_place_of_the_last(folder: Path) -> None:
    text = transform(imports="import _state", inside="_state.seen.append(1)", amount="len(_state.seen)")
    write(folder, {"_state.py": "seen = []", "made.py": text})
    assert amount(folder) == 1
    loaded = set(sys.modules)
    assert amount(folder) == 1
    assert set(sys.modules) == loaded
    assert "_state" not in loaded


def test_helpers_may_import_each_other(folder: Path) -> None:
    write(folder, {"_a.py": "import _b\ndef x(): return _b.y", "_b.py": "import _a\ny = 5"})
    write(folder, {"made.py": transform(imports="import _a", amount="_a.x()")})
    assert amount(folder) == 5


def test_a_name_that_is_computed_is_refused(folder: Path) -> None:
    write(folder, {**HELPERS, "made.py": transform(imports="money = __import__('_mon' + 'ey')")})
    with pytest.raises(DefinitionError, match=r"_money.py is not part of the fingerprint: name it in an import"):
        load_directory(folder)


@pytest.mark.parametrize(
    ("helper", "message"),
    [
        ("x = 1\n1 / 0", "_bad.py:2: the file fails when it is loaded: ZeroDivisionError: division by zero"),
        ("x = 1\ndef (", "_bad.py:2: not valid Python"),
        ("from _worse import x", "_bad.py:1: the file fails when it is loaded: ModuleNotFoundError"),
    ],
)
def test_what_is_wrong_with_a_helper_is_said_there(
    folder: Path, helper: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(folder, {"_bad.py": helper, "made.py": transform(imports="import _bad")})
    monkeypatch.chdir(folder.parent)
    with pytest.raises(DefinitionError) as refused:
        load_directory(Path("projections"))
    assert str(refused.value).startswith(f"projections/{message}")


def test_a_file_beside_is_where_the_transform_is(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(folder, {"rates.txt": "7", "made.py": transform(
        imports="from pathlib import Path\nRATE = Path(__file__).with_name('rates.txt')", amount="RATE.read_text()"
    )})  # fmt: skip
    monkeypatch.chdir(folder)
    found = load_directory(Path("."))["made"]
    monkeypatch.chdir("/")
    assert found.transform is not None
    assert found.transform.function.__globals__["RATE"].read_text() == "7"


def test_models_of_a_helper_may_wait_for_their_names(folder: Path) -> None:
    text = "from __future__ import annotations\nfrom pydantic import BaseModel\n"
    text += "class Outer(BaseModel):\n    inner: Inner\nclass Inner(BaseModel):\n    n: int\n"
    write(folder, {"_models.py": text, "made.py": transform(imports="from _models import Outer",
                                                            amount="Outer(inner={'n': 3}).inner.n")})  # fmt: skip
    assert amount(folder) == 3


def test_modules_are_run_once(folder: Path) -> None:
    write(folder, {"_a.py": "x = object()", "one.py": "import _a", "two.py": "import _a"})
    modules = Modules(folder)
    assert modules.run(folder / "one.py")._a is modules.run(folder / "two.py")._a
