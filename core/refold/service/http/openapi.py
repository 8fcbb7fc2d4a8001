"""The description of the HTTP door, in OpenAPI 3.1."""

from __future__ import annotations

from typing import Any

from refold import __version__
from refold.model.event.source_event import Answer, SourceEvent
from refold.sources.http.segment import TYPES

_PROBLEM = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
_RETRY = {
    "Retry-After": {"description": "Seconds after which to send the same bytes again.", "schema": {"type": "integer"}}
}


def document() -> dict[str, Any]:
    """Return the description as a JSON object."""
    event = SourceEvent.model_json_schema()
    event["properties"]["metadata"]["type"] = "object"
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "refold",
            "version": __version__,
            "description": "Appends events to the log, once each. An answer comes after its commit. After a 5xx, a 429 "
            "or a lost answer, send the same bytes again: what is in the log is answered `duplicate`.",
        },
        "security": [{"bearer": []}, {"basic": []}],
        "paths": {
            "/v1/events": {"post": _events()},
            **{f"/v1/{name}": {"post": _segment(f"One message of the type {name}.", "Message")} for name in TYPES},
            "/v1/batch": {"post": _segment("Messages of Segment's API.", "Batch")},
            "/v1/import": {"post": _segment("Messages of Segment's API, from the past.", "Batch")},
            "/livez": {"get": _open("The process is alive.", {"200": "It is."})},
            "/readyz": {
                "get": _open(
                    "The process may take traffic.", {"200": "It may.", "503": "It may not; `reasons` says why."}
                )
            },
        },
        "components": {
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "description": "A token: `refold tokens create NAME`."},
                "basic": {
                    "type": "http",
                    "scheme": "basic",
                    "description": "The token as the user's name; no password.",
                },
            },
            "schemas": {
                "SourceEvent": event,
                "Receipt": {
                    "type": "object",
                    "required": ["id", "answer"],
                    "properties": {
                        "id": {"type": ["string", "null"]},
                        "index": {"type": "integer", "description": "Place in the request, from 0."},
                        "answer": {"enum": [answer.value for answer in Answer]},
                        "reason": {"type": "string"},
                    },
                },
                "Summary": {
                    "type": "object",
                    "required": [*(answer.value for answer in Answer), "problems"],
                    "properties": {
                        **{answer.value: {"type": "integer", "minimum": 0} for answer in Answer},
                        "problems": {"type": "array", "items": {"$ref": "#/components/schemas/Receipt"}},
                        "events": {"type": "array", "items": {"$ref": "#/components/schemas/Receipt"}},
                    },
                },
                "Problem": {
                    "type": "object",
                    "required": ["title", "status", "detail"],
                    "properties": {
                        "title": {"type": "string"},
                        "status": {"type": "integer"},
                        "detail": {"type": "string"},
                    },
                },
                "Message": {"type": "object", "description": "As the SDKs of Segment and RudderStack send it."},
                "Batch": {
                    "type": "object",
                    "required": ["batch"],
                    "properties": {"batch": {"type": "array", "items": {"$ref": "#/components/schemas/Message"}}},
                },
            },
        },
    }


def _events() -> dict[str, Any]:
    one = {"$ref": "#/components/schemas/SourceEvent"}
    receipt = {"application/json": {"schema": {"$ref": "#/components/schemas/Receipt"}}}
    summary = {"application/json": {"schema": {"$ref": "#/components/schemas/Summary"}}}
    either = {
        "application/json": {
            "schema": {"anyOf": [{"$ref": "#/components/schemas/Receipt"}, {"$ref": "#/components/schemas/Summary"}]}
        }
    }
    return {
        "summary": "Append events.",
        "operationId": "appendEvents",
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {"schema": {"anyOf": [one, {"type": "array", "items": one, "maxItems": 10_000}]}},
                "application/x-ndjson": {
                    "schema": {"type": "string", "description": "One event a line, without a limit."}
                },
                "application/cloudevents+json": {"schema": {"type": "object"}},
                "application/cloudevents-batch+json": {"schema": {"type": "array", "items": {"type": "object"}}},
            },
        },
        "responses": {
            "201": {"description": "The event is in the log.", "content": receipt},
            "200": {"description": "It was in the log before; of several events, all are in it.", "content": either},
            "207": {
                "description": "Of several events, some were rejected; the others are in the log.",
                "content": summary,
            },
            "409": {"description": "The log has another event with this id.", "content": _PROBLEM},
            "422": {
                "description": "The event is not valid; of several events, none is.",
                "content": {**_PROBLEM, **summary},
            },
            **_refusals("400", "401", "403", "408", "413", "415", "429", "503"),
        },
    }


def _segment(summary: str, schema: str) -> dict[str, Any]:
    return {
        "summary": summary,
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}},
        },
        "responses": {
            "200": {
                "description": "The valid messages are in the log; the others are kept with the reason.",
                "content": {
                    "application/json": {"schema": {"type": "object", "properties": {"success": {"const": True}}}}
                },
            },
            **_refusals("400", "401", "403", "408", "413", "415", "429", "503"),
        },
    }


def _open(summary: str, responses: dict[str, str]) -> dict[str, Any]:
    return {
        "summary": summary,
        "security": [],
        "responses": {
            status: {"description": text, "content": {"application/json": {"schema": {"type": "object"}}}}
            for status, text in responses.items()
        },
    }


_REFUSALS = {
    "400": "The body as a whole cannot be read.",
    "401": "There is no token, or it is not valid.",
    "403": "The token may not be used from here.",
    "408": "The body arrives too slowly.",
    "413": "The body is too large.",
    "415": "The content type or encoding is not known.",
    "429": "Too much is waiting, or the token's rate is used up.",
    "503": "The database is away, or the server is about to stop.",
}


def _refusals(*statuses: str) -> dict[str, Any]:
    return {
        status: {
            "description": _REFUSALS[status],
            "content": _PROBLEM,
            **({"headers": _RETRY} if status in ("429", "503") else {}),
        }
        for status in statuses
    }
