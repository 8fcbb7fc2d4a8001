"""Histories in which the log is archived, purged and erased while it grows: the law holds after each step."""

from __future__ import annotations

import json
import shutil
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from random import Random
from typing import Any

import psycopg
import pytest
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st
from psycopg import sql

from refold import SourceEvent
from refold.engine.apply.page import apply_next_page
from refold.engine.archive.object_store import open_store
from refold.engine.deployment.deploy import deploy
from refold.engine.erasure.run import erase, look
from refold.engine.publish.switch import drop_superseded
from refold.engine.purge import fold as folding
from refold.engine.purge.purge import drop
from refold.engine.reconcile.archived import reconcile_archived
from refold.engine.scrub.scrub import scrub
from refold.model.erasure import Person
from refold.model.event.source_event import metadata_json
from refold.model.stream.page_sql import Stream
from refold.model.stream.parameters import cursor_parameters
from refold.service.worker.pending import builds_with_work
from refold.store import archives
from refold.store.builds.build import Build
from refold.store.erasures import Mode
from refold.store.log.cold_ledger import chill_step
from tests.conftest import ServerUnderTest
from tests.engine.purge.conftest import CHANGES, ENDS, PROJECT, Yard
from tests.support.backfilling import check, give, stage, write
from tests.support.law import worker_connection, wrong_metrics

MODES: tuple[Mode, ...] = ("anonymise", "delete")
Script = list[tuple[str, int]]
"""Names of steps, each with the seed of what it draws."""


