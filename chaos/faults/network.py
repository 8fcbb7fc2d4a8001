"""Faults of the network."""

from __future__ import annotations

import time
from typing import Any

from chaos.faults.injection import (
    Injected,
)
from chaos.stage import Stage
from chaos.wire import FAIR, Weather


def _weather(stage: Stage, weather: Weather, seconds: float) -> None:
    stage.wire.weather = weather
    time.sleep(seconds)
    stage.wire.weather = FAIR


def connections_cut(stage: Stage, how: dict[str, Any], done: Injected) -> None:
    """Each connection through the proxy is cut when the client has sent so many bytes."""
    _weather(stage, Weather(cut_after=how["after_bytes"]), how["seconds"])


def reply_lost(stage: Stage, how: dict[str, Any], done: Injected) -> None:
    """The reply to COMMIT never arrives."""
    _weather(stage, Weather(lose_reply=True), how["seconds"])


def peer_silent(stage: Stage, how: dict[str, Any], done: Injected) -> None:
    """Nothing passes for a while, then all of it."""
    _weather(stage, Weather(silent=True), how["seconds"])


def network_slow(stage: Stage, how: dict[str, Any], done: Injected) -> None:
    """Every block comes late."""
    _weather(stage, Weather(delay=how["delay"]), how["seconds"])
