"""Funnels: which of them are kept in their row, and the linear form of all others.

Postgres copies the state of a PL/pgSQL aggregate for every row, so `window_funnel` takes quadratic time in the
rows of one group (a scraper with 100,000 views: half a minute). The same in two steps, a built-in aggregate over
packed events and a function over their string, is linear: a tenth of a second.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from sqlglot import exp

from refold.model.projection.plan import Funnel
from refold.model.projection.sqlglot_compat import row_sql

MOST_STEPS = 31
"""Of a funnel (see sql/functions/window_funnel_code.sql)."""

_FINAL = {"window_funnel": "window_funnel_level", "window_funnel_times": "window_funnel_chain"}


def made_linear(query: exp.Expr) -> None:
    """Rewrites every call of window_funnel and window_funnel_times in the query, in place."""
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
    """The funnels among the outputs of a query; those of the same events and steps share what is kept.

    Args:
        outputs: name and expression of each column; what is no call of a funnel is passed over.
    """
    found: dict[str, Funnel] = {}
    for name, node in outputs:
        call, condition = _call(node)
        if call is None:
            continue
        events = row_sql(_gathered(call, condition))
        # Without the window and the time.
        one = found.get(events) or Funnel(f"{name}__state", events, len(call.expressions) - 2)
        if _FINAL[call.this.lower()] == "window_funnel_chain":
            found[events] = replace(one, times=(*one.times, name))
        else:
            found[events] = replace(one, level=(*one.level, name))
    return tuple(found.values())


def _call(node: exp.Expr) -> tuple[exp.Anonymous | None, exp.Expr | None]:
    """The call of a funnel that an output is, with its FILTER; one that cannot be kept is none."""
    condition: exp.Expr | None = None
    while isinstance(node, exp.Dot | exp.Filter | exp.Column):
        condition = node.expression if isinstance(node, exp.Filter) else condition
        node = node.expression if isinstance(node, exp.Dot) else node.this
    if not isinstance(node, exp.Anonymous) or str(node.this).lower() not in _FINAL:
        return None, None
    steps = node.expressions[2:]
    # Of an array nobody knows how many steps it has.
    if not 1 <= len(steps) <= MOST_STEPS or node.find(exp.Variadic, exp.Distinct, exp.Order):
        return None, None
    return node, condition


def _gathered(call: exp.Anonymous, condition: exp.Expr | None) -> exp.Expr:
    """The aggregate of what a call needs of its events."""
    gathered: exp.Expr = exp.Anonymous(
        this="string_agg",
        expressions=[
            exp.Anonymous(this="refold.window_funnel_event", expressions=[e.copy() for e in call.expressions]),
            exp.Literal.string(""),
        ],
    )
    return gathered if condition is None else exp.Filter(this=gathered, expression=condition.copy())
