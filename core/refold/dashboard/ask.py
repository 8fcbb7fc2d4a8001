"""What a page is asked, and by whom."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

import psycopg

from refold.dashboard.database import Database, Shared
from refold.dashboard.tokens import Grade
from refold.inspect import health
from refold.inspect.health import Health
from refold.store.builds.compiled import Compiler

T = TypeVar("T")


class NotThere(Exception):
    """There is no such page; `str(error)` says what is not there."""

    def __init__(self, text: str, title: str = "There is no such page") -> None:
        super().__init__(text)
        self.title = title


class SignInFirst(Exception):
    """The page is only for who holds a token."""


@dataclass(frozen=True, slots=True)
class Ask:
    """A request for a page.

    Args:
        database: to read from.
        shared: answers that all requests share.
        grade: what the token or session allows.
        path: parts of the path, by name.
        query: the query string's values, by name; the last of each.
        compiler: makes the SQL of builds; it has the code of transforms.
    """

    database: Database
    shared: Shared
    grade: Grade
    path: Mapping[str, str]
    query: Mapping[str, str]
    compiler: Compiler = field(default_factory=lambda: Compiler(None))

    @property
    def evidence(self) -> bool:
        """Return whether keys, events and texts may be shown."""
        return self.grade != "nobody"

    def insist(self) -> None:
        """Raise SignInFirst if keys, events and texts may not be shown."""
        if not self.evidence:
            raise SignInFirst

    def health(self) -> Health:
        """Return the health of all metrics, which all requests share."""
        return self.shared.get("health", lambda: self.database.ask("refold_observer", health.read))

    def read(self, question: Callable[[psycopg.Connection], T]) -> T:
        """Return the answer to a question, as an inspector for who may see evidence, else as an observer."""
        return self.database.ask("refold_inspector" if self.evidence else "refold_observer", question)

    def observe(self, question: Callable[[psycopg.Connection], T]) -> T:
        """Return the answer to a question, as an observer."""
        return self.database.ask("refold_observer", question)

    def analyse(self, question: Callable[[psycopg.Connection], T]) -> T:
        """Return the answer to a question about a metric's rows, as an analyst, for who may see evidence.

        Raises:
            SignInFirst: this request may not.
        """
        self.insist()
        return self.database.ask("refold_analyst", question)

    def explain(self, question: Callable[[psycopg.Connection], T], *, patient: bool) -> T:
        """Return the answer to a question that may read many events, as an inspector.

        Args:
            question: reads; it bounds its own statements.
            patient: whether it may take long: only one such question is answered at a time.

        Raises:
            SignInFirst: this request may not.
        """
        self.insist()
        return self.database.explain(question, patient=patient)

    def choice(self, name: str, *known: str) -> str:
        """Return a value of the query if it is known, else the first that is."""
        given = self.query.get(name, known[0])
        return given if given in known else known[0]

    def number(self, name: str, default: int, most: int) -> int:
        """Return a positive number of the query; the default if there is none."""
        given = self.query.get(name, "")
        return (
            min(int(given), most) if given.isascii() and given.isdigit() and len(given) < 10 and int(given) else default
        )
