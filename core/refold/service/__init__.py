"""Processes that stay up."""
