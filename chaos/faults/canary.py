"""Canaries and diffs in the middle of everything, killed at their points."""

from __future__ import annotations

from typing import Any

from chaos import canaries
from chaos.canaries import METRIC
from chaos.faults.injection import DUTY_S, Injected, operate, watch
from chaos.invariants import canaried
from chaos.stage import Stage


def canary(stage: Stage, how: dict[str, Any], done: Injected) -> None:
    """A changed metric is shown to some readers, held, goes on, and is promoted or aborted, by a person or by a rule.

    Other commands may end it at any time: a deploy makes the candidate live. What readers see must be right then too.
    """
    with stage.connect() as conn:
        stage.set_canaried(canaries.other(canaried(conn)))
    expected = ["--expect", "identical"] if how["ends"] == "rules" else []
    options = ["--steps", "50,100", "--soak", "1h", *expected]
    begun = operate(stage, done, "deploy", "--canary", *options, at=how["begins_at"])
    if how["begins_at"]:
        # It was killed while it made the views: the candidate waits.
        begun = operate(stage, done, "canary", "start", METRIC, *options)
    _insist(stage, done, "begun")
    differs = operate(stage, done, "diff", METRIC, "--json")
    if not stage.over.is_set():
        operate(stage, done, "canary", "hold", METRIC, "--because", "somebody looks")
        _insist(stage, done, "held")
        operate(stage, done, "canary", "start", METRIC)
    if how["ends"] == "rules":
        watch(stage, DUTY_S, lambda conn: stage.over.is_set() or not _open(conn))
        status = 0
    else:
        ended = operate(stage, done, "canary", how["ends"], METRIC, at=how["ends_at"])
        status = ended.status
    _insist(stage, done, how["ends"])
    # One that was killed leaves it to the workers; the count looks for that.
    if status == 0 and how["ends"] != "rules" and not how["ends_at"]:
        with stage.connect() as conn:
            if there := canaries.left(conn):
                done.wrong.append(("I14", f"after refold canary {how['ends']} these are left: {', '.join(there)}"))
    done.note = f"begun {begun.status}, diff {differs.status}, {how['ends']} {how['ends_at']} {status}"


def _open(conn: Any) -> bool:
    return bool(
        conn.execute(
            "SELECT FROM refold.canaries JOIN refold.canary_builds USING (canary_id)"
            " WHERE ended_at IS NULL AND projection = %s",
            (METRIC,),
        ).rowcount
    )


def _insist(stage: Stage, done: Injected, when: str) -> None:
    """I14: a reader sees the live build, and one on the canary the candidate as long as it is open."""
    done.wrong += [("I14", f"{told} ({when})") for told in canaries.unlike(stage)]
