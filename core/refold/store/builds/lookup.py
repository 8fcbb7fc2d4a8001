"""Finding a projection by the name somebody typed."""

from __future__ import annotations

from collections.abc import Mapping

from refold.errors import BuildError
from refold.store.builds.build import Build
from refold.suggest import did_you_mean


def known(name: str, live: Mapping[str, Build]) -> Build:
    """The live build of a projection.

    Raises:
        BuildError: there is none; with what the name may have meant.
    """
    if name in live:
        return live[name]
    raise BuildError(
        f"no projection named {name} is live.{did_you_mean(name, live)}",
        remedy=f"Live: {', '.join(sorted(live)) or 'none; run `refold deploy`'}.",
    )
