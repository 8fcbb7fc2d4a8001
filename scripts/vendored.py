"""Compares the files of npm packages that the dashboard brings with the packages themselves. Needs npm.

python scripts/vendored.py    exit with 1 if a file differs, or is not named in VENDOR.toml
"""

from __future__ import annotations

import base64
import hashlib
import subprocess
import sys
import tarfile
import tempfile
import tomllib
from pathlib import Path
from typing import Any

VENDOR = Path(__file__).parents[1] / "core/refold/dashboard/static/vendor"
LIST = "VENDOR.toml"


def packages(folder: Path = VENDOR) -> list[dict[str, Any]]:
    """Return the entries of VENDOR.toml."""
    found: list[dict[str, Any]] = tomllib.loads((folder / LIST).read_text())["package"]
    return found


def fetch(package: dict[str, Any], into: Path) -> Path:
    """Return the archive of a package from npm's registry.

    Raises:
        ValueError: it is not the archive that VENDOR.toml means.
    """
    name = f"{package['name']}@{package['version']}"
    command = ["npm", "pack", name, "--silent", "--ignore-scripts", "--pack-destination", str(into)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    archive = into / done.stdout.strip().splitlines()[-1]
    digest = base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()
    if f"sha512-{digest}" != package["integrity"]:
        raise ValueError(f"{name} is not what VENDOR.toml says: sha512-{digest}")
    return archive


def differing(folder: Path, package: dict[str, Any], archive: Path) -> list[str]:
    """Return the files of a package that are missing here, or differ."""
    wrong = []
    with tarfile.open(archive) as opened:
        for ours, theirs in package["files"].items():
            member = opened.extractfile(f"package/{theirs}")
            path = folder / ours
            if member is None or not path.is_file() or member.read() != path.read_bytes():
                wrong.append(f"{ours} differs from {theirs} of {package['name']} {package['version']}")
    return wrong


def unnamed(folder: Path = VENDOR) -> list[str]:
    """Return the files here that belong to no package."""
    named = {LIST, *(ours for package in packages(folder) for ours in package["files"])}
    return sorted(f"{path.name} is not named in {LIST}" for path in folder.iterdir() if path.name not in named)


def main() -> int:
    """Compare all packages; return the exit status."""
    wrong = unnamed()
    with tempfile.TemporaryDirectory() as work:
        for package in packages():
            try:
                wrong += differing(VENDOR, package, fetch(package, Path(work)))
            except ValueError as error:
                wrong.append(str(error))
    print("\n".join(wrong) or f"{len(packages())} packages are as npm has them")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
