"""refold whose workers heal nothing, and a person who heals by commands: what it takes of people without duties.

`python -m chaos.by_hand worker …` is refold's command without the duties in `HEALING`. All others run: what they
notice is an incident in both worlds.
"""

from __future__ import annotations

import threading
from datetime import datetime, timedelta

from chaos.report import ToilOfPeople
from chaos.stage import Stage
from refold.cli import main
from refold.inspect.report import read_toil
from refold.service.duties import audits, registry, scrub, stale_incidents

HEALING = (audits.QUICK, audits.DEEP, scrub.NAME, stale_incidents.NAME)
"""Names of the duties that are left out: they find what differs from the log, heal it, and close its incidents."""
COMMANDS = (("scrub", "--json"), ("reconcile", "--json"))
"""What the documentation tells a person to run instead."""
EVERY_S = 60.0
"""Seconds from one round of commands to the next, as often as the duties run."""


class Operator:
    """A person who runs `COMMANDS` again and again, until closed."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Ends after the round that is under way."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(EVERY_S):
            for command in COMMANDS:
                self._stage.refold(*command)


def toil_of(stage: Stage, since: datetime) -> ToilOfPeople:
    """Return what the incidents and commands since an instant took of people, as `refold report` counts it."""
    with stage.connect() as conn:
        (now,) = conn.execute("SELECT clock_timestamp()").fetchone() or (since,)
        told = read_toil(conn, now - since + timedelta(seconds=1))
        (commands,) = conn.execute("SELECT count(*) FROM refold.actions WHERE at >= %s", (since,)).fetchone() or (0,)
    figures = told.toil
    return ToilOfPeople(
        commands,
        figures.machine.incidents,
        figures.person.incidents,
        round(figures.hours + figures.work_hours, 2),
        round(figures.priced_hours, 2),
        figures.autonomy,
    )


if __name__ == "__main__":
    registry.DUTIES = tuple(duty for duty in registry.DUTIES if duty.name not in HEALING)
    main()