class History:
    """What happens to a yard, one step after the other.

    Args:
        yard: the yard, with what it was given.
    """

    def __init__(self, yard: Yard) -> None:
        self.yard = yard
        self.sent = {event.id: event for event in yard.given}
        self.users = {event.id: event.user_id for event in yard.given}
        """Whose each event is that counts: an erased one is nobody's, or does not count."""
        self.erased: set[str] = set()
        self.end = 3
        self.number = count()

    def offered(self, random: Random, *, new: int, again: int) -> tuple[list[SourceEvent], list[str]]:
        """Make events, of which some came before, a few with other content; with what each must be answered."""
        events = self.yard.made(new)
        answers = ["accepted"] * new
        for id in random.sample(sorted(self.sent), again):
            events.append(self.sent[id].model_copy(update={"action": "other"} if random.random() < 0.3 else {}))
            answers.append("duplicate" if id in self.erased or events[-1] == self.sent[id] else "conflict")
        self.sent |= {event.id: event for event in events[:new]}
        self.users |= {event.id: event.user_id for event in events[:new]}
        return events, answers

    # What may happen

    def append(self, random: Random) -> None:
        """Events of any time, new ones and such as came before: archived, purged and erased ones, too."""
        events, answers = self.offered(random, new=random.randrange(1, 25), again=random.randrange(12))
        assert [str(one.answer) for one in self.yard.append(events)] == answers

    def page(self, random: Random) -> None:
        """Some builds apply a page, in any order."""
        for build in random.sample(self.yard.builds(), 4):
            apply_next_page(self.yard.worker, self.yard.compiler.of(self.yard.worker, build), random.randrange(1, 9))

    def drain(self, random: Random) -> None:
        self.yard.drain()

    def next_segment(self, random: Random) -> None:
        """The log goes on in the next segment; the former one is sealed and archived."""
        if self.end < len(ENDS) - 1:
            self.yard.drain()
            self.yard.skip_to(ENDS[self.end])
            self.end += 1
            self.yard.seal()
            self.yard.archive()

    def fold(self, random: Random) -> None:
        """A step for one build, as large as it happens to be."""
        first = archives.find(self.yard.worker, "a.state = 'verified' AND a.lower_position = refold.log_floor()")
        builds = [one for one in self.yard.of_log() if one.upkeep in ("merge", "members")]
        if first:
            build = random.choice(builds)
            folding.fold(self.yard.worker, self.yard.compiler, build, first[0], step=random.randrange(100, 20_000))

    def purge(self, random: Random) -> None:
        """Whatever nobody needs any more leaves the log; perhaps no rollback needs it either."""
        if random.random() < 0.7:
            drop_superseded(self.yard.worker, keep=0)
        done = self.yard.purge()
        found = [] if done.stopped_at is None else done.stopped_at.obstacles
        assert all(one.passes or "for a rollback" in one.reason for one in found)

    def settle(self, random: Random) -> None:
        for build in self.yard.of_log():
            if build.based and build.upkeep in ("merge", "members"):
                folding.settle(self.yard.worker, self.yard.compiler, build, at_most=random.randrange(1, 20))

    def chill(self, random: Random) -> None:
        """Ids of purged events go to the cold ledger."""
        for _ in range(random.randrange(1, 4)):
            chill_step(self.yard.worker)

    def damage(self, random: Random) -> None:
        """Rows of a merged metric are deleted by hand, and healed."""
        build = random.choice([one for one in self.yard.of_log() if one.upkeep in ("merge", "members")])
        table = f"refold_builds.{build.table_name}"
        self.yard.admin.execute(f"DELETE FROM {table} AS t WHERE abs(hashtext(t::text)) % 3 = 0".encode())
        self.yard.reconcile(deep=random.random() < 0.5)

    def thaw(self, random: Random) -> None:
        """A definition changes: its new build reads what was purged from the archive."""
        path = self.yard.folder / random.choice(sorted(CHANGES))
        text, (old, new) = path.read_text(), CHANGES[path.name]
        path.write_text(text.replace(new, old, 1) if new in text else text.replace(old, new, 1))
        self.yard.read()
        deploy(self.yard.worker, self.yard.folder, self.yard.definitions, lambda progress: None)

    def backfill(self, random: Random) -> None:
        """A file brings events, some of which came before."""
        events, answers = self.offered(random, new=random.randrange(1, 20), again=random.randrange(8))
        name = f"past_{next(self.number)}"
        path = write(Path(self.yard.location).with_name(f"{name}.jsonl"), map(_line, events))
        staged = stage(self.yard.url, name, path)
        told = check(self.yard.url, staged, self.yard.folder).answers
        numbers = tuple(map(answers.count, ("accepted", "duplicate", "conflict")))
        assert (told.new, told.duplicates, told.conflicts) == numbers
        done = give(self.yard.url, staged, batch=random.randrange(1, 9))
        assert (done.state, done.accepted, done.duplicates, done.conflicts) == ("done", *numbers)
        self.yard.remember()

    def erase(self, random: Random) -> None:
        """A person is erased, wherever the person is: log, archive, bases, metrics."""
        person, mode = Person(f"u{random.randrange(12)}"), random.choice(MODES)
        erase(self.yard.worker, self.yard.folder, person, mode=mode, keeps=[], reason="asked")
        self.yard.forget(person, mode)
        found = look(self.yard.worker, person)
        assert (found.events, found.mentions, found.waiting, sum(found.rows.values())) == (0, 0, {}, 0)
        assert person.user_id not in {row["user_id"] for rows in self.yard.files().values() for row in rows}
        nobody = f"erased {next(self.number)}"
        own = {id for id, user in self.users.items() if user == person.user_id}
        self.erased |= own
        for id in own:
            self.users[id] = nobody
            if mode == "delete":
                del self.users[id]

    # What must hold

    def check(self) -> None:
        """Builds are what refold's audits say they must be, and what they are over the copy of all events."""
        self.yard.look()
        waits = builds_with_work(self.yard.worker)
        if not waits:
            self.count()
        unread = {one.projection: self._unread(one) for one in self.yard.of_log()}
        definitions = {name: one for name, one in self.yard.definitions.items() if not waits or name in unread}
        assert wrong_metrics(self.yard.url, definitions, unread, log="public.everything") == {}

    def _unread(self, build: Build) -> list[str]:
        """The events that a build on the log has yet to read."""
        query = f"SELECT event_id FROM everything WHERE NOT {Stream('everything', ordinal=False).passed()}"
        found = self.yard.admin.execute(query.encode(), cursor_parameters(build.cursor)).fetchall()
        return [event_id for (event_id,) in found]

    def count(self) -> None:
        """Python counts what was given, and knows nothing of what the database did with it."""
        groups: dict[tuple[Any, ...], list[str | None]] = defaultdict(list)
        for id, user in self.users.items():
            groups[self.sent[id].ts.date(), self.sent[id].action].append(user)
        counted = {key: (len(users), len(set(users) - {None})) for key, users in groups.items()}
        rows = self.yard.admin.execute("SELECT day, action, events, users FROM metrics.daily").fetchall()
        assert {(day, action): (events, users) for day, action, events, users in rows} == counted

    def end_well(self) -> None:
        """Everything is applied, and all that can leave the log has left it; archive, log and metrics agree."""
        self.yard.drain()
        self.purge(Random(0))
        self.check()
        assert drop(self.yard.worker) == []
        assert reconcile_archived(self.yard.worker, self.yard.compiler, dry_run=True, by="the test").clean
        assert self.yard.reconcile().clean
        assert scrub(self.yard.worker).damage == []
        assert self.yard.incidents() == []


