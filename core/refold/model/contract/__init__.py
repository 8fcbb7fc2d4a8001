"""Contracts: the subset of JSON Schema, its predicates in the database, and what fits what."""
