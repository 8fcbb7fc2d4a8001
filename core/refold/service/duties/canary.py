"""The duty that checks canaries: the rules are in `refold.model.canary.rules`."""

from __future__ import annotations

from refold.engine.canary.check import NAME, run

__all__ = ["NAME", "run"]
