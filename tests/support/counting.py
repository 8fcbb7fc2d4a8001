"""The duty that counts totals, run until it has counted all there is."""

from __future__ import annotations

from typing import Any

import psycopg

from refold.service.duties import totals as duty
from refold.store.builds.compiled import Compiler
from refold.store.totals import RECORDS
from tests.support.waiting import wait_until


def count_everything(worker: psycopg.Connection[Any]) -> None:
    """Run the duty until all records are counted: it waits for whoever writes, in other databases of the server too."""

    def counted() -> bool:
        duty.run(worker, Compiler(None))
        for what, (table, number, _, _) in RECORDS.items():
            newest = worker.execute(f"SELECT coalesce(max({number}), 0) FROM {table}".encode()).fetchone()
            upto = worker.execute("SELECT upto FROM refold.total_marks WHERE what = %s", (what,)).fetchone()
            if newest is None or upto is None or upto[0] < newest[0]:
                return False
        return True

    wait_until(counted)
