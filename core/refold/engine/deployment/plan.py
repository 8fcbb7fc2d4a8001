"""The plan of a deploy: the files compared with the builds. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from refold.model.projection.definition import Definition
from refold.model.projection.without_upcasters import without_upcasters
from refold.store.builds.build import Build

Action = Literal["new", "changed", "resumed", "unchanged", "without file"]


GOES_ON = "an earlier deploy did not finish it, and this one goes on"
WAITS = "an earlier deploy built it, and it waits to go live"


@dataclass(frozen=True, slots=True)
class Change:
    """A line of a deploy's plan.

    Args:
        projection: name of the projection.
        action: `new` and `changed` are built; `resumed` is a build that an earlier deploy left unfinished;
            `without file` is live but not in the folder, and is left alone.
        because: the reason, as a short sentence.
        definition: the definition in the folder, if any.
        build: the live or unfinished build, if any.
    """

    projection: str
    action: Action
    because: str
    definition: Definition | None = None
    build: Build | None = None

    @property
    def builds(self) -> bool:
        """Return whether the projection gets a new table."""
        return self.action in ("new", "changed")


def changes(definitions: Mapping[str, Definition], builds: Sequence[Build]) -> list[Change]:
    """Return the differences between the files and the kept builds, a line for each projection.

    Args:
        definitions: the folder's projections, upstream first.
        builds: the builds in the states live and building.
    """
    live = {build.projection: build for build in builds if build.state == "live"}
    building = {build.projection: build for build in builds if build.state == "building"}
    found: list[Change] = []
    rebuilt: set[str] = set()
    for name, definition in definitions.items():
        unfinished = building.get(name)
        current = live.get(name)
        if unfinished is not None and unfinished.fingerprint == definition.fingerprint:
            found.append(Change(name, "resumed", WAITS if unfinished.loaded else GOES_ON, definition, unfinished))
            rebuilt.add(name)
        elif current is None:
            same = [old for old, one in live.items() if one.fingerprint == definition.fingerprint]
            renamed = next((old for old in same if old not in definitions), None)
            hint = (
                f"; if it was {renamed}, which has no file now, run `refold rename {renamed} {name}`" if renamed else ""
            )
            found.append(Change(name, "new", f"no metric has this name yet{hint}", definition))
            rebuilt.add(name)
        elif current.fingerprint != definition.fingerprint:
            found.append(Change(name, "changed", _cause(current, definition, rebuilt), definition, current))
            rebuilt.add(name)
        else:
            found.append(Change(name, "unchanged", "", definition, current))
    for name, build in live.items():
        if name not in definitions:
            found.append(
                Change(name, "without file", "live, but no file defines it: `refold drop` removes it", None, build)
            )
    return found


def _cause(build: Build, definition: Definition, rebuilt: Collection[str]) -> str:
    """Return why a definition differs from that of the live build, as a short sentence."""
    before, now = without_upcasters(build.definition), without_upcasters(definition.source)
    if before.text.strip() != now.text.strip():
        return "its file changed"
    if definition.upstream in rebuilt:
        return f"{definition.upstream}, which it reads, is built again"
    if definition.transform is not None:
        return "a module that it imports changed" + (", or an upcaster" if definition.transform.upcast else "")
    if build.definition.strip() != definition.source.strip():
        return f"an upcaster of {' or '.join(sorted({*before.actions, *now.actions}))} changed"
    return "this version of refold keeps it in another way"
