"""Comments `-- watch:` that name what cannot be watched. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from refold.errors import DefinitionError
from refold.model.projection.definition import Definition
from refold.model.projection.watch import watched
from refold.model.stream.slices import day_unit


def unwatchable(definitions: Mapping[str, Definition]) -> list[DefinitionError]:
    """Return an error for each comment `-- watch:` that is wrong."""
    return [
        DefinitionError(
            mistake,
            path=one.path,
            line=next((at for at, text in enumerate(one.source.splitlines(), 1) if "watch:" in text), None),
            remedy="Write `-- watch: COLUMN by COLUMN` with columns of this metric, one of which is a day in UTC.",
        )
        for one in definitions.values()
        if one.language == "sql" and "watch:" in one.source
        for mistake in watched(one.source, one.plan, [part for part in one.plan.key if day_unit(part.sql) == "1 day"])[
            1
        ]
    ]
