"""The events that make a load by key fail, found key by key.

No key's rows depend on another key's events. So the keys that fail are found by halves, and then the events within each
of them: with k keys that fail among n, that evaluates each event about log2(k) + 2 times. To look for each event among
all that came before it, from nothing, would be log2(n) times for each of them.
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
"""evaluate(hashes, upto): evaluates the events of some keys, up to a coordinate; what it writes is undone."""


def culprits_of_keys(
    conn: psycopg.Connection, compiled: CompiledBuild, parameters: Callable[[], dict[str, str]], evaluate: Evaluate
) -> Iterator[Culprit]:
    """Find the events that fail, key by key.

    None, where a key's hash itself cannot be evaluated, or what is loaded already fails without any key of these.

    Whoever asks for the next one has put the last one among the build's dead letters.

    Args:
        conn: the caller's transaction, which holds the build's lock.
        compiled: the SQL of a build that is kept by key.
        parameters: those of what is left to load, with the dead letters of now.
        evaluate: evaluates some keys.
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
    """The keys that fail, by halves."""
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
    """The events of one key that fail, each next to all those before it."""
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
