"""The state of a sink, and every step from one state to the next: lease, circuit breaker, buffer. Pure.

A state is a row of `refold.sink_states`; a step adds the row with the next number, so that two deliverers can never
both take a step from the same state. This one rule gives three things that are usually built apart:

* the lease: who delivers is the holder of the newest row, until its time is over;
* the fence: a deliverer that was frozen adds no row after another has added one;
* the circuit breaker: after a failure nobody takes the lease before `retry_at`, and then one does, for all workers.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Literal, get_args

from refold.model.stream.cursor import Cursor

Condition = Literal["active", "paused", "stopped"]
CONDITIONS: tuple[Condition, ...] = get_args(Condition)

LEASE = timedelta(seconds=60)
"""Time after which another deliverer takes over from one that is silent."""
FIRST_PAUSE, LONGEST_PAUSE = timedelta(seconds=1), timedelta(minutes=5)
"""Bounds of the pause after a failure: it doubles with each, and is drawn at random below that (full jitter)."""
LONGEST_WAIT = timedelta(hours=1)
"""Most that a receiver can ask to wait."""
BATCH = 1_000
"""Most rows of a delivery."""


@dataclass(frozen=True, slots=True)
class SinkState:
    """A state of a sink.

    Args:
        sink_id: the sink.
        number: number of the state; the greatest counts.
        condition: whether it delivers, waits for a person who paused it, or was stopped by its receiver or after a
            restore.
        following: whether messages tell all that the receiver lacks; otherwise slices are compared first.
        build_id: the build whose rows it delivers; None before the first.
        epoch: see `refold.sinks.receiver.Version`.
        holder: who delivers; None if nobody.
        leased_until: end of the lease, UTC.
        failures: failed deliveries since the last that succeeded.
        failing_since: when the first of them failed, UTC.
        retry_at: when the next is due, UTC.
        error: what the receiver said last; None while all is well.
        status: its status, such as `503`.
        batch: most rows of the next delivery.
        delivered: rows delivered since the sink was created.
        delivered_at: when rows were delivered last, UTC.
        tokens: what the receiver may hold as its owner's token (`refold.sinks.receiver.Owner`).
        given_epoch: epoch of the version that the receiver confirmed last; None before the first.
        given_number: its number.
        passed: number up to which no message waits, or will: pages send messages one after another.
        done: the cursor of a sink of grain `events`, in parts, with `target` and `progress_*`; None for others, and
            while slices are compared.
    """

    sink_id: int
    number: int
    condition: Condition
    following: bool
    build_id: int | None
    epoch: int
    holder: str | None = None
    leased_until: datetime | None = None
    failures: int = 0
    failing_since: datetime | None = None
    retry_at: datetime | None = None
    error: str | None = None
    status: str | None = None
    batch: int = BATCH
    delivered: int = 0
    delivered_at: datetime | None = None
    tokens: tuple[str, ...] = ()
    given_epoch: int | None = None
    given_number: int | None = None
    passed: int = 0
    done: str | None = None
    target: str | None = None
    progress_txid: int | None = None
    progress_position: int | None = None
    progress_ordinal: int | None = None

    @property
    def cursor(self) -> Cursor | None:
        """Return which events of its stream a sink of grain `events` has delivered; None if it has to compare."""
        if self.done is None:
            return None
        return Cursor.parse(self.done, self.target, self.progress_txid, self.progress_position, self.progress_ordinal)

    @property
    def circuit_open(self) -> bool:
        """Return whether deliveries fail, so that only single attempts are made."""
        return self.failures > 0


def due(state: SinkState, now: datetime, me: str) -> bool:
    """Return whether a deliverer may deliver now. Pure.

    A time that lies further ahead than any step sets was written by a clock that was set back since: it counts as over.
    """
    if state.condition != "active" or _ahead(state.retry_at, now, LONGEST_WAIT):
        return False
    return state.holder in (None, me) or not _ahead(state.leased_until, now, LEASE)


def _ahead(at: datetime | None, now: datetime, longest: timedelta) -> bool:
    return at is not None and now < at <= now + 2 * longest


def taken(state: SinkState, now: datetime, me: str) -> SinkState:
    """Return the state after a deliverer took the lease, or kept it."""
    return _next(state, holder=me, leased_until=now + LEASE)


def opening(state: SinkState, now: datetime, token: str) -> SinkState:
    """Return the state before the receiver is opened with a new token: it may hold that one or a former one."""
    return _next(state, leased_until=now + LEASE, tokens=(*state.tokens, token))


def opened(state: SinkState, now: datetime, epoch: int) -> SinkState:
    """Return the state after the receiver took the newest token; the epoch is above what it had been given."""
    return _next(state, leased_until=now + LEASE, tokens=state.tokens[-1:], epoch=max(state.epoch, epoch))


def claimed(state: SinkState, anything: str) -> SinkState:
    """Return the state after a person said that the receiver belongs to this database."""
    return replace(resumed(state), tokens=(anything,))


def let_go(state: SinkState) -> SinkState:
    """Return the state after the holder gave its lease back."""
    return _next(state, holder=None, leased_until=None)


def delivered(
    state: SinkState,
    now: datetime,
    rows: int,
    *,
    given: tuple[int, int] | None = None,
    batch: int | None = None,
    following: bool | None = None,
    passed: int = 0,
    cursor: Cursor | None = None,
) -> SinkState:
    """Return the state after the receiver confirmed rows: the circuit closes, and batches grow again.

    Args:
        state: the state before.
        now: the time.
        rows: number of rows; 0 if there was nothing to deliver.
        given: the version of them; None if the receiver has confirmed none.
        batch: most rows that the receiver takes at once, if it refused more; None if it did not.
        following: what `SinkState.following` becomes; None leaves it.
        passed: number of the last message whose rows are among them; 0 if none is.
        cursor: the cursor of a sink of grain `events`; None leaves it.
    """
    epoch, number = given or (state.given_epoch, state.given_number)
    return _next(
        state if cursor is None else at_cursor(state, cursor),
        leased_until=now + LEASE,
        failures=0,
        failing_since=None,
        retry_at=None,
        error=None,
        status=None,
        # Slowly, for each step too many is a delivery that is refused.
        batch=batch or min(BATCH, state.batch + 1 + state.batch // 8),
        delivered=state.delivered + rows,
        delivered_at=now if rows else state.delivered_at,
        following=state.following if following is None else following,
        given_epoch=epoch,
        given_number=number,
        passed=max(state.passed, passed),
    )


def failed(
    state: SinkState,
    now: datetime,
    error: str,
    status: str,
    *,
    retry_after: float | None = None,
    chance: float | None = None,
) -> SinkState:
    """Return the state after a delivery failed: the circuit is open until `retry_at`, and the lease is given back.

    Args:
        state: the state before.
        now: the time.
        error: what the receiver said.
        status: its status.
        retry_after: seconds that the receiver asked to wait; the pause is not shorter.
        chance: a number from 0 to 1 in place of a random one.
    """
    failures = state.failures + 1
    ceiling = min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** min(failures - 1, 20))
    pause = ceiling * (random.random() if chance is None else chance)
    asked = min(timedelta(seconds=max(retry_after or 0.0, 0.0)), LONGEST_WAIT)
    return _next(
        state,
        holder=None,
        leased_until=None,
        failures=failures,
        failing_since=state.failing_since or now,
        retry_at=now + max(pause, asked),
        error=error,
        status=status,
    )


def renewed(state: SinkState, now: datetime) -> SinkState | None:
    """Return the state with a longer lease; None while the lease is long enough."""
    left = timedelta(0) if state.leased_until is None else state.leased_until - now
    return None if left > LEASE / 2 else _next(state, leased_until=now + LEASE)


def stopped(state: SinkState, error: str, status: str) -> SinkState:
    """Return the state after the receiver asked never to be called again, or belongs to another database."""
    return _next(state, condition="stopped", holder=None, leased_until=None, error=error, status=status)


def collapsed(state: SinkState) -> SinkState:
    """Return the state after the messages were dropped: slices are compared before it follows messages again.

    What is given then has a higher epoch, by which rows that the receiver should not have are told from it.
    """
    return at_cursor(_next(state, epoch=state.epoch + 1, following=False, passed=0), None)


def switched(state: SinkState, build_id: int | None, epoch: int, *, once: bool = False) -> SinkState:
    """Return the state after another build was shown, or the same under a higher epoch.

    Args:
        state: the state before.
        build_id: the build.
        epoch: lowest epoch from now on.
        once: keep the cursor, so that no row is given that was given of the former build.
    """
    moved = _next(state, build_id=build_id, epoch=max(epoch, state.epoch + 1), following=False, passed=0)
    return moved if once else at_cursor(moved, None)


def skipped(state: SinkState, cursor: Cursor) -> SinkState:
    """Return the state after a person let rows go: it reads on from a later cursor, and nobody holds the lease."""
    return _next(at_cursor(state, cursor), holder=None, leased_until=None)


def at_cursor(state: SinkState, cursor: Cursor | None) -> SinkState:
    """Return a state with another cursor, under the same number."""
    if cursor is None:
        return replace(state, done=None, target=None, progress_txid=None, progress_position=None, progress_ordinal=None)
    txid, position, ordinal = cursor.progress or (None, None, None)
    return replace(
        state,
        done=str(cursor.done),
        target=None if cursor.target is None else str(cursor.target),
        progress_txid=txid,
        progress_position=position,
        progress_ordinal=ordinal,
    )


def paused(state: SinkState) -> SinkState:
    """Return the state after a person paused it."""
    return _next(state, condition="paused", holder=None, leased_until=None)


def resumed(state: SinkState) -> SinkState:
    """Return the state after a person resumed it: it delivers at once, whatever failed before."""
    return _next(
        state, condition="active", failures=0, failing_since=None, retry_at=None, error=None, status=None, holder=None,
        leased_until=None,
    )  # fmt: skip


def _next(state: SinkState, **changes: object) -> SinkState:
    return replace(state, number=state.number + 1, **changes)  # type: ignore[arg-type]
