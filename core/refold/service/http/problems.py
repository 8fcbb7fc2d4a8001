"""Answers to requests that are refused as a whole: `application/problem+json` of RFC 9457."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus

from starlette.responses import JSONResponse, Response

MEDIA_TYPE = "application/problem+json"


class Problem(Exception):
    """A request that is refused as a whole.

    Args:
        status: of HTTP.
        detail: what is wrong, and what to do.
        headers: further headers of the answer.
    """

    def __init__(self, status: int, detail: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.headers = dict(headers or {})


def answer(problem: Problem, more: Mapping[str, object] | None = None) -> Response:
    """Return the answer to a request that is refused as a whole, with further members."""
    return JSONResponse(
        {
            "title": HTTPStatus(problem.status).phrase,
            "status": problem.status,
            "detail": problem.detail,
            **(more or {}),
        },
        problem.status,
        problem.headers,
        MEDIA_TYPE,
    )
