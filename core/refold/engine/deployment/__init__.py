"""Deployments: planning, building, going live, rolling back, renaming and dropping."""
