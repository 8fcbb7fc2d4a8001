"""Contracts of two actions, and what breaks them, by this program's own judgement.

`rated` is enforced all the time, and all producers break it now and then. The contract of `surveyed` changes its level
under load; only a fault sends such events, and knows the level under which it has sent them.
"""

from __future__ import annotations

import json
from typing import Any

ENFORCED = "rated"
CHANGING = "surveyed"
LEVELS = ("warn", "enforce", "off")
FIELDS: dict[str, Any] = {
    "label": {"type": "string"},
    "score": {"type": "integer", "minimum": 1, "maximum": 5},
    "invalid": {"type": "boolean"},
    "sent_under": {"enum": list(LEVELS)},
}
BREAKING: tuple[dict[str, Any], ...] = ({}, {"score": "3"}, {"score": 0}, {"score": 2.5}, {"score": 3, "stars": 3})
"""What metadata says instead of a score."""


def contract(level: str) -> str:
    """The file of a contract."""
    return json.dumps(
        {
            "x-refold": {"version": 1, "level": level},
            "type": "object",
            "required": ["label", "score"],
            "additionalProperties": False,
            "properties": FIELDS,
        }
    )


def breaks(metadata: dict[str, Any]) -> bool:
    """Whether metadata breaks the contract, by this program's own judgement."""
    score = metadata.get("score")
    return not (isinstance(score, int) and 1 <= score <= 5 and metadata.keys() <= FIELDS.keys())
