"""Persons who are to be erased, and the command that does it."""

from __future__ import annotations

from dataclasses import dataclass

from chaos.made import EMAIL

KEPT = ("label", "amount", "weight")
"""Fields of a person's metadata that stay: by them the count knows the events again."""


@dataclass(slots=True)
class Asked:
    """Somebody asked that a person be erased.

    Args:
        user: the user id.
        mode: as `refold erase` has it.
        done: whether the command said that it is done.
    """

    user: str
    mode: str
    done: bool = False

    @property
    def command(self) -> tuple[str, ...]:
        """The command."""
        kept = (word for name in KEPT for word in ("--keep", name))
        also = ("--also", f"{EMAIL}={email_of(self.user)}")
        return ("erase", self.user, "--mode", self.mode, *also, *kept, "--reason", "asked", "--yes", "--json")


def email_of(user: str) -> str:
    """By what others name a person."""
    return f"{user}@example.org"
