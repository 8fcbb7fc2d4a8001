"""Delivering a sink: messages while it follows, differing slices before that; never with a transaction open meanwhile.

A turn takes the lease, reads keys and rows in one snapshot, gives the rows to the receiver, and records in one
transaction that they were confirmed: messages deleted, checksums moved, the next state. A crash before that
transaction means that the same rows are given again.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import cast

import psycopg

from refold import tracing
from refold.errors import RefoldError
from refold.model.erasure import ErasureNotice
from refold.model.sink import state as steps
from refold.model.sink.sink_file import Grain
from refold.model.sink.state import LEASE, SinkState
from refold.model.stream.cursor import EMPTY, Cursor, next_read
from refold.postgres.failpoints import failpoint
from refold.postgres.snapshot import snapshot
from refold.postgres.sqlstate import transient
from refold.prose import counted
from refold.sinks import read, stream
from refold.sinks.kinds.registry import AnyReceiver, receiver
from refold.sinks.receiver import (
    Audited,
    Change,
    DeliveryError,
    Gone,
    KeyedReceiver,
    Misconfigured,
    NotOwner,
    Owner,
    Refused,
    Shape,
    SlicedReceiver,
    Told,
    TooLarge,
    Unavailable,
    Version,
)
from refold.store import erasure_notices, outbox, sinks, undelivered
from refold.store.builds.build import Build, by_id, lock, version
from refold.store.builds.compiled import Compiler
from refold.store.sinks import Fenced, Sink

log = logging.getLogger("refold.sinks")

MESSAGES = 20
"""Most messages of a turn."""
SLICES = 16
"""Most slices that a turn compares and gives anew."""
ROWS = 20_000
"""Rows after which a turn that gives slices ends."""
MOST_REFUSED = 100
"""Refused rows that may wait; beyond, it is the receiver that is wrong, not the rows."""
SETTLING = 5.0
"""Seconds after which it is recorded again what the receiver has of slices that change all the time: a row that is
updated with every delivery would, while somebody holds an old snapshot, be slower to find each time."""
ALL_REFUSED = 20
"""So many rows that are refused one after another, and none taken, mean the same."""


@dataclass(slots=True)
class _Open:
    """A receiver that this process holds open.

    Args:
        receiver: it.
        shape: the form of the rows that it was opened for.
        definition: the text of the sink's file.
        number: number of the state after this process's last step.
        grain: what the sink delivers.
        spoilt: slices that were given but for rows that the receiver refuses.
        looked: whether the slices that the receiver has are noted.
        renewed: when the lease was last made longer, monotonic seconds.
        settled: when it was last recorded what the receiver has of the slices that messages change, monotonic seconds.
        unsettled: whether some of them have changed since.
    """

    receiver: AnyReceiver
    shape: Shape
    definition: str
    number: int
    grain: Grain
    spoilt: set[int] = field(default_factory=set)
    looked: bool = False
    renewed: float = field(default_factory=time.monotonic)
    settled: float = -SETTLING
    unsettled: bool = False

    @property
    def sliced(self) -> bool:
        """Return whether it takes whole slices."""
        return not hasattr(self.receiver, "deliver")

    @property
    def settles(self) -> bool:
        """Return whether it is time to record what the receiver has."""
        return time.monotonic() - self.settled >= SETTLING

    @property
    def lists(self) -> bool:
        """Return whether the sink keeps the keys that were delivered, because the receiver cannot tell them."""
        return self.grain == "rows" and not self.remembers

    @property
    def remembers(self) -> bool:
        """Return whether the receiver can find the rows that it has of a slice."""
        return self.sliced or cast(KeyedReceiver, self.receiver).remembers


@dataclass(slots=True)
class _Given:
    """What a turn has given to the receiver.

    Args:
        taken: the rows that it confirmed.
        refused: the rows that it refuses, with its errors.
        batch: most rows at once, as the receiver made it smaller.
        advanced: whether it has confirmed anything of this version.
    """

    batch: int
    advanced: bool = False
    taken: list[Change] = field(default_factory=list)
    refused: list[tuple[Change, DeliveryError]] = field(default_factory=list)


@dataclass(slots=True)
class _Turn:
    """What a turn is to give, as one snapshot shows it.

    Args:
        at: version of the rows.
        batch: most rows at once.
        touched: the slices that they are in.
        known: whether the receiver then has all that was committed by now, and it is time to record it.
        changes: the rows, for a receiver that takes single rows.
        parts: whole slices, for one that takes those.
        checksums: the checksums of the slices, if `known`.
    """

    at: Version
    batch: int
    touched: set[int]
    known: bool
    changes: list[Change] = field(default_factory=list)
    parts: dict[int, list[Change]] = field(default_factory=dict)
    checksums: dict[int, tuple[int, int]] = field(default_factory=dict)


class Deliverer:
    """Delivers sinks, one turn at a time, over one connection.

    Args:
        conn: acts as refold_worker, in autocommit mode.
        compiler: makes the SQL of the builds.
        me: name of this deliverer, unique in the cluster.
    """

    def __init__(self, conn: psycopg.Connection, compiler: Compiler, me: str) -> None:
        self._conn = conn
        self._compiler = compiler
        self._me = me
        self._open: dict[int, _Open] = {}

    def due(self, sink: Sink, state: SinkState, now: datetime) -> bool:
        """Return whether a turn would do something."""
        if not steps.due(state, now, self._me):
            return False
        build = self._build(state)
        return build is not None and (
            not state.following
            or self._waits(state, build)
            or self._unsettled(sink)
            or erasure_notices.waits(self._conn, sink.sink_id)
        )

    def _unsettled(self, sink: Sink) -> bool:
        one = self._open.get(sink.sink_id)
        return one is not None and one.unsettled and one.settles

    def waits(self, sink: Sink) -> bool:
        """Return whether there is something to deliver."""
        state, _ = sinks.state(self._conn, sink.sink_id)
        build = self._build(state)
        return build is not None and self._waits(state, build)

    def turn(self, sink: Sink) -> bool:
        """Deliver what is due of a sink; return whether there may be more.

        Failures of the receiver are recorded as states of the sink. A step that another session has overtaken ends the
        turn.
        """
        try:
            state = self._take(sink)
            if state is None:
                return False
            failpoint("sink_taken")
            build = self._build(state)
            if build is None:
                return False
            return self._deliver(sink, state, build)
        except Fenced:
            self._close(sink.sink_id)
            return False

    def seize(self, sink: Sink) -> tuple[_Open | None, Build | None]:
        """Take the lease of a sink, whoever holds it, and open its receiver with a new token.

        Returns:
            The receiver and the build; None if there is nothing to deliver.

        Raises:
            DeliveryError: the receiver cannot be opened.
        """
        with self._conn.transaction():
            state = sinks.step(self._conn, sink.sink_id, lambda now, at: steps.taken(now, at, self._me))
        assert state is not None
        self._close(sink.sink_id)
        build = self._build(state)
        return (None, None) if build is None else (self._opened(sink, state, build), build)

    def receiver_of(self, sink: Sink) -> AnyReceiver | None:
        """Return the receiver that is open for a sink."""
        one = self._open.get(sink.sink_id)
        return None if one is None else one.receiver

    def keeps(self, sink: Sink) -> bool:
        """Return whether nobody else has taken a step of a sink whose receiver is open, and keep its lease."""
        one = self._open.get(sink.sink_id)
        if one is None or sinks.state(self._conn, sink.sink_id)[0].number != one.number:
            return False
        try:
            self._renew(sink, one)
        except Fenced:
            return False
        return True

    def give_again(self, sink: Sink, slices: Sequence[int]) -> None:
        """Let slices be given anew, because the receiver does not have what it confirmed; for an open receiver."""
        one = self._open[sink.sink_id]
        with self._conn.transaction():
            one.number = self._step(sink, one.number, lambda now, _: steps.collapsed(now)).number
            sinks.confirm(self._conn, sink.sink_id, [(number, None, None) for number in slices])

    def close(self) -> None:
        """Close all receivers."""
        for sink_id in list(self._open):
            self._close(sink_id)

    def release(self) -> None:
        """Close all receivers, and give the leases back."""
        for sink_id, one in list(self._open.items()):
            self._close(sink_id)
            try:
                with self._conn.transaction():
                    sinks.step(self._conn, sink_id, lambda now, _: steps.let_go(now), after=one.number)
            except (Fenced, psycopg.Error):
                continue

    def _take(self, sink: Sink) -> SinkState | None:
        """Take the lease, or keep it while it is long enough; None if there is nothing to do now."""
        with self._conn.transaction():
            if not sinks.lock(self._conn, sink.sink_id):
                return None
            state, now = sinks.state(self._conn, sink.sink_id)
            if not steps.due(state, now, self._me):
                return None
            one = self._open.get(sink.sink_id)
            kept = one is not None and one.number == state.number and state.holder == self._me
            if kept and steps.renewed(state, now) is None:
                return state
            new = steps.taken(state, now, self._me)
            sinks.add(self._conn, new)
            return new

    def _waits(self, state: SinkState, build: Build) -> bool:
        if state.cursor is not None and next_read(state.cursor, build.cursor) is not None:
            return True
        return outbox.waits(self._conn, state.sink_id, state.passed)

    def _build(self, state: SinkState) -> Build | None:
        build = None if state.build_id is None else by_id(self._conn, state.build_id)
        return build if build is not None and build.state == "live" and build.loaded else None

    def _deliver(self, sink: Sink, state: SinkState, build: Build) -> bool:
        try:
            one = self._opened(sink, state, build)
            if one is None:
                return False
            if not state.following:
                return self._resync(sink, one, build)
            # What an erasure has changed was committed before its notice, and is delivered before it.
            notices = erasure_notices.waiting(self._conn, sink.sink_id)
            # Messages name rows that the cursor of the sink has passed, so they come first.
            if state.cursor is None or outbox.waits(self._conn, sink.sink_id, state.passed):
                more = self._follow(sink, one, build)
            else:
                more = self._read_on(sink, one, build)
            if not more:
                for notice in notices:
                    self._tell(sink, one, state, notice)
            return more
        except DeliveryError as error:
            self._close(sink.sink_id)
            self._failed(sink, error)
        except RefoldError as error:
            # The file, the metric or this process is not fit for it: a person must change something.
            self._close(sink.sink_id)
            self._failed(sink, Misconfigured(str(error), remedy=error.remedy))
        except psycopg.Error as error:
            # The receiver's errors are told by it: this is one of the metric's own database.
            self._close(sink.sink_id)
            if transient(error) or self._conn.closed:
                raise
            self._failed(sink, Misconfigured(f"the metric cannot be read: {str(error).splitlines()[0]}"))
        return False

    # The receiver

    def _opened(self, sink: Sink, state: SinkState, build: Build) -> _Open | None:
        """Return the open receiver; open it with a new token unless this process has it open since its last step."""
        source = self.source(sink, build)
        one = self._open.get(sink.sink_id)
        if (
            one is not None
            and one.number in (state.number, state.number - 1)
            and (one.shape, one.definition) == (source.shape, sink.definition)
        ):
            one.number = state.number
            return one
        self._close(sink.sink_id)
        token = secrets.token_hex(16)
        number = self._step(sink, state.number, lambda now, at: steps.opening(now, at, token)).number
        made = receiver(sink.definition)
        try:
            found = made.open(source.shape, Owner(token, frozenset(state.tokens)))
        except BaseException:
            made.close()
            raise
        self._open[sink.sink_id] = one = _Open(made, source.shape, sink.definition, number, sink.grain)
        failpoint("sink_opened")
        latest = Version(state.epoch, version(self._conn, build.build_id))
        epoch, other = state.epoch, False
        if found is None:
            # If this database was set back, the receiver has been given later versions, and cannot say so.
            epoch = max(epoch + 1, sinks.epoch_at(sinks.state(self._conn, sink.sink_id)[1]))
        elif found > latest:
            # Later than anything this database has delivered: it was restored, or the sink was created again.
            epoch, other = found.epoch + 1, True
        else:
            # Earlier than what the receiver has confirmed: it was set back, or is a new one.
            other = found < Version(state.given_epoch or 0, state.given_number or 0)
        with self._conn.transaction():
            new = self._step(sink, one.number, lambda now, at: steps.opened(now, at, epoch))
            if other:
                found_slices = cast(Audited, made).slices() if hasattr(made, "slices") else ()
                sinks.forget_checksums(self._conn, sink.sink_id, found_slices)
                new = self._step(sink, new.number, lambda now, _: steps.collapsed(now))
        one.number = new.number
        return None if other else one

    def _close(self, sink_id: int) -> None:
        one = self._open.pop(sink_id, None)
        if one is not None:
            one.receiver.close()

    def _failed(self, sink: Sink, error: DeliveryError) -> None:
        message = f"{error}" if error.remedy is None else f"{error}. {error.remedy}"

        def to(state: SinkState, now: datetime) -> SinkState | None:
            if state.holder != self._me:
                return None
            if isinstance(error, Gone | NotOwner):
                return steps.stopped(state, message, error.status)
            after = error.retry_after if isinstance(error, Unavailable) else None
            return steps.failed(state, now, message, error.status, retry_after=after)

        with self._conn.transaction():
            new = sinks.step(self._conn, sink.sink_id, to)
        if new is not None and (new.failures == 1 or new.condition == "stopped"):
            log.warning("%s: %s", sink.name, message)

    def _step(self, sink: Sink, after: int, to: sinks.Step) -> SinkState:
        with self._conn.transaction():
            new = sinks.step(self._conn, sink.sink_id, to, after=after)
        assert new is not None
        return new

    # Messages

    def _follow(self, sink: Sink, one: _Open, build: Build) -> bool:
        """Give the rows that messages name."""
        conn = self._conn
        with self.snapshot():
            source = self.source(sink, build)
            state = self._present(sink, one)
            waits = outbox.read(conn, sink.sink_id, state.passed, source.shape.key, MESSAGES)
            if not waits.messages and not self._unsettled(sink):
                return False
            keys, known = waits.keys, waits.all
            if state.cursor is not None:
                build = by_id(conn, build.build_id)
                keys = stream.passed(conn, build, state.cursor, keys)
                known = known and next_read(state.cursor, build.cursor) is None
            turn = self._turn(sink, one, source, build, state, keys, known=known and one.settles)
        self._deliver_turn(sink, one, turn, messages=waits.messages)
        return not waits.all or state.cursor is not None

    def _read_on(self, sink: Sink, one: _Open, build: Build) -> bool:
        """Give the next rows of the stream behind the sink's cursor, in order."""
        conn = self._conn
        with self.snapshot():
            build = by_id(conn, build.build_id)
            state = self._present(sink, one)
            page = None if state.cursor is None else stream.next_page(conn, build, state.cursor)
            if page is None:
                if state.cursor is None or not self._unsettled(sink):
                    return False
                page = stream.StreamPage([], state.cursor, all=True)
            known = page.all and not outbox.waits(conn, sink.sink_id, state.passed)
            turn = self._turn(sink, one, self.source(sink, build), build, state, page.keys, known=known and one.settles)
        self._deliver_turn(sink, one, turn, cursor=page.cursor)
        return not page.all

    def _turn(
        self, sink: Sink, one: _Open, source: read.Source, build: Build, state: SinkState,
        keys: Sequence[tuple[int, str]], *, known: bool,
    ) -> _Turn:  # fmt: skip
        """Read the rows of some keys, in their order, in the caller's snapshot.

        Args:
            sink: the sink.
            one: its receiver.
            source: what the sink delivers.
            build: the build.
            state: the state of the sink.
            keys: slice and key of the rows.
            known: whether the receiver then has all that was committed by now, and it is time to record it.
        """
        conn = self._conn
        at = Version(state.epoch, version(conn, build.build_id))
        turn = _Turn(at, state.batch, {number for number, _ in keys}, known)
        if one.sliced:
            turn.parts = {number: self._rows(source, one, number) for number in sorted(turn.touched)}
        else:
            found = {one.key: one for one in read.changes_of(conn, source, keys, json=one.receiver.needs_json)}
            turn.changes = [found[key] for key in dict.fromkeys(key for _, key in keys)]
            if not one.remembers and one.grain == "events":
                turn.changes = [change for change in turn.changes if change.values is not None]
        if known:
            # What the receiver has then is known again.
            turn.touched |= sinks.unknown_slices(conn, sink.sink_id)
            turn.checksums = read.build_checksums(conn, build.build_id, turn.touched)
        return turn

    def _deliver_turn(
        self, sink: Sink, one: _Open, turn: _Turn, *, messages: Sequence[int] = (), cursor: Cursor | None = None
    ) -> None:
        """Give the rows of a turn, and record that they were confirmed; then their messages go, or the cursor moves."""
        conn = self._conn
        failpoint("sink_read")
        given = _Given(turn.batch)
        for number, rows in turn.parts.items():
            with tracing.work("deliver", sink.name, rows=len(rows)):
                cast(SlicedReceiver, one.receiver).replace(turn.at, number, rows)
            given.taken += rows
            given.advanced = True
            self._renew(sink, one)
        self._give(sink, one, turn.at, turn.changes, given)
        failpoint("sink_sent")
        spoilt = {change.slice for change, _ in given.refused} | undelivered.slices(conn, sink.sink_id)
        known = turn.touched - spoilt if turn.known else set()
        confirmed: list[tuple[int, int | None, int | None]] = [
            (number, *(turn.checksums.get(number, (0, 0)) if number in known else (None, None)))
            for number in turn.touched
        ]
        with conn.transaction():
            self._confirm(sink, one, turn.at, given, confirmed, passed=max(messages, default=0), cursor=cursor)
            outbox.delete(conn, sink.sink_id, messages)
        one.unsettled = not turn.known
        if turn.known:
            one.settled = time.monotonic()
        failpoint("sink_acknowledged")

    def _tell(self, sink: Sink, one: _Open, state: SinkState, notice: ErasureNotice) -> None:
        """Tell the receiver of an erasure, once; it may refuse the notice."""
        taken = True
        try:
            cast(Told, one.receiver).tell(notice)
        except (Refused, TooLarge) as error:
            log.warning("%s: the receiver refuses the notice of erasure %d: %s", sink.name, notice.erasure_id, error)
            taken = False
        failpoint("sink_told")
        with self._conn.transaction():
            self._confirm(sink, one, Version(state.epoch, 0), _Given(state.batch), [])
            erasure_notices.told(self._conn, sink.sink_id, notice.erasure_id, taken=taken)

    # Slices

    def _resync(self, sink: Sink, one: _Open, build: Build) -> bool:
        """Attach the sink to the build, and give the slices that differ from what the receiver has confirmed."""
        conn = self._conn
        if sink.sink_id not in build.sinks:
            with conn.transaction():
                # Pages that are writing now end first; all later ones send their keys.
                locked = lock(conn, build.build_id, wait=True)
                if locked is None or locked.state != "live":
                    return False
                sinks.attach(conn, build.build_id, sink.sink_id)
            one.spoilt.clear()
            build = by_id(conn, build.build_id)
        if not sink.once:
            self._look_at_receiver(sink, one)
        read_on = sinks.state(conn, sink.sink_id)[0].cursor is not None
        if read_on and (sink.once or not sinks.checksums(conn, sink.sink_id)):
            self._go_on(sink, one, build)
            return True
        with self.snapshot():
            left = self._differing(sink, one, build)
            reached = by_id(conn, build.build_id).cursor if sink.grain == "events" else None
        if not left:
            following = self._step(
                sink, one.number, lambda now, at: steps.delivered(now, at, 0, following=True, cursor=reached)
            )
            one.number = following.number
            return True
        rows = 0
        for number in left[:SLICES]:
            with self.snapshot():
                state = self._present(sink, one)
                at = Version(state.epoch, version(conn, build.build_id))
                changes = self._rows(self.source(sink, build), one, number)
                kept = read.build_checksums(conn, build.build_id, [number]).get(number, (0, 0))
            failpoint("sink_read")
            given = _Given(state.batch)
            if one.sliced:
                with tracing.work("deliver", sink.name, rows=len(changes)):
                    cast(SlicedReceiver, one.receiver).replace(at, number, changes)
                given.taken += changes
                given.advanced = True
            else:
                self._give(sink, one, at, changes, given)
                if one.lists:
                    self._give(sink, one, at, self._gone(sink, at, number, changes), given)
                elif one.remembers:
                    cast(KeyedReceiver, one.receiver).sweep(at, number)
                    given.advanced = True
            failpoint("sink_sent")
            with conn.transaction():
                self._confirm(sink, one, at, given, [(number, *((None, None) if given.refused else kept))])
                # A row that was refused before and is gone by now is told by no other way.
                undelivered.settle(conn, sink.sink_id, number, [change.key for change, _ in given.refused])
            failpoint("sink_acknowledged")
            if given.refused:
                one.spoilt.add(number)
            rows += len(changes)
            if rows >= ROWS:
                break
        return True

    def _go_on(self, sink: Sink, one: _Open, build: Build) -> None:
        """Let a sink of events read on from its cursor: a new one, or one that gives each row once."""
        with self._conn.transaction():
            if sink.once:
                # It is given no row of before, whatever another build made of it.
                sinks.lock(self._conn, sink.sink_id)
                sinks.adopt_checksums(self._conn, sink.sink_id, build.build_id)
            elif sinks.state(self._conn, sink.sink_id)[0].cursor != Cursor(EMPTY):
                # Rows were let go before it began: what the receiver lacks of them is no message that was lost.
                sinks.lock(self._conn, sink.sink_id)
                sinks.doubt(self._conn, sink.sink_id, list(read.build_checksums(self._conn, build.build_id)))
            new = self._step(sink, one.number, lambda now, at: steps.delivered(now, at, 0, following=True))
        one.number = new.number

    def _look_at_receiver(self, sink: Sink, one: _Open) -> None:
        """Note the slices of which the receiver may have rows, where nothing is known of them."""
        if one.looked:
            return
        one.looked = True
        known = sinks.checksums(self._conn, sink.sink_id).keys()
        if one.lists:
            found = sinks.key_slices(self._conn, sink.sink_id) - known
        elif not known and hasattr(one.receiver, "slices"):
            found = set(cast(Audited, one.receiver).slices())
        else:
            return
        if found:
            with self._conn.transaction():
                sinks.confirm(self._conn, sink.sink_id, [(number, None, None) for number in found])

    def _differing(self, sink: Sink, one: _Open, build: Build) -> list[int]:
        """Return the slices that the receiver does not have as they are."""
        differ = sinks.differing(self._conn, sink.sink_id, build.build_id)
        return [number for number in differ if number not in one.spoilt]

    def _gone(self, sink: Sink, at: Version, number: int, changes: Sequence[Change]) -> list[Change]:
        """Return the rows of a slice that the receiver was given and that are gone."""
        present = {change.key for change in changes}
        stale = sinks.keys_before(self._conn, sink.sink_id, number, *at)
        return [Change(key, number, None) for key in stale if key not in present]

    # Both

    def _rows(self, source: read.Source, one: _Open, number: int) -> list[Change]:
        return list(read.changes_of_slice(self._conn, source, number, json=one.receiver.needs_json))

    def _give(self, sink: Sink, one: _Open, at: Version, changes: Sequence[Change], given: _Given) -> None:
        """Give rows in batches; a row that the receiver refuses is found by halves, and the others go on."""
        todo = [list(changes[i : i + given.batch]) for i in range(0, len(changes), given.batch)]
        todo.reverse()
        while todo:
            part = todo.pop()
            try:
                with tracing.work("deliver", sink.name, rows=len(part)):
                    cast(KeyedReceiver, one.receiver).deliver(at, part)
            except (Refused, TooLarge) as error:
                if len(part) > 1:
                    half = len(part) // 2
                    todo += [part[half:], part[:half]]
                    if isinstance(error, TooLarge):
                        given.batch = max(1, min(given.batch, half))
                    continue
                given.refused.append((part[0], error))
                if len(given.refused) > MOST_REFUSED or (len(given.refused) >= ALL_REFUSED and not given.taken):
                    raise Misconfigured(
                        f"the receiver refuses row after row: {error}", status=error.status,
                        remedy="Correct the receiver or the sink's file; no row is given up.",
                    ) from error  # fmt: skip
            else:
                given.taken += part
                given.advanced = True
            self._renew(sink, one)

    def _confirm(
        self,
        sink: Sink,
        one: _Open,
        at: Version,
        given: _Given,
        confirmed: Sequence[tuple[int, int | None, int | None]],
        *,
        passed: int = 0,
        cursor: Cursor | None = None,
    ) -> None:
        """Record what the receiver has confirmed, in the caller's transaction; Fenced if somebody else took over."""
        conn = self._conn

        def to(state: SinkState, now: datetime) -> SinkState:
            smaller = given.batch if given.batch < state.batch else None
            version_given = at if given.advanced else None
            return steps.delivered(
                state, now, len(given.taken), given=version_given, batch=smaller, passed=passed, cursor=cursor
            )

        failures = sinks.state(conn, sink.sink_id)[0].failures
        new = sinks.step(conn, sink.sink_id, to, after=one.number)
        assert new is not None
        if failures:
            log.info("%s: delivers again, after %s", sink.name, counted(failures, "failure"))
        sinks.confirm(conn, sink.sink_id, confirmed)
        if one.lists:
            sinks.remember_keys(
                conn, sink.sink_id, at.epoch, at.number,
                [(change.key, change.slice) for change in given.taken if change.values is not None],
                [change.key for change in given.taken if change.values is None],
            )  # fmt: skip
        undelivered.delivered(conn, sink.sink_id, [change.key for change in given.taken])
        undelivered.add(
            conn, sink.sink_id, [(row.key, row.slice, error.status, str(error)) for row, error in given.refused]
        )
        one.number = new.number

    def _renew(self, sink: Sink, one: _Open) -> None:
        """Keep the lease during a long turn."""
        if time.monotonic() - one.renewed < LEASE.total_seconds() / 4:
            return
        with self._conn.transaction():
            new = sinks.step(self._conn, sink.sink_id, steps.renewed, after=one.number)
        one.renewed = time.monotonic()
        if new is not None:
            one.number = new.number

    def source(self, sink: Sink, build: Build) -> read.Source:
        """Return what a sink delivers of a build."""
        return read.source(self._conn, sink.name, sink.grain, build, self._compiler.of(self._conn, build))

    def _present(self, sink: Sink, one: _Open) -> SinkState:
        """Return the state as the caller's snapshot shows it.

        Raises:
            Fenced: another session has taken a step, such as a switch to another build: rows of this one must not be
                delivered under its epoch.
        """
        state, _ = sinks.state(self._conn, sink.sink_id)
        if state.number != one.number:
            raise Fenced
        return state

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """Return a transaction that reads all of one moment."""
        with snapshot(self._conn):
            yield
