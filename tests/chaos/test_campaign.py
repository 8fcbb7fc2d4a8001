"""The fault campaign runs, holds on the product, and fails on a product that is broken on purpose."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


def start(*options: str) -> subprocess.Popen[str]:
    """Starts a campaign."""
    command = [sys.executable, "-m", "chaos", "--json", *options]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def report_of(campaign: subprocess.Popen[str], *, status: int) -> dict[str, Any]:
    """The report of a campaign, at its end."""
    try:
        out, err = campaign.communicate(timeout=280)
    finally:
        campaign.terminate()
    assert campaign.returncode == status, out[-3000:] + err[-3000:]
    report: dict[str, Any] = json.loads(out)
    if report["directory"] is not None and status == 1:
        shutil.rmtree(report["directory"])
    return report


@pytest.mark.exhaustive
def test_every_invariant_holds(tmp_path: Path) -> None:
    campaign = start("--seed", "14", "--minutes", "0.3", "--report", str(tmp_path / "report.md"))
    report = report_of(campaign, status=0)
    assert report["held"] and report["violations"] == {}
    assert report["acknowledged"] > 1000
    assert (report["lost"], report["double"], report["left"]) == (0, 0, 0)
    assert len(report["faults"]) == 4
    assert report["archived"][0] > 0 and report["purged"] > 0
    assert report["directory"] is None
    assert "| I1: no acknowledged event is lost | holds |" in (tmp_path / "report.md").read_text()


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    "broken",
    [
        {
            "two-transactions": ("double", "I2"),
            "no-unique": ("double", "I2"),
            "naive-cursor": ("lost", "I4"),
            "early-answer": ("lost", "I1"),
            "stale-cursor": ("explained_under_load", "I10"),
        },
        {
            "unproved": ("acknowledged", "I11"),
            "mark-apart": ("acknowledged", "I12"),
            "canary-left": ("acknowledged", "I14"),
        },
        {
            "purge-unproved": ("purged", "I15"),
            "unfolded": ("purged", "I15"),
            "forgetful": ("erased", "I16"),
        },
        {
            "skips-all": ("let_go", "I9"),
            "restored-blind": ("acknowledged", "I11"),
            "rows-stay": ("retained", "I3"),
        },
    ],
    ids=["log and metrics", "rooms", "what leaves the log", "what is let go or comes back"],
)
def test_broken_products_are_found_out(broken: dict[str, tuple[str, str]]) -> None:
    """Some at once: most of a campaign is waiting."""
    campaigns = {variant: start("--seed", "3", "--minutes", "0.3", "--break", variant) for variant in broken}
    with ExitStack() as stack:
        for campaign in campaigns.values():
            stack.callback(campaign.terminate)
        reports = {variant: report_of(campaign, status=1) for variant, campaign in campaigns.items()}
    for variant, (figure, invariant) in broken.items():
        assert reports[variant][figure] > 0, variant
        assert invariant in reports[variant]["violations"], variant
