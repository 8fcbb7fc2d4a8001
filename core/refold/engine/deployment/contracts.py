"""Contracts in a deploy: what the files change, what is refused, and the registration."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import psycopg

from refold.errors import BuildError, DefinitionError, InputError, RefoldError
from refold.model.contract.compatible import Verdict, misfits, verdict_of
from refold.model.contract.contract_file import Contract, differences
from refold.model.contract.schema import Object, schema_of
from refold.store import contracts
from refold.store.contracts import Registered
from refold.suggest import did_you_mean

MOST_REASONS = 5
"""Most reasons that a message names."""

Action = Literal["new", "changed", "unchanged", "without file"]


@dataclass(frozen=True, slots=True)
class ContractChange:
    """A line of the plan for contracts.

    Args:
        title: the action and its version.
        action: `new` and `changed` come from the file; `without file` is left alone.
        because: the reason, in a few words.
        contract: what the file says, if there is one.
        recorded: the contract as it is registered, if it is.
    """

    title: str
    action: Action
    because: str
    contract: Contract | None = None
    recorded: Registered | None = None

    @property
    def makes(self) -> bool:
        """Return whether a deploy changes the database for it."""
        return self.action in ("new", "changed")


def plan(files: Sequence[Contract], recorded: Mapping[tuple[str, int], Registered]) -> list[ContractChange]:
    """Return what a deploy of these contracts would change. Pure.

    Args:
        files: the contracts whose files are right, by action and version.
        recorded: the contracts that are registered.
    """
    found = [_change(file, recorded.get((file.action, file.version))) for file in files]
    named = {(file.action, file.version) for file in files}
    return found + [
        ContractChange(one.title, "without file", f"no file defines it; it stays at {one.level}", recorded=one)
        for key, one in recorded.items()
        if key not in named
    ]


def _change(file: Contract, recorded: Registered | None) -> ContractChange:
    if recorded is None:
        return ContractChange(file.title, "new", _told(file.level), file)
    if recorded.level != file.level:
        because = f"{recorded.level} → {_told(file.level)}"
        return ContractChange(file.title, "changed", because, file, recorded)
    if dict(recorded.about) != dict(file.about):
        return ContractChange(
            file.title, "changed", "its owner changed, or the day from which it holds", file, recorded
        )
    if recorded.rules != file.predicate.as_rules():
        return ContractChange(file.title, "changed", "this version of refold checks its rules in another way", file,
                              recorded)  # fmt: skip
    return ContractChange(file.title, "unchanged", _told(file.level), file, recorded)


def _told(level: str) -> str:
    return {
        "off": "off: refold does not check it",
        "warn": "warn: refold counts events that break it",
        "enforce": "enforce: refold refuses events that break it",
    }[level]


def refused(files: Sequence[Contract], recorded: Mapping[tuple[str, int], Registered]) -> list[RefoldError]:
    """Return the errors of files that change what is registered. Pure.

    Args:
        files: the contracts.
        recorded: the contracts that are registered.
    """
    found: list[RefoldError] = []
    for file in files:
        one = recorded.get((file.action, file.version))
        if one is not None and one.digest != file.digest:
            changes = "\n".join(f"  {line}" for line in differences(one.schema, file.schema))
            newest = max(version for action, version in recorded if action == file.action)
            found.append(
                DefinitionError(
                    f"{file.title} is registered and never changes, but this file differs:\n{changes}",
                    path=file.path,
                    remedy=f'Write "version": {newest + 1} for the new form, and keep the registered one as '
                    f"{file.action}.v{file.version}.json.",
                )
            )
    return found


def incompatible(
    files: Sequence[Contract], recorded: Mapping[tuple[str, int], Registered], accepted: Collection[str] = ()
) -> list[RefoldError]:
    """Return the errors of new versions that do not take every document of each older version. Pure.

    The log keeps events of all versions, and a metric reads them all: so each older version is compared, not only the
    last one (BACKWARD_TRANSITIVE). What cannot be decided counts as incompatible.

    Args:
        files: the contracts.
        recorded: the contracts that are registered.
        accepted: actions whose incompatible versions a person has accepted.
    """
    found: list[RefoldError] = []
    actions = {action for action, _ in recorded} | {file.action for file in files}
    for name in accepted:
        if name not in actions:
            found.append(InputError(f"there is no contract for {name!r}.{did_you_mean(name, actions)}"))
    shapes = {key: _shape(one) for key, one in recorded.items()}
    shapes.update({(one.action, one.version): one.shape for one in files})
    for file in files:
        if file.action in accepted:
            continue
        for action, version in sorted(shapes):
            older = action == file.action and version < file.version
            if not older or ((action, version) in recorded and (file.action, file.version) in recorded):
                continue
            reasons = misfits(shapes[action, version], file.shape)
            if reasons:
                verdict = "perhaps " if verdict_of(reasons) is Verdict.unknown else ""
                listed = "\n".join(f"  {reason}" for reason in reasons[:MOST_REASONS])
                more = f"\n  and {len(reasons) - MOST_REASONS} more" if len(reasons) > MOST_REASONS else ""
                found.append(
                    DefinitionError(
                        f"{file.title} does {verdict}not take all events of v{version}:\n{listed}{more}",
                        path=file.path,
                        remedy=f"Metrics read both. Let v{file.version} allow what v{version} did; or, if no metric "
                        f"minds, `refold deploy --accept-incompatible {file.action}`.",
                    )
                )
    return found


def _shape(one: Registered) -> Object:
    """Return what a registered schema says."""
    shape = schema_of(one.schema, [])
    if shape is None:
        raise BuildError(f"{one.title} was registered by a newer refold", remedy="Deploy with that version.")
    return shape


def register(conn: psycopg.Connection, changes: Sequence[ContractChange]) -> list[str]:
    """Register the contracts of a plan, in the caller's transaction; return the titles of those that changed."""
    made = [one.contract for one in changes if one.makes and one.contract is not None]
    for contract in made:
        contracts.put(conn, contract)
    return [contract.title for contract in made]
