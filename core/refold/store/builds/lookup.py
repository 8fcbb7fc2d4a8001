"""The lookup of a projection by the name that a user gave."""

from __future__ import annotations

import difflib
from collections.abc import Mapping

from refold.errors import BuildError
from refold.store.builds.build import Build


def known(name: str, live: Mapping[str, Build]) -> Build:
    """Return the live build of a projection.

    Raises:
        BuildError: no live projection has that name; the message suggests a similar name.
    """
    if name in live:
        return live[name]
    close = difflib.get_close_matches(name, live, 1)
    hint = f" Did you mean {close[0]}?" if close else ""
    raise BuildError(
        f"no projection named {name} is live.{hint}",
        remedy=f"Live: {', '.join(sorted(live)) or 'none; run `refold deploy`'}.",
    )
