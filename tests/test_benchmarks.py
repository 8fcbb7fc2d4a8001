"""The benchmarks run, at a size at which their figures mean nothing: so that they do not rot."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        pytest.param("applying", marks=pytest.mark.exhaustive),
        pytest.param("archiving", marks=pytest.mark.exhaustive),
        pytest.param("auditing", marks=pytest.mark.exhaustive),
        pytest.param("backfilling", marks=pytest.mark.exhaustive),
        pytest.param("building", marks=pytest.mark.exhaustive),
        pytest.param("capturing", marks=pytest.mark.exhaustive),
        pytest.param("exporting", marks=pytest.mark.exhaustive),
        pytest.param("hot_key", marks=pytest.mark.exhaustive),
        pytest.param("loading", marks=pytest.mark.exhaustive),
        "tracing",
        "transforming",
    ],
)
def test_it_runs_and_reports(name: str, database_url: str) -> None:
    ran = subprocess.run(
        [
            sys.executable,
            "-m",
            "benchmarks",
            "--events",
            "20000",
            "--only",
            name,
            "--json",
            "--database-url",
            database_url,
        ],
        cwd=ROOT,
        env=dict(os.environ),
        capture_output=True,
        text=True,
        timeout=200,
    )
    # Missed goals are no failure here; a crash is.
    assert ran.stdout, ran.stderr
    report = json.loads(ran.stdout)
    assert {figure["name"] for figure in report["figures"]} == {name}
    assert all(figure["measured"] > 0 for figure in report["figures"])
