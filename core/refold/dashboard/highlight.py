"""Definitions of metrics with their words in colours."""

from __future__ import annotations

from markupsafe import Markup

from refold.visible import visible


def highlighted(text: str, language: str) -> Markup:
    """Return SQL or Python as HTML with classes."""
    # Rich has brought pygments; nobody but this page needs it.
    from pygments import highlight
    from pygments.formatters import HtmlFormatter
    from pygments.lexers import PostgresLexer, PythonLexer

    lexer = PythonLexer() if language == "python" else PostgresLexer()
    return Markup(highlight(visible(text.strip("\n"), lines=True), lexer, HtmlFormatter(nowrap=True)))
