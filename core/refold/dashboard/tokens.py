"""Tokens of the dashboard: who may see evidence, and who may act.

The file's first line is the token for both. A second line, if there is one, is a token that only shows evidence.
Browsers get a cookie that is signed with the token: a changed token ends all its sessions, and nothing is kept.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import stat
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from refold.errors import InputError

Grade = Literal["nobody", "evidence", "actions"]
SHORTEST = 16
"""Least characters of a token."""
SESSION_S = 12 * 3600
"""Seconds after which a browser has to sign in again."""


@dataclass(frozen=True, slots=True, repr=False)
class Tokens:
    """The tokens of a dashboard; without any, it only shows what an observer may see.

    Args:
        actions: for evidence and actions.
        evidence: for evidence alone.
    """

    actions: str | None = None
    evidence: str | None = None

    @property
    def any(self) -> bool:
        """Return whether there is a token."""
        return self.actions is not None

    def grade(self, given: str) -> Grade:
        """Return what a token allows."""
        # Both are compared, always, so that the time tells nothing.
        acts = self.actions is not None and secrets.compare_digest(given.encode(), self.actions.encode())
        sees = self.evidence is not None and secrets.compare_digest(given.encode(), self.evidence.encode())
        return "actions" if acts else "evidence" if sees else "nobody"

    def session(self, grade: Grade, now: float | None = None) -> str:
        """Return a browser's session of a grade, signed."""
        until = int((time.time() if now is None else now) + SESSION_S)
        return f"{grade}.{until}.{self._signature(grade, until)}"

    def of_session(self, session: str, now: float | None = None) -> Grade:
        """Return the grade of a session; `nobody` if it is not ours, or has ended."""
        grade, _, rest = session.partition(".")
        until, _, signature = rest.partition(".")
        if grade not in ("evidence", "actions") or not until.isascii() or not until.isdigit() or len(until) > 12:
            return "nobody"
        known: Grade = "actions" if grade == "actions" else "evidence"
        if self._token(known) is None or not hmac.compare_digest(
            signature.encode(), self._signature(known, int(until)).encode()
        ):
            return "nobody"
        return known if int(until) > (time.time() if now is None else now) else "nobody"

    def _token(self, grade: Grade) -> str | None:
        return self.actions if grade == "actions" else self.evidence

    def _signature(self, grade: Grade, until: int) -> str:
        key = self._token(grade) or ""
        return hmac.new(b"refold dashboard " + key.encode(), f"{grade}.{until}".encode(), hashlib.sha256).hexdigest()


def read_tokens(path: Path | None) -> Tokens:
    """Return the tokens of a file.

    Raises:
        InputError: the file cannot be read, others may read or change it, or a token is too short.
    """
    if path is None:
        return Tokens()
    try:
        mode = path.stat().st_mode
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise InputError(f"cannot read {path}: {why}") from None
    if mode & (stat.S_IROTH | stat.S_IWOTH):
        may = "read" if mode & stat.S_IROTH else "change"
        raise InputError(f"everybody on this machine may {may} {path}", remedy=f"Run: chmod 600 {path}")
    if not 1 <= len(lines) <= 2 or len(set(lines)) < len(lines):
        raise InputError(
            f"{path} has {len(lines)} lines with a token",
            remedy="The first line is the token for actions and evidence; a second, other one is for evidence alone.",
        )
    if any(len(line) < SHORTEST or not line.isascii() for line in lines):
        raise InputError(
            f"a token in {path} is shorter than {SHORTEST} characters, or not ASCII",
            remedy="Make one with: openssl rand -hex 24",
        )
    return Tokens(lines[0], lines[1] if len(lines) == 2 else None)
