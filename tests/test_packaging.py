"""What is in the wheel, and that it works without the checkout beside it."""

import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from email.parser import Parser
from pathlib import Path

import pytest

import refold

ROOT = Path(__file__).parent.parent
CARRIED = ("sql", "migrations", "projections")


def build(project: Path, target: str, into: Path) -> Path:
    """Builds what `pip install` and `python -m build` build, with the backend already installed."""
    command = [sys.executable, "-m", "hatchling", "build", "-t", target, "-d", str(into)]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (built,) = into.glob("*.whl" if target == "wheel" else "*.tar.gz")
    return built


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[zipfile.ZipFile]:
    with zipfile.ZipFile(build(ROOT, "wheel", tmp_path_factory.mktemp("wheel"))) as archive:
        yield archive


@pytest.fixture(scope="module")
def installed(wheel: zipfile.ZipFile, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the wheel is unpacked, as pip does into site-packages."""
    directory = tmp_path_factory.mktemp("site-packages")
    wheel.extractall(directory)
    return directory


def files(wheel: zipfile.ZipFile) -> set[str]:
    return {name for name in wheel.namelist() if ".dist-info/" not in name}


def run(installed: Path, code: str) -> str:
    """Runs Python outside the checkout with the unpacked wheel in front of whatever is installed."""
    code = f"import sys; sys.path.insert(0, {str(installed)!r}); {code}"
    done = subprocess.run([sys.executable, "-c", code], cwd="/", capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_wheel_holds_the_package_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    assert {name.split("/")[0] for name in files(wheel)} == {"refold"}
    assert "refold/py.typed" in files(wheel)
    ours = [path for path in (ROOT / "core").rglob("*") if path.is_file() and path.suffix != ".pyc"]
    package = {path.relative_to(ROOT / "core").as_posix() for path in ours}
    assert {name for name in files(wheel) if "/_bundled/" not in name} == package


@pytest.mark.parametrize("folder", CARRIED)
def test_the_wheel_carries_what_refold_needs_at_run_time(wheel: zipfile.ZipFile, folder: str) -> None:
    ours = {path for path in (ROOT / folder).rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    assert ours, f"{folder}/ is empty"
    expected = {f"refold/_bundled/{path.relative_to(ROOT).as_posix()}" for path in ours}
    assert {name for name in files(wheel) if name.startswith(f"refold/_bundled/{folder}/")} == expected


@pytest.mark.slow
def test_a_wheel_from_the_source_distribution_is_the_same(
    wheel: zipfile.ZipFile, tmp_path_factory: pytest.TempPathFactory
) -> None:
    directory = tmp_path_factory.mktemp("sdist")
    with tarfile.open(build(ROOT, "sdist", directory)) as archive:
        archive.extractall(directory, filter="data")
    (project,) = (path for path in directory.iterdir() if path.is_dir())
    with zipfile.ZipFile(build(project, "wheel", tmp_path_factory.mktemp("wheel-from-sdist"))) as again:
        assert files(again) == files(wheel)


def test_the_installed_package_finds_what_it_carries(installed: Path) -> None:
    code = "from refold.store.schema import resources as r; print(r.sql_dir(), r.migrations_dir(), r.projections_dir())"
    bundled = installed / "refold" / "_bundled"
    assert run(installed, code).split() == [str(bundled / folder) for folder in CARRIED]


def test_a_checkout_finds_its_own_folders() -> None:
    code = "from refold.store.schema import resources as r; print(r.sql_dir(), r.migrations_dir(), r.projections_dir())"
    assert run(ROOT / "core", code).split() == [str(ROOT / folder) for folder in CARRIED]


def test_one_file_states_the_version(wheel: zipfile.ZipFile, installed: Path) -> None:
    (name,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    assert Parser().parsestr(wheel.read(name).decode())["Version"] == refold.__version__
    assert run(installed, "import refold; print(refold.__version__)") == f"{refold.__version__}\n"
    code = "import sys; sys.argv = ['refold', '--version']; from refold.cli import main; main()"
    assert run(installed, code) == f"refold {refold.__version__}\n"
    for other in ("pyproject.toml", "compose.yaml", "Dockerfile"):
        assert refold.__version__ not in (ROOT / other).read_text(), f"{other} repeats the version"


def test_the_metadata_says_where_the_project_lives(wheel: zipfile.ZipFile) -> None:
    (name,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    urls = dict(url.split(", ") for url in Parser().parsestr(wheel.read(name).decode()).get_all("Project-URL", []))
    assert {"Changelog", "Documentation", "Issues", "Repository", "Security"} <= set(urls)
    assert all(url.startswith("https://") for url in urls.values())


def test_the_metadata_says_what_pip_needs(wheel: zipfile.ZipFile) -> None:
    (name,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    metadata = Parser().parsestr(wheel.read(name).decode())
    assert metadata["Name"] == "refold"
    assert metadata["Requires-Python"] == ">=3.11"
    assert metadata["License-Expression"] == "Apache-2.0"
    required = [line for line in metadata.get_all("Requires-Dist", []) if "extra ==" not in line]
    assert all("<" in line for line in required), "each dependency ends before its next major version"
    assert any(entry.endswith("dist-info/entry_points.txt") for entry in wheel.namelist())


def test_the_command_is_the_one_of_the_module(installed: Path, wheel: zipfile.ZipFile) -> None:
    (name,) = (name for name in wheel.namelist() if name.endswith(".dist-info/entry_points.txt"))
    assert "refold = refold.cli:main" in wheel.read(name).decode()
    code = "import runpy, refold.cli; refold.cli.main = lambda: print('called'); "
    assert run(installed, code + "runpy.run_module('refold', run_name='__main__')") == "called\n"
