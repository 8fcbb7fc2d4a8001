"""A restore where segments were purged: the archive alone has their events, and its files keep their own ids."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
import pytest

from refold import SourceEvent, append
from refold.embedded import EmbeddedServer
from refold.engine.archive import ownership
from refold.engine.archive.object_store import open_store
from refold.engine.archive.sources import Unreadable
from refold.engine.archive.verify import verify
from refold.engine.erasure import again
from refold.engine.erasure.restored import apply
from refold.engine.erasure.run import erase
from refold.engine.reconcile.archived import reconcile_archived
from refold.engine.recovery import RecoveryReport, recover
from refold.engine.scrub.scrub import scrub
from refold.model.erasure import Person
from refold.store import archives, incidents
from refold.store.erasures import Erasure, Mode
from refold.store.schema.migrate import migrate
from tests.engine.erasure.conftest import Shop
from tests.engine.purge.conftest import ENDS, PROJECT, Yard, segments_of
from tests.support.backfilling import command
from tests.support.clusters import dump, make_database, restore
from tests.support.law import MONDAY, worker_connection
from tests.support.live import make_live
from tests.support.purging import let_go
from tests.support.tampering import tamper

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
        for person in (COLD, HOT):
            # Samples of damage, and keys that were healed.
            found = {"damage": [{"event_id": f"e-{person.user_id}-s02"}], "keys": [{"user_id": person.user_id}]}
            incidents.detect(yard.worker, "log_damage", person.user_id, by="a test", evidence=found)
            incidents.resolve(yard.worker, "log_damage", person.user_id, by="a test", outcome=found)
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


def holding(yard: Yard, *people: Person) -> list[str]:
    """The columns of the database that hold one of these, alone or within an id."""
    signs = [value for one in people for value in one.values]
    return Shop(yard.url, yard.admin, yard.worker).holding(*signs)


def ids_of(yard: Yard) -> set[str]:
    return {event_id for event_id, _ in yard.standing().values()}


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["anonymise", "delete"])
@pytest.mark.parametrize("where", ["here", "elsewhere"])
def test_erased_since_the_backup(
    yards: Yards, old: EmbeddedServer, fresh: Callable[[], str], mode: Mode, where: str
) -> None:
    """Nothing of the people is left, also not in what the recovery itself has recorded."""
    original = yards.original
    copied = dump(original.url)
    assert holding(original, COLD) and holding(original, HOT)
    for person in (COLD, HOT):
        erased(original, person, mode)
        original.forget(person, mode, ["n"])
        assert holding(original, person) == []
    whole(original)
    url = make_database(old, f"{original.admin.info.dbname}_copy") if where == "here" else fresh()
    yard = yards.restored(copied, url)
    with pytest.raises(Unreadable) as refused:
        apply(yard.worker, yard.compiler, again.export(original.worker))
    assert "refold recover" in str(refused.value.remedy)
    report = recovered(yard)
    assert report.survey.decision.strategy == ("prove" if where == "here" else "rewrite")
    assert report.erased == 2
    # Also before the people are cleaned from all places: what was healed is recorded as counts.
    assert yard.admin.execute("SELECT DISTINCT key, before, after FROM refold.repairs").fetchall() == [({}, None, None)]
    assert holding(yard, COLD, HOT) == []
    assert ids_of(yard) == ids_of(original)
    # Also what stands in the place of the people is the same.
    yard.admin.execute("TRUNCATE everything")
    with (
        original.admin.cursor().copy("COPY everything TO STDOUT") as given,
        yard.admin.cursor().copy("COPY everything FROM STDIN") as taken,
    ):
        for part in given:
            taken.write(part)
    yard.drain()
    whole(yard)
    retried = [one for person in (COLD, HOT) for prefix in ("s0", "s1") for one in of(person, prefix)]
    assert {one.answer for one in append(yard.admin, retried)} == {"duplicate"}
    assert holding(yard, COLD, HOT) == []


@pytest.mark.slow
def test_the_same_transaction_ids(yards: Yards) -> None:
    """As after pg_upgrade: nothing about the files changes."""
    yard = yards.original
    yard.admin.execute("UPDATE refold.settings SET system_identifier = 1")
    assert recovered(yard).survey.decision.strategy == "adopt"
    claim(yard)
    erased(yard, COLD)
    yard.forget(COLD, "anonymise", ["n"])
    whole(yard)


@pytest.mark.slow
def test_other_hash_functions(yards: Yards) -> None:
    """The checksums of purged events are computed again, from files that have the SHA-256 of those that were proved."""
    yard = yards.original
    yard.admin.execute("UPDATE refold.settings SET hash_probe[1] = hash_probe[1] + 1")
    tamper(yard.admin, "UPDATE refold.event_ids SET digest = digest # 4711")
    yard.admin.execute("UPDATE refold.archive_slices SET hash = hash + 4711, ids = ids + 4711")
    # A border cuts the slice of all purged events: two files have a part of it.
    yard.admin.execute("UPDATE refold.sealed_slices SET hash = hash + 2 * 4711, ids = ids + 2 * 4711 WHERE slice = 0")
    yard.admin.execute("UPDATE refold.checksums SET hash = hash + 4711")
    assert recovered(yard).survey.decision.strategy == "prove"
    yard.drain()
    yard.seal()
    yard.archive()
    assert verify(yard.worker, by="the test", deep=True).wrong == []
    erased(yard, COLD)
    yard.forget(COLD, "anonymise", ["n"])
    whole(yard)


@pytest.mark.slow
def test_the_plan_tells_of_the_archive(yards: Yards, old: EmbeddedServer) -> None:
    """Of what took the place of its files, of erasures, and of the claim that another database has."""
    original = yards.original
    copied = dump(original.url)
    erased(original, COLD)
    url = make_database(old, f"{original.admin.info.dbname}_plan")
    yard = yards.restored(copied, url)
    planned = command(url, "recover", "--dry-run", "--projections", str(PROJECT))
    assert "it lacks 2 files of the manifest" in planned.stdout
    assert "erasures of people: 1 are not in the backup, and would be done again" in planned.stdout
    assert "nothing would be archived until you claim the store" in planned.stderr
    done = command(url, "recover", "--yes", "--projections", str(PROJECT))
    assert "nothing is archived until you claim the store" in done.stderr
    assert holding(yard, COLD) == []
