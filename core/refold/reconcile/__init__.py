"""Reconcile: does every metric equal its query over the log, and if not, make it so."""

from refold.reconcile.finding import Finding, Report
from refold.reconcile.reconcile import reconcile

__all__ = ["Finding", "Report", "reconcile"]
