"""The failure of a transform on one event. A module of its own: what only asks for the class loads no pydantic."""

from __future__ import annotations


class FunctionFailed(Exception):
    """An event cannot be read, its function fails, or its rows cannot be written; the cause is what was raised."""

    def __init__(self, cause: Exception) -> None:
        super().__init__(f"{type(cause).__name__}: {cause}")
