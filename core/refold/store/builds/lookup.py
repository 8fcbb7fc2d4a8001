"""The lookup of a projection by the name that a user gave."""

from __future__ import annotations

from collections.abc import Mapping

from refold.errors import BuildError
from refold.store.builds.build import Build
from refold.suggest import did_you_mean


def known(name: str, live: Mapping[str, Build]) -> Build:
    """Return the live build of a projection.

    Raises:
        BuildError: no live projection has that name; the message suggests a similar name.
    """
    if name in live:
        return live[name]
    raise BuildError(
        f"no projection named {name} is live.{did_you_mean(name, live)}",
        remedy=f"Live: {', '.join(sorted(live)) or 'none; run `refold deploy`'}.",
    )
