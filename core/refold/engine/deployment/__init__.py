"""Deploying projections: plan, build, go live; and going back."""
