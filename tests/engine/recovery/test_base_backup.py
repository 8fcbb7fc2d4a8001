"""FAULTS 26: an older physical backup. Cursors, log and transaction ids go back together, so nothing is to be done."""

from __future__ import annotations

import psycopg
import pytest

from refold import append as append_in
from refold.embedded import EmbeddedServer
from refold.postgres.connect import connect
from refold.store.schema.installed import check
from refold.store.schema.migrate import migrate
from tests.support.clusters import base_backup, make_database
from tests.support.live import drain, make_live, wrong
from tests.support.restored import append


@pytest.mark.slow
def test_an_older_base_backup_goes_on_from_where_it_was(old: EmbeddedServer) -> None:
    url = make_database(old, "physical")
    migrate(url)
    make_live(url)
    append(url, 30)
    drain(url)
    append(url, 40)
    with connect(url, "refold_producer") as open_then:
        append_in(open_then, [{"id": "open", "action": "view", "ts": 0}])
        with base_backup(old) as directory:
            open_then.commit()
            append(url, 60)
            drain(url)
            with EmbeddedServer.start(directory, {"fsync": "off"}) as backup:
                again = backup.url_of("physical")
                with connect(again, "refold_worker", autocommit=True) as conn:
                    check(conn)
                drain(again)
                assert wrong(again) == {}
                with psycopg.connect(again) as conn:
                    assert conn.execute("SELECT sum(events)::integer FROM metrics.daily").fetchone() == (40,)
                # What came after the backup is lost here, and the producers have it still.
                assert append(again, 60) == ["duplicate"] * 40 + ["accepted"] * 20
                assert append(again, 1, "open") == ["accepted"]
                drain(again)
                assert wrong(again) == {}
                backup.stop(immediate=True)
