"""Builds that keep the newest of their slices only: what their queries leave out. Pure.

The condition is one on rows of the stream, as if the definition's WHERE had it. So all that refold makes of a query has
it: pages, loads, audits, heals, bases, and what an event would change. It reads the first slice that is kept from the
row of the build, so that no statement is made anew when that moves.
"""

from __future__ import annotations

from refold.model.projection.plan import Plan
from refold.model.stream.slices import Slicing, by_key


def time_slicing(plan: Plan) -> Slicing | None:
    """Return how a projection is divided into slices if these are times, so that old ones can be told; else None.

    Args:
        plan: the plan of the projection.
    """
    if plan.event_grain:
        return None
    slicing = by_key(plan.key, [part.sql for part in plan.key], "", "", indexed=False)
    return slicing if slicing.of_time else None


def retained(plan: Plan, build_id: int) -> Plan:
    """Return the plan of a build that keeps its slices from `refold.builds.retained_from` on, and rows without a day.

    Args:
        plan: the plan of its projection, whose slices are times.
        build_id: the build.
    """
    return plan.restricted(condition(plan, build_id))


def condition(plan: Plan, build_id: int) -> str:
    """Return what `retained` adds to the plan of a build: a condition on rows of the stream."""
    slicing = time_slicing(plan)
    assert slicing is not None, plan.name
    return slicing.retained(f"(SELECT r__.retained_from FROM refold.builds AS r__ WHERE r__.build_id = {build_id})")
