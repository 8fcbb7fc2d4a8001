"""Finding a projection by the name somebody typed."""

from __future__ import annotations

import difflib
from collections.abc import Mapping

from refold.errors import BuildError
from refold.store.builds.build import Build


def known(name: str, live: Mapping[str, Build]) -> Build:
    """The live build of a projection.

    Raises:
        BuildError: there is none; with what the name may have meant.
    """
    if name in live:
        return live[name]
    close = difflib.get_close_matches(name, live, 1)
    hint = f" Did you mean {close[0]}?" if close else ""
    raise BuildError(
        f"no projection named {name} is live.{hint}",
        remedy=f"Live: {', '.join(sorted(live)) or 'none; run `refold deploy`'}.",
    )
