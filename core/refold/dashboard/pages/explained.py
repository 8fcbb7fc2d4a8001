"""Answers that may read many events: cheap ones at once, others once a person has agreed, none for long."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

import psycopg

from refold.dashboard.ask import Ask, NotThere
from refold.errors import BuildError, Costly, InputError
from refold.inspect.lineage.cost import Bound

T = TypeVar("T")

AT_ONCE = Bound(ask_s=2.0, timeout_s=2.0)
"""What an answer may cost that nobody has agreed to."""
PATIENT = Bound(timeout_s=60.0, agreed=True)
"""What an answer may cost that a person has asked for."""


@dataclass(frozen=True, slots=True)
class Explained(Generic[T]):
    """An answer, or why there is none yet.

    Args:
        answer: the answer.
        offered: whether a person may ask for the answer with more patience.
        events: events that it would read, if the planner says that they are many.
        seconds: how long that takes, about.
        because: why there is none; empty if there is one, or its cost is to be agreed to.
    """

    answer: T | None
    offered: bool = False
    events: int | None = None
    seconds: float | None = None
    because: str = ""


def explained(ask: Ask, question: Callable[[psycopg.Connection, Bound], T]) -> Explained[T]:
    """Return the answer to a question about events; `run=1` in the query says that a person has agreed to its cost.

    Raises:
        SignInFirst: this request may not see events.
        NotThere: what it asks for is not there.
    """
    agreed = ask.query.get("run") == "1"
    bound = PATIENT if agreed else AT_ONCE
    try:
        return Explained(ask.explain(lambda conn: question(conn, bound), patient=agreed))
    except Costly as error:
        return Explained(None, True, error.events, error.seconds)
    except InputError as error:
        raise NotThere(_sentence(error), "Nothing is found") from error
    except psycopg.DataError as error:
        # A character that no text in Postgres can hold, say.
        raise NotThere("No event and no row can have this name.", "Nothing is found") from error
    except BuildError as error:
        slow = isinstance(error.__cause__, psycopg.errors.QueryCanceled)
        return Explained(None, slow and not agreed, because=_sentence(error))


def _sentence(error: InputError | BuildError) -> str:
    text = str(error)
    return f"{text[:1].upper()}{text[1:]}. {error.remedy or ''}".rstrip()
