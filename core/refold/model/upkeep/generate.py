"""Generation of a build's SQL from the plan of its projection."""

from __future__ import annotations

from refold.model.projection.plan import Plan
from refold.model.sql_text import ident
from refold.model.stream.page_sql import Stream
from refold.model.upkeep import facts, funnel, merge, recompute
from refold.model.upkeep.outbox import NO_SINKS, Outbox
from refold.model.upkeep.statements import Statements

_WITHOUT_LOG = {
    "facts": facts.statements,
    "merge": merge.statements,
    "members": merge.statements,
}
"""By upkeep: those whose builds go on when events leave the log."""
_KINDS = {
    "funnel": funnel.statements,
    "recompute": recompute.statements,
}
"""The others, which read the events of a key again."""


def generate(plan: Plan, stream: Stream, name: str, outbox: Outbox = NO_SINKS, *, based: bool = False) -> Statements:
    """Return the SQL for a build of an SQL projection.

    Args:
        plan: the plan of the projection.
        stream: the relation that the build reads.
        name: the name of the build's table, without the schema `refold_builds`.
        outbox: the sinks of the build.
        based: whether events that it has applied have left the log.
    """
    table = f"refold_builds.{ident(name)}"
    if plan.upkeep in _WITHOUT_LOG:
        return _WITHOUT_LOG[plan.upkeep](plan, stream, table, name, outbox, based=based)
    return _KINDS[plan.upkeep](plan, stream, table, name, outbox)
