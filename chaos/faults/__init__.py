"""The faults: each begins, lasts, and ends; what it did is returned."""

from __future__ import annotations

import time
from datetime import UTC, datetime

import psycopg

from chaos.faults.archive import archive_killed, archive_lied_to, archive_refused
from chaos.faults.backfill import backfilled
from chaos.faults.canary import canary
from chaos.faults.commands import deployed, rebuild, reconciled, rolled_back
from chaos.faults.contracts import contract_deployed
from chaos.faults.damage import log_damaged, tampered
from chaos.faults.erasure import erased
from chaos.faults.events import (
    duplicate_storm,
    hot_key,
    poisoned,
    poisoned_in_decoding,
    poisoned_in_the_view,
    poisoned_together,
)
from chaos.faults.injection import Inject, Injected
from chaos.faults.network import connections_cut, network_slow, peer_silent, reply_lost
from chaos.faults.processes import (
    all_workers_frozen,
    door_frozen,
    door_killed,
    producer_killed,
    worker_frozen,
    worker_killed,
)
from chaos.faults.purge import purged
from chaos.faults.restore import restored
from chaos.faults.retain import retained
from chaos.faults.server import (
    backend_killed,
    published,
    restart_loop,
    server_killed,
    session_terminated,
    settings_turned_hostile,
)
from chaos.faults.transactions import prepared_and_left, snapshot_held, transaction_left_open
from chaos.schedule import Step
from chaos.stage import Stage

__all__ = ["FAULTS", "ROOMS", "Injected", "inject"]

FAULTS: dict[str, Inject] = {
    "worker killed": worker_killed,
    "tampered": tampered,
    "server killed": server_killed,
    "connections cut": connections_cut,
    "worker frozen": worker_frozen,
    "all workers frozen": all_workers_frozen,
    "backend killed": backend_killed,
    "session terminated": session_terminated,
    "restart loop": restart_loop,
    "reply lost": reply_lost,
    "peer silent": peer_silent,
    "network slow": network_slow,
    "rebuild": rebuild,
    "deploy": deployed,
    "rollback": rolled_back,
    "reconcile": reconciled,
    "transaction left open": transaction_left_open,
    "prepared and left": prepared_and_left,
    "duplicate storm": duplicate_storm,
    "producer killed": producer_killed,
    "poison": poisoned,
    "poison in decoding": poisoned_in_decoding,
    "poison together": poisoned_together,
    "poison in the view": poisoned_in_the_view,
    "log damaged": log_damaged,
    "settings turned hostile": settings_turned_hostile,
    "published": published,
    "snapshot held": snapshot_held,
    "hot key": hot_key,
    "door killed": door_killed,
    "door frozen": door_frozen,
}
"""Every kind of fault."""
ROOMS: dict[str, Inject] = {
    "archive killed": archive_killed,
    "backfill": backfilled,
    "contract deployed": contract_deployed,
    "canary": canary,
    "archive lied to": archive_lied_to,
    "archive refused": archive_refused,
    "purge": purged,
    "erasure": erased,
    "segment lost": restored,
    "retention": retained,
}
"""What goes on beside them, in a lane of its own: three minutes are enough for each kind once."""


def inject(stage: Stage, step: Step) -> Injected:
    """Lets one fault happen; one that another fault keeps from happening is noted as such."""
    done = Injected(step, began=time.monotonic(), clock=datetime.now(UTC))
    try:
        (FAULTS | ROOMS)[step.fault](stage, dict(step.parameters), done)
    except (psycopg.Error, ProcessLookupError) as error:
        done.note += f" interrupted: {str(error).splitlines()[0][:100] if str(error) else type(error).__name__}"
        done.must_show = False
    done.ended = time.monotonic()
    return done
