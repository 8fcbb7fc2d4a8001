"""Funnels: the ones whose state is kept in the row, and the rewriting of all others to linear time.

Postgres copies the state of a PL/pgSQL aggregate for every row, so `window_funnel` takes quadratic time in the
rows of one group (a scraper with 100,000 views: half a minute). Two steps take linear time (a tenth of a second): a
built-in aggregate over packed events, and a function over the string that it makes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from sqlglot import exp

from refold.model.projection.plan import Funnel
from refold.model.projection.sqlglot_compat import row_sql

MOST_STEPS = 31
"""Steps of a funnel whose state can be kept (see sql/functions/window_funnel_code.sql)."""

_FINAL = {"window_funnel": "window_funnel_level", "window_funnel_times": "window_funnel_chain"}


def made_linear(query: exp.Expr) -> None:
    """Rewrite every call of window_funnel and window_funnel_times in a query to its linear form, in place."""
    for call in list(query.find_all(exp.Anonymous)):
        final = _FINAL.get(str(call.this).lower())
        if final is None:
            continue
        outer: exp.Expr = call
        condition: exp.Expr | None = None
        # sqlglot reads `refold.f(…)` as a Dot, and `refold.f(…) FILTER (…)` as a Column of a Filter.
        while isinstance(outer.parent, exp.Dot | exp.Filter | exp.Column):
            outer = outer.parent
            condition = outer.expression if isinstance(outer, exp.Filter) else condition
        outer.replace(exp.Anonymous(this=f"refold.{final}", expressions=[_gathered(call, condition)]))


def kept_funnels(outputs: Sequence[tuple[str, exp.Expr]]) -> tuple[Funnel, ...]:
    """Return the funnels among the outputs of a query whose state can be kept.

    Outputs with the same events and steps share one state.

    Args:
        outputs: name and expression of each column; columns that are not calls of a funnel are skipped.
    """
    found: dict[str, Funnel] = {}
    for name, node in outputs:
        call, condition = _call(node)
        if call is None:
            continue
        events = row_sql(_gathered(call, condition))
        # The first two arguments are the window and the time; the others are steps.
        one = found.get(events) or Funnel(f"{name}__state", events, len(call.expressions) - 2)
        if _FINAL[call.this.lower()] == "window_funnel_chain":
            found[events] = replace(one, times=(*one.times, name))
        else:
            found[events] = replace(one, level=(*one.level, name))
    return tuple(found.values())


def _call(node: exp.Expr) -> tuple[exp.Anonymous | None, exp.Expr | None]:
    """Return the call of a funnel in an output, and its FILTER; None twice if there is no call that can be kept."""
    condition: exp.Expr | None = None
    while isinstance(node, exp.Dot | exp.Filter | exp.Column):
        condition = node.expression if isinstance(node, exp.Filter) else condition
        node = node.expression if isinstance(node, exp.Dot) else node.this
    if not isinstance(node, exp.Anonymous) or str(node.this).lower() not in _FINAL:
        return None, None
    steps = node.expressions[2:]
    # A VARIADIC array hides the number of steps.
    if not 1 <= len(steps) <= MOST_STEPS or node.find(exp.Variadic, exp.Distinct, exp.Order):
        return None, None
    return node, condition


def _gathered(call: exp.Anonymous, condition: exp.Expr | None) -> exp.Expr:
    """Return the aggregate that packs the events for a call of a funnel."""
    gathered: exp.Expr = exp.Anonymous(
        this="string_agg",
        expressions=[
            exp.Anonymous(this="refold.window_funnel_event", expressions=[e.copy() for e in call.expressions]),
            exp.Literal.string(""),
        ],
    )
    return gathered if condition is None else exp.Filter(this=gathered, expression=condition.copy())
