"""The rules and the dashboard that come with refold: they name what is exported, and fire when they should."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from refold.exporter.names import NAMES
from tests.exporter.test_page import PROMTOOL, needs_promtool

ALERTS = Path(__file__).parents[2] / "alerts"
RULES = ALERTS / "refold.rules.yml"
TESTS = ALERTS / "refold.rules.test.yml"
SHOWN = {one.shown for one in NAMES.values()} | {
    one.name + suffix for one in NAMES.values() if one.type == "histogram" for suffix in ("_bucket", "_count", "_sum")
}


def rules() -> list[dict[str, Any]]:
    document = yaml.safe_load(RULES.read_text(encoding="utf-8"))
    return [rule for group in document["groups"] for rule in group["rules"]]


def panels() -> Iterator[dict[str, Any]]:
    dashboard = json.loads((ALERTS / "grafana.json").read_text(encoding="utf-8"))
    for panel in dashboard["panels"]:
        yield panel
        yield from panel.get("panels", ())


def named(expression: str) -> set[str]:
    return set(re.findall(r"\brefold_[a-z_]+", expression))


def run(directory: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(PROMTOOL), "test", "rules", TESTS.name], cwd=directory, capture_output=True, text=True, check=False
    )


@needs_promtool
def test_the_rules_fire_when_they_should_and_not_before() -> None:
    checked = run(ALERTS)
    assert checked.returncode == 0, checked.stdout + checked.stderr


THRESHOLDS = {
    "RefoldNotProved": ("> 900", "> 9000"),
    "RefoldBehind": ("refold_lag_limit_seconds", "(refold_lag_limit_seconds * 10)"),
    "RefoldFailing": ("> 0", "> 10"),
    "RefoldLeavesOut": ("> 0", "> 10"),
    "RefoldLogDamage": ("> 0", "> 10"),
    "RefoldNobodyWorks": ("> 60", "> 600"),
    "RefoldAnomaly": ("> 0", "> 10"),
    "RefoldProducersRefused": ("> 1", "> 10"),
    "RefoldSinkFails": ("> 0", "> 10"),
    "RefoldSinkStopped": ("< 1", "< 0"),
    "RefoldSinkUndelivered": ("> 0", "> 10"),
    "RefoldArchiveFails": ("> 0", "> 10"),
    "RefoldArchiveLate": ("> 21600", "> 216000"),
    "RefoldAbsent": ("== 1", ">= 0"),
}


@needs_promtool
@pytest.mark.parametrize("alert", THRESHOLDS)
def test_another_threshold_is_noticed(alert: str, tmp_path: Path) -> None:
    """Without this the cases might pass whatever the rules say."""
    text = RULES.read_text(encoding="utf-8")
    start = text.index(f"alert: {alert}\n")
    was, becomes = THRESHOLDS[alert]
    place = text.index(was, start)
    assert text.find("- alert:", start) in range(place, len(text)) or "- alert:" not in text[start:]
    (tmp_path / RULES.name).write_text(text[:place] + becomes + text[place + len(was) :], encoding="utf-8")
    (tmp_path / TESTS.name).write_text(TESTS.read_text(encoding="utf-8"), encoding="utf-8")
    checked = run(tmp_path)
    assert checked.returncode != 0 and "FAILED" in checked.stdout + checked.stderr


@needs_promtool
def test_promtool_accepts_the_rules() -> None:
    checked = subprocess.run(
        [str(PROMTOOL), "check", "rules", RULES.name], cwd=ALERTS, capture_output=True, check=False
    )
    assert checked.returncode == 0, checked.stderr


def test_every_rule_names_what_is_exported_and_says_what_to_do() -> None:
    assert {rule["alert"] for rule in rules()} == THRESHOLDS.keys()
    for rule in rules():
        assert named(rule["expr"]) and named(rule["expr"]) <= SHOWN, rule["alert"]
        assert rule["labels"]["severity"] in ("page", "ticket")
        assert rule["annotations"].keys() == {"summary", "description"}


def test_every_expression_of_the_dashboard_names_what_is_exported() -> None:
    seen = set()
    for panel in panels():
        if panel["type"] == "row":
            continue
        assert panel.get("title") and panel["targets"], panel
        for target in panel["targets"]:
            assert named(target["expr"]) and named(target["expr"]) <= SHOWN, target["expr"]
            seen |= named(target["expr"])
    # It shows what this is about.
    assert {"refold_last_proved_timestamp_seconds", "refold_latency_seconds_bucket", "refold_up"} <= seen


@needs_promtool
def test_promtool_accepts_the_expressions_of_the_dashboard(tmp_path: Path) -> None:
    expressions = [target["expr"] for panel in panels() for target in panel.get("targets", ())]
    found = [
        {"record": f"refold:x{n}", "expr": expr.replace("$__rate_interval", "5m")} for n, expr in enumerate(expressions)
    ]
    (tmp_path / "rules.yml").write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": found}]}))
    checked = subprocess.run(
        [str(PROMTOOL), "check", "rules", "rules.yml"], cwd=tmp_path, capture_output=True, check=False
    )
    assert checked.returncode == 0, checked.stderr
