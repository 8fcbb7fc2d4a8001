"""Words and figures of the pages. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal
from urllib.parse import quote, urlencode

from markupsafe import Markup, escape

from refold.inspect.evidence import NAMES_FIRST
from refold.inspect.health import BuildHealth, Health
from refold.inspect.incidents import Told
from refold.inspect.verdict import Word
from refold.model.event.exact_json import document
from refold.prose import duration
from refold.store.incidents import REMEDIES, Kind
from refold.visible import visible

Tone = Literal["right", "healed", "behind", "wrong", "load", "calm"]
"""A colour; a glyph and a word always say the same."""

TONES: Mapping[Word, Tone] = {
    "wrong": "wrong",
    "unproved": "healed",
    "incomplete": "behind",
    "late": "behind",
    "right": "right",
}
TITLES: Mapping[Kind, tuple[str, str]] = {
    "drift": ("Rows of {} differ from its query", "Rows of {} were healed"),
    "dead_letters": ("Events are left out of {}", "The events that {} left out were settled"),
    "stalled": ("{} does not move", "{} moves again"),
    "lag": ("{} is late", "{} was late"),
    "held_back": ("A transaction holds events back", "A transaction held events back"),
    "held_snapshot": ("A session holds an old snapshot", "A session held an old snapshot"),
    "missed_notification": ("Notifications are lost", "A notification was lost"),
    "log_damage": ("The log is damaged", "The log was damaged"),
    "impure_transform": ("{} gives other rows when it runs again", "{} gave other rows when it ran again"),
    "foreign_cluster": ("The cursors belong to another cluster", "The cursors belonged to another cluster"),
    "hot_key": ("One key slows {}", "One key slowed {}"),
    "hidden": ("The view of {} is missing or replaced", "The view of {} was made again"),
    "pressure": ("Producers are held back", "Producers were held back"),
    "capture_gap": ("The capture {} has a gap", "The capture {} had a gap"),
    "sink": ("The receiver of {} fails", "The receiver of {} failed"),
    "undelivered": ("The receiver of {} refuses rows", "The receiver of {} refused rows"),
    "archive": ("The archive {} cannot be written", "The archive {} could not be written"),
    "archive_damage": ("The archive has lost {}", "The archive had lost {}"),
    "backfill_paused": ("The backfill {} has paused itself", "The backfill {} had paused itself"),
    "outbox_collapsed": ("The messages of {} were too many", "The messages of {} were too many"),
    "anomaly": ("Unusual: {}", "Was unusual: {}"),
    "canary_aborted": ("The canary of {} was aborted", "The canary of {} was aborted"),
    "purge": ("{} cannot leave the log", "{} could not leave the log"),
}
"""Titles of incidents while they are open, and after, with a place for the subject."""
BY_ITSELF: frozenset[Kind] = frozenset(
    {"drift", "lag", "held_snapshot", "missed_notification", "hidden", "outbox_collapsed"}
)
"""Kinds that workers end without anybody."""
PATIENCE_S = 300.0
"""Seconds after which an incident that should end by itself is for a person."""
FROZEN_S = 60.0
"""Seconds without a started duty after which workers count as frozen."""


def title(kind: Kind, subject: str, *, over: bool) -> str:
    """Return the title of an incident."""
    return TITLES[kind][over].format(subject)


def titled(told: Told) -> str:
    """Return the title of an incident; that of a candidate does not read as if the live metric had it."""
    one = told.incident
    subject = subject_of(one.subject)
    named = title(
        one.kind, f"the candidate of {subject}" if told.candidate else subject, over=one.resolved_at is not None
    )
    return f"{named[0].upper()}{named[1:]}" if told.candidate else named


@dataclass(frozen=True, slots=True)
class Need:
    """Something that a person must look at.

    Args:
        tone: how bad it is.
        title: what it is.
        text: what to do; words in backticks are commands.
        link: path of the page about it.
        at: since when, UTC.
        incident_id: the incident, if it is one.
        taken_by: the person who has taken it on.
    """

    tone: Tone
    title: str
    text: str
    link: str
    at: datetime | None = None
    incident_id: int | None = None
    taken_by: str | None = None


def needs(health: Health, open_incidents: Iterable[Told]) -> list[Need]:
    """Return what needs a person, the worst first."""
    found = []
    if health.builds and not health.workers:
        found.append(Need("wrong", "No worker runs", "Nothing keeps the metrics up to date: `refold worker`.", "/"))
    elif health.builds and health.duties_s is not None and health.duties_s > FROZEN_S:
        since = duration(health.duties_s)
        found.append(Need("wrong", "The workers do nothing", f"No duty has started for {since}: `refold doctor`.", "/"))
    for told in open_incidents:
        one = told.incident
        age = (health.at - one.detected_at).total_seconds()
        # One from the future was written by a clock that was ahead: nobody waits until that has come.
        if one.kind in BY_ITSELF and 0 <= age < PATIENCE_S:
            continue
        found.append(
            Need(
                "wrong" if one.kind in ("drift", "log_damage", "foreign_cluster", "hidden") else "behind",
                titled(told),
                f"{_sentence(told)} {REMEDIES[one.kind]}" if told.seen else REMEDIES[one.kind],
                LINKS.get(one.kind, f"/incidents#i{one.incident_id}"),
                one.started_at,
                one.incident_id,
                one.acknowledged_by,
            )
        )
    return sorted(found, key=lambda one: (one.taken_by is not None, one.tone != "wrong"))


def _sentence(told: Told) -> str:
    first = told.seen[:1]
    return f"{first if told.incident.kind in NAMES_FIRST else first.upper()}{told.seen[1:]}."


LINKS: Mapping[Kind, str] = {
    "dead_letters": "/dead-letters",
    "sink": "/sinks",
    "undelivered": "/sinks",
    "pressure": "/pressure",
    "canary_aborted": "/canaries",
}


def subject_of(subject: str) -> str:
    """Return the metric of a build's table, or the subject as it is."""
    name, _, rest = subject.rpartition("__")
    return name.rpartition("__")[0] or name if name and rest.isdigit() else subject


