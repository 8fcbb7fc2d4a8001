"""Commands that an operator runs while everything else breaks."""

from __future__ import annotations

from typing import Any

from chaos.faults.injection import (
    Injected,
    operate,
)
from chaos.stage import Stage


def rebuild(stage: Stage, how: dict[str, Any], done: Injected) -> None:
    """`refold rebuild --cascade` under load."""
    operate(stage, done, "rebuild", how["projection"], "--cascade")


def deployed(stage: Stage, how: dict[str, Any], done: Injected) -> None:
    """A projection's file changes, and `refold deploy`."""
    stage.set_variant(how["variant"])
    operate(stage, done, "deploy")


def rolled_back(stage: Stage, how: dict[str, Any], done: Injected) -> None:
    """`refold rollback`, back to the definition before."""
    operate(stage, done, "rollback", "changing")


def reconciled(stage: Stage, how: dict[str, Any], done: Injected) -> None:
    """`refold reconcile` under load; it heals what was tampered with before."""
    operate(stage, done, "reconcile", "--json")
