"""`refold backfill` beside live load: killed at its points, paused, resumed, aborted."""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Iterator
from typing import Any

from chaos import journal
from chaos.backfilled import File
from chaos.faults.injection import Injected, operate
from chaos.made import Maker
from chaos.stage import Stage

RATE = 100
"""Records a second until it is paused, so that it lasts longer than it takes to start a command."""
PAUSED_AFTER_S = 3.0
"""Seconds after which it is paused: a process begins, and its first batch is under way."""
LONGEST_S = 150.0
"""Seconds after which it is given up."""
LOST = "the server has lost what was staged"


def backfilled(stage: Stage, how: dict[str, Any], done: Injected) -> None:
    """A file is staged, checked and run, killed at every point of the lane, paused, and then goes on or is aborted.

    A crash of the server loses what was staged: then the file is staged again under another name.
    """
    label = f"file-{done.began:.6f}"
    maker = Maker(label, random.Random(label))
    events = maker.clean(how["events"])
    maker.remember(events)
    events += maker.batch(how["events"] // 4)
    path = stage.home / f"{label}.jsonl"
    path.write_text("".join(json.dumps(event) + "\n" for event in events))
    file = File.of(label, events)
    stage.files.append(file)
    staging, lane = iter([how["staged"]]), iter(how["at"].split(","))
    end = time.monotonic() + LONGEST_S
    state = "lost"
    for attempt in range(3):
        name = f"past_{int(done.began * 1000)}_{attempt}"
        file.names.append(name)
        book = journal.Journal(stage.journals / f"{name}.journal")
        batch = book.attempted(name, events)
        state, mark = _attempt(stage, done, name, str(path), (staging, lane), how["ends"], end)
        # Behind the mark nobody was answered.
        book.acknowledged(batch, [*file.answers[:mark], *[None] * (len(events) - mark)])
        if state != "lost":
            break
    done.note = f"{len(events)} records, {len(file.names)} times staged: {state}"


def _attempt(
    stage: Stage,
    done: Injected,
    name: str,
    path: str,
    points: tuple[Iterator[str], Iterator[str]],
    ends: str,
    end: float,
) -> tuple[str, int]:
    """Stages and runs a backfill; answers its state (`lost`: what was staged is gone) and mark."""
    staging, lane = points
    state = "none"
    while state in ("none", "staging") and time.monotonic() < end:
        operate(stage, done, "backfill", "stage", name, path, at=next(staging, ""))
        state, _ = _state(stage, name)
    operate(stage, done, "backfill", "check", name, "--json")
    run = ("backfill", "run", name, "--freshness", "60s", "--rate", str(RATE))
    for point in lane:
        if stage.hurries:
            break
        ran = operate(stage, done, *run, at=point)
        if LOST in ran.err:
            return _give_up(stage, done, name)
    if not stage.over.is_set():
        going = threading.Thread(target=operate, args=(stage, done, *run))
        going.start()
        time.sleep(PAUSED_AFTER_S)
        operate(stage, done, "backfill", "pause", name)
        if ends == "aborted":
            operate(stage, done, "backfill", "abort", name)
        going.join()
    while True:
        state, mark = _state(stage, name)
        if state in ("done", "aborted"):
            return state, mark
        if _is_lost(stage, name) or time.monotonic() > end:
            return _give_up(stage, done, name)
        verb = "resume" if state in ("paused", "running") else "run"
        operate(stage, done, "backfill", verb, name, "--freshness", "60s")


def _give_up(stage: Stage, done: Injected, name: str) -> tuple[str, int]:
    operate(stage, done, "backfill", "abort", name)
    return "lost", _state(stage, name)[1]


def _state(stage: Stage, name: str) -> tuple[str, int]:
    """State and mark of a backfill; `none` if there is none."""
    with stage.connect() as conn:
        row = conn.execute(
            "SELECT state, mark FROM refold.file_backfills WHERE name = %s ORDER BY backfill_id DESC LIMIT 1", (name,)
        ).fetchone()
    return ("none", 0) if row is None else (str(row[0]), int(row[1]))


def _is_lost(stage: Stage, name: str) -> bool:
    """Whether the staging table of a backfill lacks its records: a crash of the server empties it."""
    with stage.connect() as conn:
        row = conn.execute(
            "SELECT backfill_id, total FROM refold.file_backfills WHERE name = %s ORDER BY backfill_id DESC LIMIT 1",
            (name,),
        ).fetchone()
        assert row is not None
        found = conn.execute(f"SELECT FROM refold_backfill.staged_{row[0]} WHERE number = %s".encode(), (row[1],))
        return not found.rowcount
