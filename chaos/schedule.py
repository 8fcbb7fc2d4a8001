"""What goes wrong and when: a pure function of the seed."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import count
from random import Random
from types import MappingProxyType

QUIET_S = 8.0
"""Seconds at the start without faults, so that there is something to break."""
TAIL_S = 5.0
"""Seconds at the end in which none begins."""
GAP_S = 3.0, 8.0
"""Seconds from the beginning of one fault to that of the next."""

Parameters = Mapping[str, float | int | str]


@dataclass(frozen=True, slots=True)
class Step:
    """One fault.

    Args:
        at: seconds after the start.
        fault: its kind; see `chaos.faults.FAULTS`.
        parameters: what that kind takes.
    """

    at: float
    fault: str
    parameters: Parameters

    def __str__(self) -> str:
        told = " ".join(f"{name}={value}" for name, value in self.parameters.items())
        return f"{self.at:7.1f} s  {self.fault}  {told}".rstrip()


EXPOSED = ("exposed_purchases", "exposed_daily", "exposed_visitors", "exposed_paths", "exposed_spending")
"""The projections that are tampered with. All others are witnesses: nothing in them may ever need to be healed."""
REBUILT = (
    "purchases",
    "daily",
    "visitors",
    "funnel",
    "graded",
    "shares",
    "ratios",
    "poisoned",
    "exposed_purchases",
    "exposed_paths",
)
VARIANTS = ("by_month", "by_action")
"""Of `changing`, which is deployed by action at first."""
UNREADABLE = ("digits", "exponent", *(["depth"] if sys.version_info < (3, 13) else []))
"""What Python cannot decode. From 3.13 on it decodes every depth that Postgres can hold."""
HOSTILE: Mapping[str, str] = MappingProxyType(
    {
        "statement_timeout": "500ms",
        "lock_timeout": "20ms",
        "idle_in_transaction_session_timeout": "300ms",
        "default_transaction_isolation": "serializable",
        "default_transaction_read_only": "on",
        "DateStyle": "German, DMY",
        "IntervalStyle": "sql_standard",
        "TimeZone": "Asia/Kathmandu",
        "extra_float_digits": "-15",
        "standard_conforming_strings": "off",
        "client_encoding": "LATIN1",
        "search_path": "nowhere",
        "row_security": "off",
        "enable_indexscan": "off",
        "plan_cache_mode": "force_generic_plan",
    }
)
"""What somebody sets for all sessions of the database, each at its time."""

_Drawn = dict[str, float | int | str]


def _worker(random: Random) -> _Drawn:
    return {"worker": random.randrange(3)}


def _seconds(random: Random, least: float, most: float) -> _Drawn:
    return {"seconds": round(random.uniform(least, most), 1)}


def parameters(fault: str, random: Random, round_: int) -> Parameters:
    """Parameters for the fault of a kind in a round, drawn from `random`."""
    drawn: _Drawn
    match fault:
        case "worker killed":
            drawn = _worker(random)
        case "worker frozen":
            drawn = {**_worker(random), **_seconds(random, 2, 8)}
        case "all workers frozen":
            drawn = _seconds(random, 4, 8)
        case "backend killed" | "session terminated":
            drawn = {"whose": random.choice(["refold worker", "refold duties", "chaos", "any"])}
        case "restart loop":
            drawn = {"times": random.randint(2, 3), **_seconds(random, 1, 3)}
        case "connections cut":
            drawn = {"after_bytes": random.choice([0, 1, 100, 1000, 10_000, 50_000]), **_seconds(random, 1, 4)}
        case "reply lost":
            drawn = _seconds(random, 2, 5)
        case "peer silent":
            drawn = _seconds(random, 2, 8)
        case "network slow":
            drawn = {"delay": round(random.uniform(0.01, 0.1), 3), **_seconds(random, 3, 8)}
        case "tampered":
            exposed = random.choice(EXPOSED)
            kinds = ["update", "delete", "insert", "truncate"]
            if exposed == "exposed_visitors":
                kinds.append("forget")
            drawn = {"projection": exposed, "kind": random.choice(kinds), "rows": random.randint(1, 20)}
        case "rebuild":
            drawn = {"projection": random.choice(REBUILT)}
        case "deploy":
            # The definition before it may have come back by a rollback; then there is nothing to deploy.
            drawn = {"variant": VARIANTS[round_ % 2]}
        case "transaction left open" | "prepared and left":
            drawn = _seconds(random, 4, 12)
        case "producer killed":
            drawn = {"producer": random.randrange(8)}
        case "door frozen":
            drawn = _seconds(random, 2, 6)
        case "poison":
            drawn = {"events": random.randint(1, 3)}
        case "poison in decoding":
            drawn = {"kind": random.choice(UNREADABLE)}
        case "poison together":
            drawn = {"first": random.choice([1, -1]), "users": random.randint(1, 3)}
        case "poison in the view":
            drawn = {"users": random.randint(1, 3)}
        case "log damaged":
            drawn = {
                "kind": random.choice(["delete", "change"]),
                "found_by": random.choice(["worker", "scrub"]),
                **_seconds(random, 2, 6),
            }
        case "settings turned hostile":
            drawn = {"setting": random.choice(sorted(HOSTILE)), **_seconds(random, 5, 10)}
        case "snapshot held":
            drawn = _seconds(random, 8, 15)
        case "hot key":
            drawn = {"events": random.randint(4000, 10_000)}
        case "duplicate storm":
            drawn = {"events": random.randint(200, 1000), "times": random.randint(2, 4)}
        case _:
            drawn = {}
    return MappingProxyType(drawn)


def schedule(seed: int, minutes: float, faults: tuple[str, ...]) -> list[Step]:
    """The faults of a campaign, in order. Pure.

    They come in rounds: each kind once, in a random order, before any comes again.

    Args:
        seed: decides everything.
        minutes: how long there is load.
        faults: the kinds.
    """
    random = Random(seed)
    steps: list[Step] = []
    end = minutes * 60 - TAIL_S
    at = min(QUIET_S, minutes * 60 / 6)
    for round_ in count():
        for fault in random.sample(faults, len(faults)):
            if at > end:
                return steps
            steps.append(Step(round(at, 1), fault, parameters(fault, random, round_)))
            at += random.uniform(*GAP_S)
    raise AssertionError("unreachable: rounds go on until the time is over")
