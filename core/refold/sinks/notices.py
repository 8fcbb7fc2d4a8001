"""Routes of notices: webhooks, Alertmanager, and heartbeats; and the file `notices.toml` that names them."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from secrets import token_hex
from typing import Any, Literal, Self, get_args

from pydantic import Field, ValidationError, model_validator

from refold.errors import DefinitionError, RefoldError
from refold.model.projection.files import read_text
from refold.model.toml_text import line_of, parsed
from refold.sinks.kinds.webhook.options import WebhookOptions
from refold.sinks.kinds.webhook.receiver import Prepared, prepared
from refold.store.incidents import REMEDIES
from refold.store.notices import Notice, Route

Kind = Literal["webhook", "alertmanager", "heartbeat"]
Level = Literal["page", "ticket", "none"]
FILE = "notices.toml"
LASTS = timedelta(minutes=5)
"""Time for which Alertmanager takes an alert for open that is not sent again."""
_NAME = r"[a-z_][a-z0-9_]{0,39}"


class RouteOptions(WebhookOptions):
    """A part of notices.toml: what a webhook sink has, without `body` and `batch`, and with these.

    Args:
        kind: of the receiver.
        least: least level of the incidents that it is told.
    """

    kind: Kind
    least: Level = "ticket"
    secrets: tuple[str, ...] = Field(
        default=(), description='What signs: write secrets = ["env:NAME"], and set NAME to whsec_… where workers run.'
    )
    timeout_s: float = Field(default=10.0, gt=0, le=30)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.kind == "webhook" and not self.secrets:
            raise ValueError('secrets is missing: write secrets = ["env:NAME"]')
        if self.kind != "webhook" and self.secrets:
            raise ValueError(f"{self.kind} takes no signature: leave secrets out")
        for name in ("body", "batch"):
            if name in self.model_fields_set:
                raise ValueError(f"{name} is for sinks: leave it out")
        return self


def notices_beside(projections: Path) -> Path:
    """Return the file of routes that belongs to a folder of projections; it may not exist."""
    return projections.resolve().parent / FILE


def load_routes(path: Path, mistakes: list[RefoldError]) -> dict[str, tuple[str, str, str]]:
    """Read the file of routes: kind, least level and definition by name.

    Args:
        path: the file.
        mistakes: receives an error for everything that is wrong.
    """
    try:
        source = read_text(path)
        given = parsed(source, path, remedy='Write a text in quotes: kind = "webhook".')
    except DefinitionError as error:
        mistakes.append(error)
        return {}
    found: dict[str, tuple[str, str, str]] = {}
    for name, options in given.items():

        def wrong(key: str, message: str, remedy: str | None = None, name: str = name) -> None:
            mistakes.append(
                DefinitionError(
                    f"{key}: {message}", path=path, line=line_of(source, key) or line_of(source, name), remedy=remedy
                )
            )

        if not re.fullmatch(_NAME, name):
            wrong(name, "cannot name a route", "Use at most 40 small letters, digits and underscores.")
        elif not isinstance(options, dict):
            wrong(name, f"must be a table: [{name}]")
        else:
            try:
                made = RouteOptions(**options)
            except ValidationError as error:
                for one in error.errors():
                    key = ".".join([name, *(str(part) for part in one["loc"] if isinstance(part, str))])
                    if one["type"] == "extra_forbidden":
                        known = ", ".join(part for part in RouteOptions.model_fields if part not in ("body", "batch"))
                        wrong(key, "is not known", f"The keys are {known}.")
                    elif one["type"] == "missing":
                        wrong(
                            key,
                            "is missing",
                            "Kinds: " + ", ".join(get_args(Kind)) + "." if key.endswith("kind") else None,
                        )
                    else:
                        wrong(key, str(one["msg"]).removeprefix("Value error, "))
            else:
                found[name] = made.kind, made.least, json.dumps(options, sort_keys=True)
    return found


class Sender:
    """Sends over one route.

    Args:
        route: the route, with its definition.
        origin: words that tell this database from others: part of every key.
        database: its name, which receivers see.
    """

    def __init__(self, route: Route, origin: str, database: str) -> None:
        self.route = route
        self._origin = origin
        self._database = database
        self._options = RouteOptions(**json.loads(route.definition))
        self._prepared: Prepared | None = None

    def send(self, notices: Sequence[Notice], now: datetime) -> None:
        """Send notices in one request: a webhook takes one, Alertmanager any number.

        Raises:
            DeliveryError: the receiver has not confirmed.
        """
        if self.route.kind == "alertmanager":
            self._post([alert(one, self._database, now) for one in notices], key="")
            return
        for one in notices:
            key = self.key(one)
            self._post(message(one, self._database), key=key)

    def key(self, notice: Notice) -> str:
        """Return the key of a notice: the same at every attempt, and never that of another one."""
        text = json.dumps([self._origin, notice.notice_id, notice.incident_id, notice.change, notice.route])
        return "msg_" + hashlib.sha256(text.encode()).hexdigest()

    def beat(self) -> None:
        """Call the address of a heartbeat.

        Raises:
            DeliveryError: it does not answer with 2xx.
        """
        self._post({"type": "refold.heartbeat", "data": {"database": self._database}}, key=f"msg_{token_hex(32)}")

    def test(self, now: datetime) -> None:
        """Send a notice that says that it is a test; an alert of it ends after a minute.

        Raises:
            DeliveryError: the receiver has not confirmed.
        """
        if self.route.kind == "heartbeat":
            self.beat()
        elif self.route.kind == "alertmanager":
            labels = {"alertname": "refold_test", "severity": "none", "database": self._database}
            ends = _text(now + timedelta(minutes=1))
            self._post(
                [
                    {
                        "labels": labels,
                        "annotations": {"summary": "A test of a route"},
                        "startsAt": _text(now),
                        "endsAt": ends,
                    }
                ],
                key="",
            )
        else:
            data = {"database": self._database, "route": self.route.name}
            self._post({"type": "refold.ping", "timestamp": _text(now), "data": data}, key=f"msg_{token_hex(32)}")

    def close(self) -> None:
        """Close the connection, and forget secrets."""
        if self._prepared is not None:
            self._prepared.client.close()
        self._prepared = None

    def _post(self, content: object, *, key: str) -> None:
        if self._prepared is None:
            path = "/api/v2/alerts" if self.route.kind == "alertmanager" else ""
            self._prepared = prepared(self._options, below=path)
        body = json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode()
        headers = [("Idempotency-Key", key)] if key else []
        if self._options.secrets:
            self._prepared.post_signed(key, body, headers)
        else:
            self._prepared.post(headers, body)


def message(notice: Notice, database: str) -> dict[str, Any]:
    """Return the body of a webhook. What it says at one attempt it says at every other."""
    over = notice.change == "resolved"
    at = notice.resolved_at if over else notice.detected_at
    return {
        "type": f"incident.{notice.change}",
        "timestamp": None if at is None else _text(at),
        "data": {
            "database": database,
            "incident": notice.incident_id,
            "kind": notice.kind,
            "subject": notice.subject,
            "level": notice.level,
            "started_at": _text(notice.started_at),
            "detected_at": _text(notice.detected_at),
            "resolved_at": _text(notice.resolved_at) if over and notice.resolved_at else None,
            "resolved_by": notice.resolved_by if over else None,
            "summary": summary(notice),
            "remedy": None if over else _remedy(notice.kind),
        },
    }


def alert(notice: Notice, database: str, now: datetime) -> dict[str, Any]:
    """Return an incident as Alertmanager takes it: open for some minutes, unless it is sent again; or resolved."""
    # An end that is to come, by a clock that was ahead, would keep the alert open until then.
    ends = min(notice.resolved_at, now) if notice.resolved_at is not None else now + LASTS
    return {
        "labels": {
            "alertname": f"refold_{notice.kind}",
            "severity": notice.level,
            "database": database,
            "subject": notice.subject,
            "incident": str(notice.incident_id),
        },
        "annotations": {"summary": summary(notice), "remedy": _remedy(notice.kind)},
        "startsAt": _text(min(notice.started_at, ends)),
        "endsAt": _text(ends),
    }


def summary(notice: Notice) -> str:
    """Return an incident in one line."""
    if notice.kind == "anomaly":
        return f"{notice.subject} is unusual, {notice.change}"
    return f"{notice.kind} of {notice.subject}, {notice.change}"


def _remedy(kind: str) -> str:
    return dict(REMEDIES).get(kind, "See `refold incidents --open`.")  # type: ignore[call-overload,no-any-return]


def _text(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
