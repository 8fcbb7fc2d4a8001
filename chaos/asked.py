"""Persons who are to be erased, and the command that does it."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime

from chaos.made import EMAIL

KEPT = ("label", "amount", "weight")
"""Fields of a person's metadata that stay: by them the count knows the events again."""


@dataclass(slots=True)
class Asked:
    """Somebody asked that a person be erased.

    Args:
        user: the user id.
        mode: as `refold erase` has it.
        since: when the command was run first, as the campaign's clock says it.
        until: when the command has said that it is done; None: it has not.
    """

    user: str
    mode: str
    since: datetime = field(default_factory=lambda: datetime.now(UTC))
    until: datetime | None = None

    @property
    def done(self) -> bool:
        """Whether the command said that it is done."""
        return self.until is not None

    def ended(self, status: int) -> bool:
        """Takes note of how the command ended; answers whether it is done."""
        if status == 0 and self.until is None:
            self.until = datetime.now(UTC)
        return self.done

    @property
    def command(self) -> tuple[str, ...]:
        """The command."""
        kept = (word for name in KEPT for word in ("--keep", name))
        also = ("--also", f"{EMAIL}={email_of(self.user)}")
        return ("erase", self.user, "--mode", self.mode, *also, *kept, "--reason", "asked", "--yes", "--json")


def email_of(user: str) -> str:
    """By what others name a person."""
    return f"{user}@example.org"
