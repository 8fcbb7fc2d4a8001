"""The events that make a load by key fail, found key by key.

The rows of a key depend only on the events of that key. So bisection finds the failing keys, and then the failing
events of each. With k failing keys among n, that evaluates each event about log2(k) + 2 times. A search over the whole
stream would evaluate it log2(n) times for each failing event.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import psycopg

from refold.engine.isolate.prefix import failure_of
from refold.engine.isolate.search import Culprit, first_failing
from refold.model.stream.cursor import Key
from refold.model.stream.parameters import LAST
from refold.store.builds.compiled import CompiledBuild

Evaluate = Callable[[Sequence[int], Key], object]
"""evaluate(hashes, upto): evaluates the events of some keys up to a coordinate; its writes are rolled back."""


def culprits_of_keys(
    conn: psycopg.Connection, compiled: CompiledBuild, parameters: Callable[[], dict[str, str]], evaluate: Evaluate
) -> Iterator[Culprit]:
    """Yield the events that fail, key by key.

    It yields no event if the hash of a key cannot be evaluated, or if the load fails even without any of the keys.

    The caller makes each event a dead letter of the build before it asks for the next.

    Args:
        conn: the caller's transaction, which holds the build's lock.
        compiled: the SQL of a build that is kept by key.
        parameters: returns the parameters of the rest of the load, with the present dead letters.
        evaluate: evaluates the events of some keys.
    """
    hashes: list[int] = []

    def listed() -> None:
        rows = conn.execute(compiled.statements.keys_left.encode(), parameters()).fetchall()
        hashes.extend(int(found) for (found,) in rows)

    if failure_of(conn, listed) is not None or failure_of(conn, lambda: evaluate([], LAST)) is not None:
        return
    for found in _failing(hashes, lambda part: failure_of(conn, lambda: evaluate(part, LAST)) is not None):
        yield from _of_key(conn, compiled, found, parameters, evaluate)


def _failing(keys: list[int], fails: Callable[[Sequence[int]], bool]) -> Iterator[int]:
    """Yield the keys that fail, found by bisection."""
    parts = [keys]
    while parts:
        part = parts.pop()
        if not part or not fails(part):
            continue
        if len(part) == 1:
            yield part[0]
        else:
            middle = len(part) // 2
            parts += [part[middle:], part[:middle]]


def _of_key(
    conn: psycopg.Connection,
    compiled: CompiledBuild,
    key: int,
    parameters: Callable[[], dict[str, str]],
    evaluate: Evaluate,
) -> Iterator[Culprit]:
    """Yield the events of a key that fail, each evaluated together with all earlier ones."""
    passes = 0
    while True:
        rows = conn.execute(
            compiled.statements.events_of_keys.encode(), parameters() | {"keys": f"{{{key}}}"}
        ).fetchall()
        at = [Key(txid, position, ordinal) for _, txid, position, ordinal in rows]

        def failure(count: int, at: Sequence[Key] = at) -> Exception | None:
            upto = LAST if count == len(at) else at[count - 1]
            return failure_of(conn, lambda: evaluate([key], upto))

        if not at or failure(len(at)) is None:
            return
        number, error = first_failing(len(at), failure, passes=passes)
        passes = number - 1
        yield Culprit(rows[number - 1][0], at[number - 1], error)
