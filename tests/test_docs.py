"""The documentation: its links lead somewhere, what is generated is current, and what it names exists."""

from __future__ import annotations

import hashlib
import importlib.util
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *PAGES]
BY_NAME = [pytest.param(one, id=str(one.relative_to(ROOT))) for one in DOCUMENTS]


@pytest.fixture(scope="module")
def reference() -> Iterator[ModuleType]:
    spec = importlib.util.spec_from_file_location("reference", ROOT / "scripts" / "reference.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["reference"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["reference"]


def prose(text: str) -> str:
    """A page without its code."""
    return re.sub(r"^( *)```.*?^\1```", "", text, flags=re.MULTILINE | re.DOTALL)


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as the site and GitHub make them."""
    found = set()
    for heading in re.findall(r"^#+ (.*)$", prose(page.read_text(encoding="utf-8")), re.MULTILINE):
        given = re.search(r"\{ #([\w-]+) \}", heading)
        plain = re.sub(r"[^\w\s-]", "", heading.lower())
        found.add(given[1] if given else re.sub(r"[\s]+", "-", plain.strip()))
    return found


@pytest.mark.parametrize("document", BY_NAME)
def test_every_link_leads_to_a_file_and_a_heading(document: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(document.read_text(encoding="utf-8"))):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        page = (document.parent / name).resolve() if name else document
        assert page.exists(), target
        assert not anchor or anchor in anchors(page), target


def test_what_is_generated_is_current(reference: ModuleType) -> None:
    stale = []
    for page in sorted(reference.PAGES.glob("*.md")):
        text = page.read_text(encoding="utf-8")
        if reference.current(text) != text:
            stale.append(page.name)
    assert stale == [], "run: python scripts/reference.py"


def test_a_page_that_is_not_current_is_noticed(reference: ModuleType) -> None:
    page = (DOCS / "reference" / "settings.md").read_text(encoding="utf-8")
    assert reference.current(page.replace("`lag_limit`", "`lag_limits`")) != page.replace("`lag_limit`", "`lag_limits`")


@pytest.mark.parametrize("document", BY_NAME)
def test_every_file_that_a_page_names_exists(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    for name in re.findall(r"`((?:core|sql|tests|scripts|chaos|benchmarks|docs|migrations)/[\w/.{},-]+)`", text):
        if not (ROOT / name).exists():
            assert re.search(r"NAME|[{]", name), name


def test_the_site_loads_diagrams_from_itself() -> None:
    """The theme would load mermaid from another server, unless the site brings it: this file, unchanged."""
    settings = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    [name] = re.findall(r"^extra_javascript:\n((?:  - .*\n)+)", settings, re.MULTILINE)
    assert name == "  - assets/mermaid-11.12.0.min.js\n"
    digest = hashlib.sha256((DOCS / "assets" / "mermaid-11.12.0.min.js").read_bytes()).hexdigest()
    assert digest == "07e37dfa97b337ccc85365d57eddf99b9706f09db3b59b260d0333b23b343c4b"


def test_every_fault_that_a_test_cites_is_described() -> None:
    cited: set[int] = set()
    for path in (ROOT / "tests").rglob("*.py"):
        if path == Path(__file__):
            continue
        for numbers in re.findall(
            r"\bfaults? (\d+(?:(?:, | and )\d+)*)", path.read_text(encoding="utf-8"), re.IGNORECASE
        ):
            cited |= {int(one) for one in re.findall(r"\d+", numbers)}
    described = {int(one.removeprefix("fault-")) for one in anchors(DOCS / "faults.md") if one.startswith("fault-")}
    assert {17, 31} <= cited
    assert cited <= described


def test_every_kind_of_incident_is_described() -> None:
    from typing import get_args

    from refold.store.incidents import Kind

    text = (DOCS / "reference" / "incidents.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE)) == set(get_args(Kind))


@pytest.mark.parametrize("page", [one for one in BY_NAME if "docs" in str(one.id)])
def test_every_page_has_a_place_in_the_menu(page: Path) -> None:
    menu = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").split("\nnav:", 1)[1]
    assert re.search(rf"(?:: |- ){re.escape(str(page.relative_to(DOCS)))}$", menu, re.MULTILINE)


NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
SAID = re.compile(
    rf"^.*\b({'|'.join(NUMBERS[2:])}) (?:schemas|roles)\b.*\n(?:\n?[^|\n].*\n)*\n?((?:\|.*\n)+)", re.M | re.I
)


def test_a_number_of_what_a_table_lists_is_right() -> None:
    said = [
        (page.name, NUMBERS.index(found[1].lower()), len(found[2].splitlines()) - 2)
        for page in sorted(DOCS.glob("how-to/*.md"))
        for found in SAID.finditer(page.read_text())
    ]
    assert {name for name, _, _ in said} >= {"install.md", "roles.md"}
    assert [(name, number) for name, number, rows in said if number != rows] == []
