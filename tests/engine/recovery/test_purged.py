"""A restore where segments were purged: the archive alone has their events, and its files keep their own ids."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
import pytest

from refold import SourceEvent
from refold.embedded import EmbeddedServer
from refold.engine.archive import ownership
from refold.engine.archive.object_store import open_store
from refold.engine.archive.verify import verify
from refold.engine.erasure.run import erase
from refold.engine.reconcile.archived import reconcile_archived
from refold.engine.recovery import RecoveryReport, recover
from refold.engine.scrub.scrub import scrub
from refold.model.erasure import Person
from refold.store import archives
from refold.store.erasures import Erasure, Mode
from refold.store.schema.migrate import migrate
from tests.engine.erasure.conftest import Shop
from tests.engine.purge.conftest import ENDS, PROJECT, Yard, segments_of
from tests.support.clusters import dump, make_database, restore
from tests.support.law import MONDAY, worker_connection
from tests.support.live import make_live
from tests.support.purging import let_go

COLD = Person("user-185", (("email", "cold@example.com"),))
"""A person of whom only purged segments have events."""
HOT = Person("user-060", (("email", "hot@example.com"),))
"""A person of whom purged segments and the log have events."""


def of(person: Person, prefix: str) -> list[SourceEvent]:
    """Three events of a person, whose ids hold it but for the first, and one of another who names the person."""
    user, mail = person.user_id, person.also[0][1]
    return [
        SourceEvent(id=f"{prefix}-{mail[0]}1", user_id=user, action="buy", ts=MONDAY, metadata={"n": 5, "email": mail}),
        SourceEvent(id=f"e-{user}-{prefix}2", user_id=user, action="view", ts=MONDAY, metadata={"place": "here"}),
        SourceEvent(id=f"e-{user}-{prefix}3", user_id=user, action="click", ts=MONDAY, metadata={"n": 7}),
        SourceEvent(id=f"{prefix}-{mail[0]}4", user_id="u1", action="view", ts=MONDAY, metadata={"email": mail}),
    ]


class Copy(Yard):
    """A yard whose store may have files of another one, which do not count here."""

    def files(self) -> dict[str, list[dict[str, Any]]]:
        """Read the files that count."""
        current = {Path(one.location).name for one in archives.find(self.worker, "a.state NOT IN ('replaced', 'gone')")}
        return {name: rows for name, rows in super().files().items() if name in current}


@dataclass
class Yards:
    """A database with purged segments, and what is restored from its dumps."""

    original: Yard
    stack: ExitStack = field(default_factory=ExitStack)

    def restored(self, copied: bytes, url: str) -> Yard:
        """Restore a dump; its copy of all events is in it."""
        restore(copied, url)
        return opened(self.stack, url, self.original.location)


def opened(stack: ExitStack, url: str, location: str) -> Yard:
    admin = stack.enter_context(closing(psycopg.connect(url, autocommit=True)))
    return Copy(url, admin, stack.enter_context(worker_connection(url)), location, open_store(location))


@pytest.fixture
def yards(old: EmbeddedServer, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Yards]:
    """Two of three full segments are purged, the third is folded; one person is in them alone, one in the log too."""
    url = make_database(old, f"purged_{abs(hash(request.node.name))}")
    migrate(url)
    make_live(url, PROJECT)
    with ExitStack() as stack:
        yard = opened(stack, url, str(tmp_path / "archive"))
        segments_of(yard.admin, *ENDS)
        yard.admin.execute("CREATE TABLE everything (LIKE refold.events)")
        for number, end in enumerate(ENDS[:3]):
            yard.append(20)
            if number < 2:
                yard.append([*of(COLD, f"s{number}"), *of(HOT, f"s{number}")])
            yard.skip_to(end)
        yard.append([*yard.made(20), *of(HOT, "hot")])
        yard.drain()
        yard.seal()
        first, second, third = yard.archive()
        for archive in (first, second):
            yard.fold(archive)
            let_go(yard.admin, archive)
        yard.fold(third)
        yield Yards(yard, stack)


def recovered(yard: Yard) -> RecoveryReport:
    report = recover(yard.worker, PROJECT)
    assert (report.manifest.lost, report.manifest.failed, report.not_erased) == ([], None, None)
    return report


def claim(yard: Yard) -> None:
    ownership.claim(yard.worker, yard.store, yard.location)
    yard.drain()
    yard.seal()
    yard.archive()


def erased(yard: Yard, person: Person, mode: Mode = "anonymise") -> Erasure:
    return erase(yard.worker, PROJECT, person, mode=mode, keeps=["n"], reason="asked")


def whole(yard: Yard) -> None:
    """Metrics, archive, log and ledgers are right, and agree with each other."""
    assert yard.wrong() == {}
    yard.look()
    assert reconcile_archived(yard.worker, yard.compiler, dry_run=True, by="the test").clean
    assert yard.reconcile().clean
    assert verify(yard.worker, by="the test", deep=True).wrong == []
    assert scrub(yard.worker).damage == []
    assert yard.incidents() == []


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["anonymise", "delete"])
def test_new_transaction_ids(yards: Yards, fresh: Callable[[], str], mode: Mode) -> None:
    """The files are right under them, also those that are purged then, and after another recovery."""
    yard = yards.restored(dump(yards.original.url), fresh())
    assert recovered(yard).survey.decision.strategy == "rewrite"
    assert verify(yard.worker, by="the test", deep=True).wrong == []
    claim(yard)
    whole(yard)
    assert len(yard.purge().segments) == 1
    whole(yard)
    # Its files have checksums of two kinds now, and a border between them.
    erased(yard, COLD, mode)
    yard.forget(COLD, mode, ["n"])
    whole(yard)
    for person in (HOT,):
        again = yards.restored(dump(yard.url), fresh())
        recovered(again)
        claim(again)
        whole(again)
        erased(again, person, mode)
        again.forget(person, mode, ["n"])
        whole(again)
