"""Reconcile: comparing every metric with its query over the log, and healing the differences."""

from refold.engine.reconcile.reconcile import reconcile
from refold.engine.reconcile.result import Difference, ReconcileReport

__all__ = ["Difference", "ReconcileReport", "reconcile"]