@dataclass(frozen=True, slots=True)
class Says:
    """The verdict on a metric, as its line says it."""

    tone: Tone
    word: str
    because: str


def says(one: BuildHealth) -> Says:
    """Return the verdict on a live metric in words."""
    proved = f"proved {ago(one.proved_s)}" if one.proved_s is not None else "not proved yet"
    match one.word:
        case "wrong":
            because = (
                "the log is damaged, or from another cluster"
                if one.damaged
                else "another view stands in its place"
                if one.hidden
                else "rows differ, and are not healed yet"
            )
            return Says("wrong", "Wrong", because)
        case "unproved":
            return Says(
                "healed", "Not proved", f"last {proved}" if one.proved_s is not None else "no audit has passed yet"
            )
        case "incomplete":
            return Says("behind", f"Equal, but for {one.left_out:,}", proved)
        case "late":
            return Says("behind", "Late", f"equal to what it has applied; {proved}")
    return Says("right", "Equal to the log", proved)


def ago(seconds: float | None) -> str:
    """Return an age in words."""
    if seconds is None:
        return "never"
    return "just now" if seconds < 1 else f"{span(seconds)} ago"


def span(seconds: float | None) -> str:
    """Return a time span, without digits that nobody needs."""
    if seconds is None:
        return "–"
    if 1 <= seconds < 60:
        return f"{seconds:.0f} s" if seconds >= 9.95 else f"{seconds:.1f} s"
    if seconds < 0.001:
        return f"{seconds * 1e6:.0f} µs"
    return duration(seconds)


def whole(number: float | None) -> str:
    """Return a number with separated thousands."""
    return "–" if number is None else f"{number:,.0f}"


def short(number: float) -> str:
    """Return a number in at most four characters or so."""
    for unit, size in (("bn", 1e9), ("m", 1e6), ("k", 1e4)):
        if number >= size:
            scaled = number / (1e3 if unit == "k" else size)
            return f"{scaled:.1f} {unit}" if scaled < 100 else f"{scaled:.0f} {unit}"
    return f"{number:,.0f}" if number >= 10 or number == int(number) else f"{number:.1f}"


def rate(events: float) -> str:
    """Return a rate of events a second."""
    return f"{events:,.0f}" if events >= 10 or events == 0 else f"{events:.1f}"


def when(at: datetime | None, now: datetime | None = None) -> Markup:
    """Return an instant as an element that machines read, too: the time, before today with its date."""
    if at is None:
        return Markup("–")
    at = at.astimezone(UTC)
    here = now.astimezone(UTC) if now is not None else datetime.now(UTC)
    today = at.date() == here.date()
    text = f"{at:%H:%M:%S}" if today else f"{at.day} {at:%b, %H:%M}" if at.year == here.year else f"{at.day} {at:%b %Y}"
    return Markup('<time datetime="{}" title="{} UTC">{}</time>').format(
        at.isoformat(timespec="seconds"), f"{at:%Y-%m-%d %H:%M:%S}", text
    )


def safe(value: object) -> str:
    """Return text that a producer or a person has written, with control characters and marks that can be seen."""
    return visible(str(value))


def cell(value: object) -> str:
    """Return a value of a row as text."""
    if value is None:
        return "NULL"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, dict | list):
        return visible(document(value, str))
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat(sep=" ", timespec="seconds").removesuffix("+00:00")
    return visible(str(value))


def row_path(metric: str, key: Mapping[str, str | None]) -> str:
    """Return the address of the page that explains a row.

    Args:
        metric: the projection.
        key: the key, as texts; None is NULL.
    """
    return f"/metrics/{quote(metric, safe='')}/row?{urlencode({'key': json.dumps(dict(key), ensure_ascii=False)})}"


_IN_PATH = re.compile(r"(?!\.{1,2}$)[^/\\\x00-\x1f]+(?<!\.json)")


def event_path(event_id: str) -> str:
    """Return the address of an event's page. What a path cannot carry unchanged is in the query.

    Browsers and proxies take `.`, `..` and `/` apart even where they are encoded, and `.json` is another page.
    """
    if _IN_PATH.fullmatch(event_id):
        return f"/events/{quote(event_id, safe='')}"
    return f"/events?{urlencode({'id': event_id})}"


def code(text: str) -> Markup:
    """Return a text whose words in backticks are set as code."""
    parts = visible(text).split("`")
    whole_pairs = len(parts) % 2 == 1
    return Markup("").join(
        Markup("<code>{}</code>").format(part) if at % 2 and whole_pairs else escape(part)
        for at, part in enumerate(parts)
    )
