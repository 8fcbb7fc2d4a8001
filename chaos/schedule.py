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
ROOMS_QUIET_S = 2.0
"""The same for the lane of rooms: the log has some segments before there is load."""
TAIL_S = 5.0
"""Seconds at the end in which none begins."""
GAP_S = 3.0, 8.0
"""Seconds from the beginning of one fault to that of the next."""
ROOMS_GAP_S = 10.0, 15.0
"""Seconds from one step in the lane of rooms to the next: each takes some commands, and three minutes all kinds."""

EARLY: Mapping[str, int] = MappingProxyType({"purge": 0, "erasure": 2, "segment lost": 3})
"""Places in the first round: a minute is enough for a log that loses a segment and a person, under load."""
NONE: Mapping[str, int] = MappingProxyType({})

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
    "steps",
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

ARCHIVE_POINTS = (
    "archive_turning",
    "archive_turned",
    "archive_begun",
    "archive_spooled",
    "archive_sent",
    "archive_written",
    "archive_proved",
)
LANE_POINTS = ("lane_begun", "lane_locked", "lane_stored", "lane_moved", "lane_committed")
STAGING_POINTS = ("staged_batch", "staged_files")
"""Where `refold archive run` and `refold backfill run` and `stage` are killed."""
FOLD_POINTS = ("fold_begun", "fold_rows", "fold_stepped", "purge_folded")
PURGE_POINTS = ("purge_floors", "purge_recorded", "purge_detached", "purge_committed")
"""Where `refold archive purge` is killed: before it lets a segment go, and while it does."""
THAW_POINTS = ("load_archived", "load_rows", "load_indexes", "views")
"""Where `refold deploy` is killed of a definition that has to read what was purged."""
ERASURE_POINTS = (
    "erasure_begun",
    "erasure_log",
    "erasure_healed",
    "erasure_places",
    "erasure_purged_sent",
    "erasure_purged",
    "erasure_rebased",
    "erasure_portion",
    "erasure_file",
    "erasure_removed",
    "erasure_archived",
    "erasure_vacuumed",
    "erasure_recorded",
)
"""Where `refold erase` is killed; it passes those of the archive if the archive has the person."""
LIES = ("truncated", "changed", "fewer", "lost")
"""What a store makes of a file."""
SKIP_POINTS = ("skip_leased", "skip_looked", "skip_moved", "skip_recorded", "skip_committed")
"""Where `refold sinks skip` is killed, which lets a purge pass."""
RESTORE_POINTS = ("archive_created", "archive_exchanged", "archive_restored")
"""Where `refold archive restore` is killed."""
LOSSES = ("table", "events", "some", "changed")
"""What somebody does to a segment of the log."""
RETAIN_POINTS = ("retain_rows", "retain_committed")
"""Where `refold retain` is killed."""
RETAINED = ("visitors", "exposed_daily")
"""Metrics that do not keep all their days."""
CANARY_ENDS = ("abort", "promote", "rules")
ENDED_AT = {"abort": ("", "canary_ended", "canary_alone"), "promote": ("", "views"), "rules": ("",)}
"""How a canary ends, and where the command is killed that ends it."""

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
        case "archive killed":
            drawn = {"at": ",".join(random.sample(ARCHIVE_POINTS, 2))}
        case "archive lied to":
            drawn = {"damage": random.choice(LIES), "lie": random.choice(LIES)}
        case "archive refused":
            drawn = {"kind": random.choice(["full", "uncertain", "no room here", "away"]), **_seconds(random, 1, 4)}
        case "backfill":
            drawn = {
                "events": random.randint(1500, 2500),
                "staged": random.choice(STAGING_POINTS),
                "at": ",".join(random.sample(LANE_POINTS, len(LANE_POINTS))),
                "ends": ("done", "aborted")[round_ % 2],
            }
        case "purge":
            drawn = {
                "damage": random.choice(LIES),
                "lie": random.choice(LIES),
                "at": f"{random.choice(FOLD_POINTS)},{random.choice(PURGE_POINTS)}",
                "thaw_at": random.choice(THAW_POINTS),
                "skip_at": random.choice(SKIP_POINTS),
            }
        case "erasure":
            drawn = {
                "person": round_,
                "mode": random.choice(["anonymise", "delete"]),
                "at": ",".join(random.sample(ERASURE_POINTS, 3)),
            }
        case "segment lost":
            drawn = {"loss": random.choice(LOSSES), "at": ",".join(random.sample(RESTORE_POINTS, 2))}
        case "retention":
            drawn = {
                "metric": RETAINED[round_ % 2],
                "days": random.randint(3, 350),
                "at": ",".join(random.sample(RETAIN_POINTS, 2)),
            }
        case "contract deployed":
            drawn = {"levels": ",".join(random.sample(["warn", "enforce", "off"], 2))}
        case "canary":
            ends = CANARY_ENDS[round_ % 3]
            drawn = {
                "begins_at": random.choice(["", "canary_shown"]),
                "ends": ends,
                "ends_at": random.choice(ENDED_AT[ends]),
            }
        case _:
            drawn = {}
    return MappingProxyType(drawn)


def schedule(seed: int, minutes: float, faults: tuple[str, ...], rooms: tuple[str, ...] = ()) -> list[Step]:
    """The faults of a campaign, in order. Pure.

    They come in rounds: each kind once, in a random order, before any comes again. What goes on in rooms comes beside
    them, in rounds of its own.

    Args:
        seed: decides everything.
        minutes: how long there is load.
        faults: the kinds.
        rooms: the kinds of the other lane.
    """
    steps = _lane(Random(seed), minutes, faults, GAP_S, QUIET_S)
    steps += _lane(Random(f"rooms {seed}"), minutes, rooms, ROOMS_GAP_S, ROOMS_QUIET_S, EARLY)
    return sorted(steps, key=lambda step: step.at)


def _lane(
    random: Random,
    minutes: float,
    kinds: tuple[str, ...],
    gap: tuple[float, float],
    quiet: float,
    early: Mapping[str, int] = NONE,
) -> list[Step]:
    steps: list[Step] = []
    end = minutes * 60 - TAIL_S
    at = min(quiet, minutes * 60 / 6)
    for round_ in count() if kinds else ():
        drawn = random.sample(kinds, len(kinds))
        for kind, place in early.items() if not round_ else ():
            if kind in drawn:
                drawn.remove(kind)
                drawn.insert(place, kind)
        for kind in drawn:
            if at > end:
                return steps
            steps.append(Step(round(at, 1), kind, parameters(kind, random, round_)))
            at += random.uniform(*gap)
    return steps
