"""The kinds of receivers."""
