"""What a page has read, as JSON."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from datetime import date, datetime
from decimal import Decimal
from typing import Any

from refold.visible import visible_json


def dumped(value: Any) -> str:
    """Return what a page has read as JSON."""
    return visible_json(json.dumps(plain(value), ensure_ascii=False, indent=2))


def plain(value: Any) -> Any:
    """Return a value of a page as JSON knows it."""
    if hasattr(value, "as_dict"):
        return plain(value.as_dict())
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {one.name: plain(getattr(value, one.name)) for one in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(name): plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(one) for one in value]
    if isinstance(value, datetime | date):
        return value.isoformat()
    if isinstance(value, Decimal | float) and not math.isfinite(value):
        # JSON has no NaN and no infinity.
        return str(value)
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() and value.adjusted() < 18 else str(value)
    return value if value is None or isinstance(value, str | int | float | bool) else str(value)
