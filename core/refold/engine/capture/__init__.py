"""Deploys, checks, drops and backfills captures."""
