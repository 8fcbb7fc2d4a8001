"""All commands of the command line."""

from __future__ import annotations

from scripts.reference import all_commands

COMMANDS = all_commands()
