"""Sinks without their receivers: the file of a sink, and its states. Pure."""
