"""Templates, with the words and pictures that they use."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
from starlette.requests import Request

from refold import __version__
from refold.dashboard import drawing, wording
from refold.dashboard.highlight import highlighted
from refold.dashboard.registry import PAGES
from refold.dashboard.requests import address
from refold.dashboard.security import GRADE
from refold.dashboard.shared_state import Dashboard
from refold.dashboard.tokens import Grade
from refold.inspect.health import Health
from refold.prose import exact

HERE = Path(__file__).parent
STATIC = HERE / "static"


def render(
    dashboard: Dashboard, template: str, request: Request, *, health: Health | None = None, **values: Any
) -> str:
    """Return a template's text."""
    grade: Grade = request.scope[GRADE]
    return (
        environment()
        .get_template(template)
        .render(
            {
                "health": health,
                "grade": grade,
                "tokens": dashboard.tokens.any,
                "partial": "hx-request" in request.headers,
                "address": address(request),
                "pages": PAGES,
                "now": health.at if health is not None else datetime.now(UTC),
                "here": "",
                "notice": None,
                "json_path": "",
                "still": False,
                "trace_url": dashboard.trace_url,
                **values,
            }
        )
    )


@cache
def environment() -> jinja2.Environment:
    """Return the templates, with the words and pictures that they use."""
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {
        "ago": wording.ago,
        "cell": wording.cell,
        "event_path": wording.event_path,
        "code": wording.code,
        "rate": wording.rate,
        "row_path": wording.row_path,
        "safe_text": wording.safe,
        "short": wording.short,
        "span": wording.span,
        "exact": exact,
        "whole": wording.whole,
    }
    made.globals |= {
        "drawing": drawing,
        "highlighted": highlighted,
        "says": wording.says,
        "title_of": wording.title,
        "titled": wording.titled,
        "subject_of": wording.subject_of,
        "tones": wording.TONES,
        "version": __version__,
        "stamp": _stamp(),
        "when": wording.when,
    }
    return made


def _stamp() -> str:
    """Return a short hash of our static files, so that browsers do not keep those of another version."""
    digest = hashlib.sha256()
    for path in sorted((STATIC).rglob("*")):
        if path.is_file():
            digest.update(path.read_bytes())
    return digest.hexdigest()[:12]
