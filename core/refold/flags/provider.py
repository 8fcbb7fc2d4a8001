"""An OpenFeature provider that says which build of a metric a reader is to see.

Whoever asks for a dashboard's viewer gets the same answer as the view `metrics.NAME` gives to a session with
`refold.reader` set to this viewer.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import psycopg
from openfeature.evaluation_context import EvaluationContext
from openfeature.exception import FlagNotFoundError, GeneralError, TypeMismatchError
from openfeature.flag_evaluation import FlagResolutionDetails, FlagValueType, Reason
from openfeature.provider import AbstractProvider, Metadata

from refold.postgres.connect import connect
from refold.postgres.rows import one_row

PREFIX = "metrics."
"""Before the name of a metric in the key of a flag."""
LIVE, CANDIDATE = "live", "candidate"
WAIT_MS = 2_000
"""Milliseconds for which a flag may wait for the server."""


class RefoldProvider(AbstractProvider):
    """Answers `metrics.NAME`: as text `live` or `candidate`, as a boolean whether it is the candidate.

    The targeting key of the context is the reader; without one it is the login. A database that cannot be asked is an
    error, for which a client of OpenFeature takes its default.

    Args:
        url: libpq URL of the database; its login may act as refold_analyst.
    """

    def __init__(self, url: str) -> None:
        super().__init__()
        self._url = url
        self._conn: psycopg.Connection | None = None
        self._one_at_a_time = threading.Lock()

    def get_metadata(self) -> Metadata:
        """Return the provider's name."""
        return Metadata(name="refold")

    def shutdown(self) -> None:
        """Close the connection; a later question opens another one."""
        with self._one_at_a_time:
            self._close()

    def resolve_boolean_details(
        self, flag_key: str, default_value: bool, evaluation_context: EvaluationContext | None = None
    ) -> FlagResolutionDetails[bool]:
        """Return whether the reader is to see the candidate."""
        chosen = self._on_canary(flag_key, evaluation_context)
        return FlagResolutionDetails(value=chosen, variant=_variant(chosen), reason=Reason.SPLIT)

    def resolve_string_details(
        self, flag_key: str, default_value: str, evaluation_context: EvaluationContext | None = None
    ) -> FlagResolutionDetails[str]:
        """Return `live` or `candidate`."""
        variant = _variant(self._on_canary(flag_key, evaluation_context))
        return FlagResolutionDetails(value=variant, variant=variant, reason=Reason.SPLIT)

    def resolve_integer_details(
        self, flag_key: str, default_value: int, evaluation_context: EvaluationContext | None = None
    ) -> FlagResolutionDetails[int]:
        """Refuse: no flag of refold is a number."""
        raise _mismatch(flag_key)

    def resolve_float_details(
        self, flag_key: str, default_value: float, evaluation_context: EvaluationContext | None = None
    ) -> FlagResolutionDetails[float]:
        """Refuse: no flag of refold is a number."""
        raise _mismatch(flag_key)

    def resolve_object_details(
        self,
        flag_key: str,
        default_value: Sequence[FlagValueType] | Mapping[str, FlagValueType],
        evaluation_context: EvaluationContext | None = None,
    ) -> FlagResolutionDetails[Sequence[FlagValueType] | Mapping[str, FlagValueType]]:
        """Refuse: no flag of refold is an object."""
        raise _mismatch(flag_key)

    def _on_canary(self, key: str, context: EvaluationContext | None) -> bool:
        name = key.removeprefix(PREFIX)
        if name == key:
            raise FlagNotFoundError(f"{key}: refold's flags are {PREFIX}NAME, for each metric")
        reader = "" if context is None else context.targeting_key or ""
        with self._one_at_a_time:
            try:
                known, chosen = self._ask(name, reader)
            except psycopg.Error as error:
                self._close()
                raise GeneralError(f"refold's database cannot be asked: {error}") from error
        if not known:
            raise FlagNotFoundError(f"there is no metric {name}")
        return bool(chosen)

    def _ask(self, name: str, reader: str) -> tuple[Any, ...]:
        if self._conn is None or self._conn.closed:
            self._conn = connect(
                self._url,
                "refold_analyst",
                autocommit=True,
                application_name="refold flags",
                settings={"statement_timeout": str(WAIT_MS)},
            )
        conn = self._conn
        with conn.transaction():
            conn.execute("SELECT set_config('refold.reader', %s, true)", (reader,))
            return one_row(
                conn, "SELECT to_regclass(format('metrics.%%I', %s::text)) IS NOT NULL, refold.on_canary(%s)",
                (name, name),
            )  # fmt: skip

    def _close(self) -> None:
        if self._conn is not None:
            with suppress(psycopg.Error):
                self._conn.close()
            self._conn = None


def _variant(chosen: bool) -> str:
    return CANDIDATE if chosen else LIVE


def _mismatch(key: str) -> TypeMismatchError:
    return TypeMismatchError(f"{key} is text or a boolean")