def _line(event: SourceEvent) -> str:
    """An event as a line of a file, its numbers digit for digit."""
    told = json.dumps({"id": event.id, "user_id": event.user_id, "action": event.action, "ts": event.ts.isoformat()})
    return f'{told[:-1]}, "metadata": {metadata_json(event.metadata)}}}'


STEPS = (
    "append", "page", "drain", "next_segment", "fold", "purge", "settle", "chill", "damage", "thaw", "backfill",
    "erase",
)  # fmt: skip
scripts = st.lists(
    st.tuples(st.sampled_from((*STEPS, "append", "page", "fold")), st.integers(0, 99)), min_size=12, max_size=24
)
ALL = (
    "append", "fold", "erase", "purge", "chill", "append", "thaw", "erase", "backfill", "page", "damage",
    "next_segment", "fold", "erase", "settle", "thaw", "purge", "erase", "backfill", "append", "drain", "thaw",
    "append", "page",
)  # fmt: skip
"""Everything at least once, and most of it on both sides of a purge."""


@pytest.fixture(scope="module")
def begin(
    server: ServerUnderTest, templates: Callable[[str], ServerUnderTest], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[ExitStack], History]]:
    """Begins a history, in a clone of one filled yard and a copy of its archive."""
    home = tmp_path_factory.mktemp("histories")
    location, folder, origin = home / "archive", home / "project", str(templates("archived").template_dbname)
    filled, url = f"{origin}_filled", server.url_of(f"{origin}_history")

    def opened(stack: ExitStack, url: str, *given: SourceEvent) -> Yard:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(PROJECT, folder, ignore=shutil.ignore_patterns("__pycache__"))
        admin = stack.enter_context(psycopg.connect(url, autocommit=True))
        worker = stack.enter_context(worker_connection(url))
        return Yard(url, admin, worker, str(location), open_store(str(location)), folder, list(given))

    with psycopg.connect(server.url_of(server.maintenance_dbname), autocommit=True) as conn:

        def clone(source: str, target: str) -> None:
            conn.execute(
                sql.SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY file_copy").format(
                    *map(sql.Identifier, (target, source))
                )
            )

        def drop(*names: str) -> None:
            for name in names:
                conn.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))

        clone(origin, filled)
        with ExitStack() as stack:
            yard = opened(stack, server.url_of(filled))
            yard.prepare()
        location.rename(home / "filled")

        def begin(stack: ExitStack) -> History:
            drop(f"{origin}_history")
            clone(filled, f"{origin}_history")
            shutil.rmtree(location, ignore_errors=True)
            shutil.copytree(home / "filled", location)
            return History(opened(stack, url, *yard.given))

        yield begin
        drop(filled, f"{origin}_history")


@pytest.mark.slow
@given(script=scripts)
@example(script=[(name, at) for at, name in enumerate(ALL)])
# A history takes some seconds. Without Phase.shrink: that takes minutes, and what fails is printed.
@settings(
    max_examples=max(settings().max_examples // 20, 2),
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    report_multiple_bugs=False,
)
def test_the_law_holds_at_every_step(begin: Callable[[ExitStack], History], script: Script) -> None:
    with ExitStack() as stack:
        history = begin(stack)
        for name, seed in script:
            getattr(history, name)(Random(seed))
            history.check()
        history.end_well()
