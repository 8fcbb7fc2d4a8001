"""A person is erased in the middle of everything, and the erasure is killed at its points."""

from __future__ import annotations

import random
import time
from typing import Any

from chaos.asked import Asked, email_of
from chaos.faults.archive import BUSY, insist, take_lease
from chaos.faults.injection import Injected, operate, send
from chaos.made import EMAIL, Maker, person
from chaos.stage import Stage

TRIES = 4
"""Times that the command is run to its end; whatever is left then is done before the count."""


def erased(stage: Stage, how: dict[str, Any], done: Injected) -> None:
    """A person does something once more, is named by another, is rejected twice, and is erased.

    The first persons also have events in the segments that are archived or purged.
    """
    asked = Asked(person(how["person"]), how["mode"])
    label = f"asked-{done.began:.6f}"
    maker = Maker(label, random.Random(label))
    events = maker.purchases(asked.user, [1, 2, 3])
    [named] = maker.clean(1)
    named["metadata"][EMAIL] = email_of(asked.user)
    conflict = {**events[0], "metadata": {"label": f"{label}/conflict/", EMAIL: email_of(asked.user)}}
    invalid = {
        **events[1],
        "id": f"{label}-no",
        "ts": "infinity",
        "metadata": {"label": f"{label}/no/", "invalid": True},
    }
    send(stage, label, [*events, named, conflict, invalid])
    # From now on nothing of the person may be left in the end, whoever goes on.
    stage.asked.append(asked)
    points = []
    for point in how["at"].split(",") if stage.breaking is None else ():
        if stage.hurries:
            break
        points.append(point)
        operate(stage, done, *asked.command, at=point)
        stage.ask(take_lease)
        insist(stage, done, f"killed at {point}")
    for _ in range(TRIES):
        ran = operate(stage, done, *asked.command)
        if asked.ended(ran.status) or stage.hurries:
            break
        if BUSY in ran.err:
            stage.ask(take_lease)
        time.sleep(1)
    done.note = f"{asked.mode}, killed at {', '.join(points) or 'no point'}; then {ran.status}"
