"""Evidence and outcome of incidents as sentences; --json prints the raw values. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from refold.prose import counted, duration
from refold.store.incidents import Kind

NAMES_FIRST: frozenset[Kind] = frozenset({"anomaly", "held_snapshot", "hot_key"})
"""Kinds whose evidence begins with a name, which is written as it is: not with a capital."""
LISTED = 5
"""Most items that a sentence names; --json has all."""

Seen = Mapping[str, Any]


def seen(kind: Kind, evidence: Seen) -> str:
    """Return the evidence in words."""
    clauses = [clause for clause in _SEEN.get(kind, _nothing)(evidence) if clause]
    # Another version's evidence has other fields: better in its own words than not at all.
    return "; ".join(clauses) or told(evidence)


def done(kind: Kind, outcome: Seen) -> str:
    """Return the outcome in words."""
    if set(outcome) <= {"because", "pid"}:
        return str(outcome.get("because") or "")
    clauses = [clause for clause in _done(kind, outcome) if clause]
    return "; ".join(clauses) or told(outcome)


def told(values: Seen) -> str:
    """Return values with their names, without empty ones; long lists are cut."""
    return ", ".join(f"{name} {_text(value)}" for name, value in values.items() if not _empty(value))


def _done(kind: Kind, outcome: Seen) -> Iterator[str]:
    if outcome.get("found"):
        yield f"verified again: it is {outcome['found']}" if kind == "log_damage" else str(outcome["found"])
    if kind == "foreign_cluster" and outcome.get("because"):
        yield str(outcome["because"])
        yield _names("audited", outcome.get("audited"))
    if kind == "log_damage" and outcome.get("accepted"):
        counts = ", ".join(f"{outcome.get(fault) or 0:,} {fault}" for fault in ("missing", "changed", "unknown"))
        yield f"damage accepted ({counts}), reason: {outcome['accepted']}"
    if kind == "dead_letters" and outcome.get("waiting") == 0:
        yield "no dead letter is waiting any more"
    if kind == "drift":
        for what, rows in _pairs(outcome.get("healed")):
            table, _, fault = what.rpartition(": ")
            yield f"{counted(rows, 'row')} of {table} {'was' if rows == 1 else 'were'} {_FAULTS.get(fault, fault)}"
        yield _names("keys:", [_key(one) for one in _list(outcome.get("keys"))])
        yield _names("stored checksums were corrected:", outcome.get("checksums"))


_FAULTS = {"missing": "missing and restored", "orphan": "orphaned and deleted", "drifted": "wrong and corrected"}


def _drift(one: Seen) -> Iterator[str]:
    yield _names("rows differ from the stored checksums in", one.get("slices"))
    if one.get("depth") == "deep":
        yield "a deep audit found rows that differ from the query over the log"
    yield _clause("purged events are counted otherwise than {} has them", one.get("file"))
    yield _clause("healing failed: {}", one.get("not_healed"))


def _lag(one: Seen) -> Iterator[str]:
    event, seconds, limit = one.get("oldest_event"), one.get("seconds"), one.get("limit")
    if seconds is not None:
        waits = f"event {event}" if event is not None else "the oldest event"
        yield f"{waits} has waited for {_span(seconds)} to be applied" + (
            f"; the limit is {_span(limit)}" if limit else ""
        )


def _stalled(one: Seen) -> Iterator[str]:
    yield _clause("applying fails: {}", one.get("error"))
    if one.get("moved_at"):
        yield (
            f"{'no event was applied' if one.get('loaded', True) else 'its first load has not advanced'} since "
            + _at(one["moved_at"])
        )
    yield _clause("the oldest waiting event is {}", one.get("oldest_event"))
    yield _names("the session with this pid writes to its table:", one.get("written_by"))
    yield _clause("it waits for {}, which is stalled too", one.get("waits_for"))


def _dead_letters(one: Seen) -> Iterator[str]:
    if isinstance(one.get("waiting"), int):
        events = counted(one["waiting"], "event")
        yield f"{events} could not be processed and {'is' if one['waiting'] == 1 else 'are'} excluded"
    yield _clause("latest error: {}", one.get("error"))
    yield _clause("{}", one.get("too_many"))


def _held_back(one: Seen) -> Iterator[str]:
    if one.get("pid") is None and one.get("gid") is None:
        return
    locks = one.get("locks") is not None and not one.get("writes")
    ends = "refold waits until it ends" if locks else "its events are visible when it ends"
    for_ = f" for {_span(one['seconds'])}" if one.get("seconds") is not None else ""
    if one.get("pid") is None:
        yield f"the prepared transaction {one['gid']} is open{for_}; {ends}"
        yield _names("it holds locks on", one.get("locks"))
        return
    with_ = "".join(filter(None, [_clause(" of {}", one.get("role")), _clause(" ({})", one.get("application"))]))
    yield f"pid {one['pid']}{with_} has had a transaction open{for_}; {ends}"
    yield _names("it holds locks on", one.get("locks"))
    yield _clause("its latest query: {}", one.get("query"))


def _held_snapshot(one: Seen) -> Iterator[str]:
    if one.get("seconds") is not None:
        who = " ".join(filter(None, [str(one.get("application") or "a session"), _clause("of {}", one.get("role"))]))
        yield f"{who} has held a snapshot for {_span(one['seconds'])}"
    if isinstance(one.get("transactions"), int):
        yield f"{counted(one['transactions'], 'transaction')} started since"
    yield _clause("to end it: {}", one.get("remedy"))


def _missed_notification(one: Seen) -> Iterator[str]:
    if one.get("event") is not None:
        yield f"no notification came for event {one['event']}" + (
            f", appended at {_at(one['recorded_at'])}" if one.get("recorded_at") else ""
        )
    if one.get("queue_usage"):
        yield f"the server's queue of notifications is {float(one['queue_usage']):.0%} full"
    yield _clause("detected by the worker with pid {}", one.get("worker_pid"))


def _log_damage(one: Seen) -> Iterator[str]:
    damage = [fault for fault in _list(one.get("damage")) if isinstance(fault, Mapping)]
    named = [f"{fault.get('event_id') or fault.get('detail')} ({fault.get('fault')})" for fault in damage]
    found = one["found"] if isinstance(one.get("found"), int) else len(named)
    if named:
        more = f" and {found - LISTED:,} more" if found > LISTED else ""
        yield f"{counted(found, 'fault')}, the log differs from what was written: {', '.join(named[:LISTED])}{more}"
    yield _names("not healed because of it:", one.get("not_healed"))
    yield _names("not promoted because of it:", one.get("not_promoted"))


def _impure(one: Seen) -> Iterator[str]:
    yield _names("the transform returns other rows when it runs again, for the events", one.get("events"))
    yield _names("they differ in", one.get("fields"))


def _foreign(one: Seen) -> Iterator[str]:
    yield _clause("{}", one.get("because"))


def _hot_key(one: Seen) -> Iterator[str]:
    if one.get("key") and isinstance(one.get("events"), int):
        share = f" ({float(one['share']):.0%} of all)" if one.get("share") is not None else ""
        yield f"{_key(one['key'])} has {counted(one['events'], 'event')}{share}, and each new one reads them all again"
    if one.get("page_seconds") is not None:
        yield f"a page takes {_span(one['page_seconds'])}"
    yield _clause("{} leaves them out", one.get("without"))


def _hidden(one: Seen) -> Iterator[str]:
    if "stood" in one:
        there = " ".join(str(one["stood"] or "").rstrip("; \n").split())
        yield f"its view was replaced by: {there}" if there else "its view was dropped"
    yield _clause("it could not be recreated: {}", one.get("not_healed"))


def _pressure(one: Seen) -> Iterator[str]:
    if isinstance(one.get("value"), (int, float)):
        refused = "producers are refused" if one.get("level") == 2 else "bulk waits"
        yield f"{float(one['value']):.0%} is used, so {refused}"
    yield _names("dropped, as they can be built again:", one.get("dropped"))


def _capture_gap(one: Seen) -> Iterator[str]:
    yield _clause("the log could not take an event: {}", one.get("error"))
    if isinstance(one.get("statements"), int):
        more = "at least " if one.get("more") else ""
        yield f"{more}{counted(one['statements'], 'statement')} on its table made no events" + (
            ", and it is paused" if one.get("paused") else ""
        )


def _sink(one: Seen) -> Iterator[str]:
    if one.get("condition") == "stopped":
        yield "the sink was stopped"
    elif isinstance(one.get("failures"), int):
        yield f"{counted(one['failures'], 'failure')} of its deliveries"
    yield _clause("the receiver says: {}", one.get("error"))


def _undelivered(one: Seen) -> Iterator[str]:
    if isinstance(one.get("rows"), int):
        yield f"the receiver refused {counted(one['rows'], 'row')}, which wait"


def _outbox_collapsed(one: Seen) -> Iterator[str]:
    yield _clause("its messages were dropped, because there was {}", one.get("because"))


def _archive(one: Seen) -> Iterator[str]:
    yield _clause("the store says: {}", one.get("error"))


def _archive_damage(one: Seen) -> Iterator[str]:
    yield _clause("{}", one.get("found"))


def _anomaly(one: Seen) -> Iterator[str]:
    series, method = one.get("series"), one.get("method")
    if method == "silence":
        yield f"{series} is silent for {one.get('hours')} h, in which about {one.get('expected')} events usually come"
    elif method == "skew":
        usual = f"usually {one.get('low')} to {one.get('high')} s"
        yield f"95 of 100 events of {series} came within {one.get('value')} s on {one.get('day')}; {usual}"
    elif series is not None:
        over = "in the fortnight up to" if method == "fortnight" else "on"
        yield (
            f"{series} has an unusual value {over} {one.get('day')}: {one.get('value')},"
            f" expected {one.get('low')} to {one.get('high')}"
        )
    yield _names("new since then:", one.get("appeared"))


def _backfill_paused(one: Seen) -> Iterator[str]:
    if isinstance(one.get("limit"), int | float):
        late = (
            f"metrics were {_span(one.get('age'))} behind, later than {_span(one['limit'])} for {_span(one.get('for'))}"
        )
        yield late + (f"; {counted(one['left'], 'record')} wait" if isinstance(one.get("left"), int) else "")


def _canary_aborted(one: Seen) -> Iterator[str]:
    apart = _list(one.get("apart"))
    yield _clause("{}", one.get("because"))
    if one.get("percent") is not None:
        nobody = bool(apart) and set(apart) >= set(_list(one.get("metrics")))
        by_nobody = "seen by no reader, as its columns differ or no build of it was live"
        yield by_nobody if nobody else f"seen by {one['percent']} % of readers"
    yield _names("candidates retired:", one.get("metrics"))


def _purge(one: Seen) -> Iterator[str]:
    yield _names("in the way:", one.get("because"))


def _nothing(one: Seen) -> Iterator[str]:
    return iter(())


_SEEN: Mapping[Kind, Callable[[Seen], Iterator[str]]] = {
    "drift": _drift,
    "lag": _lag,
    "stalled": _stalled,
    "dead_letters": _dead_letters,
    "held_back": _held_back,
    "held_snapshot": _held_snapshot,
    "missed_notification": _missed_notification,
    "log_damage": _log_damage,
    "impure_transform": _impure,
    "foreign_cluster": _foreign,
    "hot_key": _hot_key,
    "hidden": _hidden,
    "pressure": _pressure,
    "capture_gap": _capture_gap,
    "sink": _sink,
    "undelivered": _undelivered,
    "outbox_collapsed": _outbox_collapsed,
    "anomaly": _anomaly,
    "archive": _archive,
    "archive_damage": _archive_damage,
    "backfill_paused": _backfill_paused,
    "canary_aborted": _canary_aborted,
    "purge": _purge,
}


def _clause(form: str, value: object) -> str:
    return "" if _empty(value) else form.format(_text(value))


def _names(what: str, values: object) -> str:
    """Return a list in words: the first items, and how many more there are."""
    listed = _list(values)
    more = f" and {len(listed) - LISTED:,} more" if len(listed) > LISTED else ""
    return f"{what} {', '.join(map(_text, listed[:LISTED]))}{more}" if listed else ""


def _key(values: object) -> str:
    if not isinstance(values, Mapping):
        return _text(values)
    return " ".join(f"{name}={_text(value)}" for name, value in values.items() if name != "relation")


def _list(values: object) -> Sequence[Any]:
    return values if isinstance(values, list | tuple) else []


def _pairs(values: object) -> list[tuple[str, int]]:
    found = values.items() if isinstance(values, Mapping) else ()
    return [(str(name), number) for name, number in found if isinstance(number, int)]


def _span(seconds: object) -> str:
    return duration(float(seconds)) if isinstance(seconds, int | float) else str(seconds)


def _at(instant: object) -> str:
    """Return a JSON time, to the second."""
    return str(instant).replace("T", " ").partition(".")[0].removesuffix("+00:00") + " UTC"


def _text(value: object) -> str:
    if isinstance(value, Mapping):
        return f"({told(value)})"
    if isinstance(value, list):
        more = f" and {len(value) - LISTED:,} more" if len(value) > LISTED else ""
        return " ".join(map(_text, value[:LISTED])) + more
    return str(value)


def _empty(value: object) -> bool:
    return value is None or value in ("", [], {})
