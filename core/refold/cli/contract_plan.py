"""What `refold deploy` says and does about contracts."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

import psycopg

from refold.cli.output import note, table
from refold.engine.deployment import contracts as deployment
from refold.engine.deployment.contracts import ContractChange
from refold.errors import RefoldError
from refold.model.contract.contract_file import load_contracts
from refold.store import contracts


def contracts_of(
    conn: psycopg.Connection, folder: Path, mistakes: list[RefoldError], accepted: Collection[str] = ()
) -> list[ContractChange]:
    """Return what a deploy would change for the contracts of a folder, and add the mistakes in their files.

    Args:
        conn: acts as refold_worker.
        folder: the folder of contracts; it may not exist.
        mistakes: receives what is wrong.
        accepted: actions whose incompatible versions are accepted.
    """
    files = load_contracts(folder, mistakes)
    recorded = contracts.registered(conn)
    mistakes += deployment.refused(files, recorded)
    mistakes += deployment.incompatible(files, recorded, accepted)
    return deployment.plan(files, recorded)


def show_contracts(changes: Sequence[ContractChange]) -> None:
    """Print the plan."""
    rows = [(one.title, one.action, one.because) for one in changes if one.contract is not None]
    if rows:
        table(("CONTRACT", "ACTION", "LEVEL"), rows)
    left = [one.title for one in changes if one.contract is None]
    if left:
        note(f"contracts without a file here are left alone: {', '.join(left)}")


def contract_change(change: ContractChange) -> dict[str, object]:
    """Return a line of the plan for JSON."""
    return {
        "contract": change.title,
        "action": change.action,
        "because": change.because,
        "file": None if change.contract is None else change.contract.path,
    }
