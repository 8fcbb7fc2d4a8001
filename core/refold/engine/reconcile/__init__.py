"""Reconcile: does every metric equal its query over the log, and if not, make it so."""

from refold.engine.reconcile.reconcile import reconcile
from refold.engine.reconcile.result import Difference, ReconcileReport

__all__ = ["Difference", "ReconcileReport", "reconcile"]
