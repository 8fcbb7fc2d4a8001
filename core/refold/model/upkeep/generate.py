"""From a plan to the SQL of its build."""

from __future__ import annotations

from refold.model.projection.plan import Plan
from refold.model.sql_text import ident
from refold.model.stream.page_sql import Stream
from refold.model.upkeep import facts, funnel, merge, recompute
from refold.model.upkeep.statements import Statements

_KINDS = {
    "facts": facts.statements,
    "merge": merge.statements,
    "members": merge.statements,
    "funnel": funnel.statements,
    "recompute": recompute.statements,
}


def generate(plan: Plan, stream: Stream, name: str) -> Statements:
    """The SQL for a build of an SQL projection.

    Args:
        plan: what the analysis found.
        stream: the physical stream that this build reads.
        name: the build's table, in the schema of builds.
    """
    return _KINDS[plan.upkeep](plan, stream, f"refold_builds.{ident(name)}", name)
