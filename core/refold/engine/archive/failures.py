"""What can be wrong with the store of the archive, and the import of what speaks to it."""

from __future__ import annotations

import importlib
from typing import Any

from refold.errors import RefoldError


class StoreFailed(RefoldError):
    """The store does not do what it was asked: it does not answer, refuses, or cannot be used from here."""


class Missing(StoreFailed):
    """The store has no such file."""


class NotOwner(StoreFailed):
    """The store belongs to another database, or to nobody: this one only reads it."""


class Differs(StoreFailed):
    """A file of the archive does not hold what was written.

    Args:
        message: which file, and how it differs.
        slices: slices whose rows differ, if the rows could be read.
    """

    def __init__(self, message: str, slices: tuple[int, ...] = ()) -> None:
        super().__init__(message, remedy="`refold archive verify --deep` names all such files.")
        self.slices = slices


def arrow(module: str = "pyarrow") -> Any:
    """Return a module of pyarrow.

    Raises:
        StoreFailed: pyarrow is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError:
        raise StoreFailed(
            "the archive needs pyarrow, which is not installed", remedy="Run `pip install 'refold[archive]'`."
        ) from None
