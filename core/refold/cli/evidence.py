"""What an incident has seen and done, as sentences; the raw values are for --json. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from refold.cli.durations import duration
from refold.cli.output import counted
from refold.store.incidents import Kind

LISTED = 5
"""Things that a sentence names at most; --json has all."""

Seen = Mapping[str, Any]


def seen(kind: Kind, evidence: Seen) -> str:
    """What was seen, in words."""
    clauses = [clause for clause in _SEEN.get(kind, _nothing)(evidence) if clause]
    # Another version's evidence has other fields: better in its own words than not at all.
    return "; ".join(clauses) or told(evidence)


def done(kind: Kind, outcome: Seen) -> str:
    """What was done, in words."""
    if set(outcome) <= {"because", "pid"}:
        return str(outcome.get("because") or "")
    clauses = [clause for clause in _done(kind, outcome) if clause]
    return "; ".join(clauses) or told(outcome)


def told(values: Seen) -> str:
    """Values with their names; what is empty is left out, and of long lists the end."""
    return ", ".join(f"{name} {_text(value)}" for name, value in values.items() if not _empty(value))


def _done(kind: Kind, outcome: Seen) -> Iterator[str]:
    if outcome.get("found"):
        yield f"looked again, and it is {outcome['found']}" if kind == "log_damage" else str(outcome["found"])
    if kind == "foreign_cluster" and outcome.get("because"):
        yield str(outcome["because"])
        yield _names("audited", outcome.get("audited"))
    if kind == "log_damage" and outcome.get("accepted"):
        counts = ", ".join(f"{outcome.get(fault) or 0:,} {fault}" for fault in ("missing", "changed", "unknown"))
        yield f"accepted as it is, because: {outcome['accepted']} ({counts})"
    if kind == "dead_letters" and outcome.get("waiting") == 0:
        yield "none waits any more"
    if kind == "drift":
        for what, rows in _pairs(outcome.get("healed")):
            table, _, fault = what.rpartition(": ")
            yield f"{counted(rows, 'row')} of {table} {'was' if rows == 1 else 'were'} {_FAULTS.get(fault, fault)}"
        yield _names("of the keys", [_key(one) for one in _list(outcome.get("keys"))])
        yield _names("kept checksums were put right: of", outcome.get("checksums"))


_FAULTS = {"missing": "missing, and made again", "orphan": "too many, and removed", "drifted": "wrong, and put right"}


def _drift(one: Seen) -> Iterator[str]:
    yield _names("rows differ from the kept checksums in", one.get("slices"))
    if one.get("depth") == "deep":
        yield "a deep audit found rows that differ from the query over the log"
    yield _clause("it could not be healed: {}", one.get("not_healed"))


def _lag(one: Seen) -> Iterator[str]:
    event, seconds, limit = one.get("oldest_event"), one.get("seconds"), one.get("limit")
    if seconds is not None:
        waits = f"event {event}" if event is not None else "the oldest event"
        yield f"{waits} has waited for {_span(seconds)} to be applied" + (
            f", {_span(limit)} is the limit" if limit else ""
        )


def _stalled(one: Seen) -> Iterator[str]:
    yield _clause("it fails: {}", one.get("error"))
    if one.get("moved_at"):
        yield f"{'nothing was applied' if one.get('loaded', True) else 'its first load stands still'} since " + _at(
            one["moved_at"]
        )
    yield _clause("the oldest event that waits is {}", one.get("oldest_event"))
    yield _names("written by the session with pid", one.get("written_by"))
    yield _clause("it waits for {}, which stands still too", one.get("waits_for"))


def _dead_letters(one: Seen) -> Iterator[str]:
    if isinstance(one.get("waiting"), int):
        events = counted(one["waiting"], "event")
        yield f"{events} could not be processed and {'is' if one['waiting'] == 1 else 'are'} left out"
    yield _clause("the latest failed with: {}", one.get("error"))
    yield _clause("that is {}", one.get("too_many"))


def _held_back(one: Seen) -> Iterator[str]:
    if one.get("pid") is None and one.get("gid") is None:
        return
    who = f"pid {one['pid']}" if one.get("pid") is not None else f"the prepared transaction {one['gid']}"
    with_ = " ".join(filter(None, [_clause("of {}", one.get("role")), _clause("({})", one.get("application"))]))
    for_ = f" for {_span(one['seconds'])}" if one.get("seconds") is not None else ""
    yield f"{who}{' ' + with_ if with_ else ''} has had a transaction open{for_}: what it appended waits for its end"


def _held_snapshot(one: Seen) -> Iterator[str]:
    if one.get("seconds") is not None:
        who = " ".join(filter(None, [str(one.get("application") or "it"), _clause("of {}", one.get("role"))]))
        yield f"{who} has held a snapshot for {_span(one['seconds'])}"
    if isinstance(one.get("transactions"), int):
        yield f"{counted(one['transactions'], 'transaction')} have begun since"
    yield _clause("to end it: {}", one.get("remedy"))


def _lost_wake_up(one: Seen) -> Iterator[str]:
    if one.get("event") is not None:
        yield f"no notification came for event {one['event']}" + (
            f", appended at {_at(one['recorded_at'])}" if one.get("recorded_at") else ""
        )
    if one.get("queue_usage"):
        yield f"the server's queue of notifications is {float(one['queue_usage']):.0%} full"
    yield _clause("seen by the worker with pid {}", one.get("worker_pid"))


def _log_damage(one: Seen) -> Iterator[str]:
    damage = [fault for fault in _list(one.get("damage")) if isinstance(fault, Mapping)]
    named = [f"{fault.get('event_id') or fault.get('detail')} ({fault.get('fault')})" for fault in damage]
    found = one["found"] if isinstance(one.get("found"), int) else len(named)
    if named:
        more = f" and {found - LISTED:,} more" if found > LISTED else ""
        yield f"{counted(found, 'fault')}, what stands there is not what was written: {', '.join(named[:LISTED])}{more}"


def _impure(one: Seen) -> Iterator[str]:
    yield _names("evaluated again, other rows come out of the events", one.get("events"))
    yield _names("they differ in", one.get("fields"))


def _foreign(one: Seen) -> Iterator[str]:
    yield _clause("{}", one.get("because"))


def _hot_key(one: Seen) -> Iterator[str]:
    if one.get("key") and isinstance(one.get("events"), int):
        share = f", {float(one['share']):.0%} of all," if one.get("share") is not None else ""
        yield f"{_key(one['key'])} has {counted(one['events'], 'event')}{share} which are read again for each new one"
    if one.get("page_seconds") is not None:
        yield f"a page takes {_span(one['page_seconds'])}"


def _hidden(one: Seen) -> Iterator[str]:
    if "stood" in one:
        there = " ".join(str(one["stood"] or "").rstrip("; \n").split())
        yield f"somebody has replaced its view; there stood: {there}" if there else "somebody has dropped its view"
    yield _clause("it could not be made again: {}", one.get("not_healed"))


def _nothing(one: Seen) -> Iterator[str]:
    return iter(())


_SEEN: Mapping[Kind, Callable[[Seen], Iterator[str]]] = {
    "drift": _drift,
    "lag": _lag,
    "stalled": _stalled,
    "dead_letters": _dead_letters,
    "held_back": _held_back,
    "held_snapshot": _held_snapshot,
    "missed_notification": _lost_wake_up,
    "log_damage": _log_damage,
    "impure_transform": _impure,
    "foreign_cluster": _foreign,
    "hot_key": _hot_key,
    "hidden": _hidden,
}


def _clause(form: str, value: object) -> str:
    return "" if _empty(value) else form.format(_text(value))


def _names(what: str, values: object) -> str:
    """A list in words: the first of them, and how many more."""
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
    """A time as JSON has it, to the second."""
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
