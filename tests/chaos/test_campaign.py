"""The fault campaign runs, holds on the product, and fails on a product that is broken on purpose."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


def campaign(*options: str, status: int) -> dict[str, Any]:
    """Runs a campaign to its end; answers its report."""
    ran = subprocess.run(
        [sys.executable, "-m", "chaos", "--json", *options], cwd=ROOT, capture_output=True, text=True, timeout=280
    )
    assert ran.returncode == status, ran.stdout[-3000:] + ran.stderr[-3000:]
    report: dict[str, Any] = json.loads(ran.stdout)
    if report["directory"] is not None and status == 1:
        shutil.rmtree(report["directory"])
    return report


@pytest.mark.slow
def test_every_invariant_holds(tmp_path: Path) -> None:
    report = campaign("--seed", "11", "--minutes", "0.6", "--report", str(tmp_path / "report.md"), status=0)
    assert report["held"] and report["violations"] == {}
    assert report["acknowledged"] > 1000
    assert (report["lost"], report["double"], report["left"]) == (0, 0, 0)
    assert len(report["faults"]) >= 4
    assert report["directory"] is None
    assert "| I1: no acknowledged event is lost | holds |" in (tmp_path / "report.md").read_text()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("variant", "figure", "invariant"),
    [("two-transactions", "double", "I2"), ("no-unique", "double", "I2"), ("naive-cursor", "lost", "I4")],
)
def test_a_broken_product_is_found_out(variant: str, figure: str, invariant: str) -> None:
    report = campaign("--seed", "3", "--minutes", "0.3", "--break", variant, status=1)
    assert report[figure] > 0
    assert invariant in report["violations"]
