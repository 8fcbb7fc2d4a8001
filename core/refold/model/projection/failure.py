"""The failure of a transform on one event. It is a separate module, so that importing the class loads no pydantic."""

from __future__ import annotations


class FunctionFailed(Exception):
    """An event cannot be read, the function fails on it, or its rows cannot be written.

    Args:
        cause: the exception that was raised.
    """

    def __init__(self, cause: Exception) -> None:
        super().__init__(f"{type(cause).__name__}: {cause}")
