"""A file of `sql/views/`: the statements that make one view on top of the metrics, and no other object."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import sqlglot
from sqlglot import Token, TokenType, exp

from refold.errors import DefinitionError, RefoldError, ViewError
from refold.model.projection.files import project_files, read_text
from refold.suggest import closest

SCHEMA = "metrics"
"""The schema of the views, which also holds the views of the metrics."""
TAKEN = ("freshness",)
"""Names in this schema that refold uses itself."""

_TO_FOLLOW = {"SET", "RESET", "ALTER"}
"""The words that may follow ALTER VIEW and the name, to change options and defaults."""


@dataclass(frozen=True, slots=True)
class Statement:
    """One statement of a file.

    Args:
        verb: its first word, in capitals.
        text: the whole statement, without the semicolon.
        line: the line of the file on which it begins.
    """

    verb: str
    text: str
    line: int


@dataclass(frozen=True, slots=True)
class ViewFile:
    """A view as its file makes it.

    Args:
        name: the view, from the file's name.
        path: the file.
        source: the text of the file.
        statements: the statements of the file, in order.
    """

    name: str
    path: Path
    source: str
    statements: tuple[Statement, ...]


def views_beside(projections: Path) -> Path:
    """Return the folder of views that belongs to a folder of projections; it may not exist."""
    return projections.resolve().parent / "sql" / "views"


def load_views(folder: Path, metrics: Collection[str], mistakes: list[RefoldError]) -> list[ViewFile]:
    """Read every `*.sql` of a folder, and return the views that can be made.

    Args:
        folder: the folder of views; it may not exist.
        metrics: the names of the metrics, which no view may have.
        mistakes: receives an error for each file that is wrong and left out.
    """
    files: list[ViewFile] = []
    for path in project_files(folder, ".sql", wrong=mistakes.append):
        try:
            if path.stem in metrics or path.stem in TAKEN:
                whose = "a metric" if path.stem in metrics else "refold itself"
                raise ViewError(
                    f"the name {path.stem} is taken by {whose}",
                    path=path,
                    remedy="Give the file and its view another name; to make this view would replace the other.",
                )
            files.append(view_file(path.stem, read_text(path), path))
        except (DefinitionError, ViewError) as error:
            mistakes.append(error)
    return files


def view_file(name: str, source: str, path: Path) -> ViewFile:
    """Parse the text of a file, and return its view.

    Args:
        name: the view, from the file's name.
        source: the text of the file.
        path: the file, for messages.

    Raises:
        ViewError: a statement makes, changes or drops something else than the view, or no statement makes the view.
    """
    try:
        tokens = sqlglot.tokenize(source, read="postgres")
    except sqlglot.errors.TokenError as error:
        raise ViewError(
            f"refold cannot read this SQL: {error}", path=path, remedy="Check for a quote that is not closed."
        ) from error
    statements = tuple(_statement(name, part, source, path) for part in _parts(tokens))
    if all(statement.verb != "CREATE" for statement in statements):
        raise ViewError(
            f"the file makes no view {SCHEMA}.{name}",
            path=path,
            remedy=f"Write CREATE OR REPLACE VIEW {SCHEMA}.{name} AS SELECT …, or remove the file.",
        )
    return ViewFile(name, path, source, statements)


def in_schema(text: str, names: Collection[str], schema: str) -> str:
    """Return a statement with some views of `metrics` moved to another schema.

    Args:
        text: the statement.
        names: the views to move.
        schema: the other schema, as SQL.
    """
    tokens = sqlglot.tokenize(text, read="postgres")
    parts: list[str] = []
    at = 0
    for token, _ in _mentioned(tokens, names):
        parts += [text[at : token.start], schema]
        at = token.end + 1
    return "".join([*parts, text[at:]])


def mentions(text: str, names: Collection[str]) -> bool:
    """Return whether a text names one of these views with the schema `metrics`."""
    return any(True for _ in _mentioned(sqlglot.tokenize(text, read="postgres"), names))


def unqualified(text: str, names: Collection[str]) -> str | None:
    """Return the first of some views of `metrics` that a query names without the schema.

    None if there is none, or if sqlglot cannot parse the query.

    Args:
        text: the query.
        names: the views.
    """
    try:
        tree = sqlglot.parse_one(text, read="postgres")
    except sqlglot.errors.SqlglotError:
        return None
    inner = {cte.alias for cte in tree.find_all(exp.CTE)}
    made = tree.this if isinstance(tree, exp.Create) else None
    for table in tree.find_all(exp.Table):
        if table is not made and not table.db and table.name in names and table.name not in inner:
            return str(table.name)
    return None


def _mentioned(tokens: Sequence[Token], names: Collection[str]) -> Iterator[tuple[Token, str]]:
    for at, token in enumerate(tokens[:-2]):
        qualified = at and tokens[at - 1].token_type is TokenType.DOT
        if _name(token) != SCHEMA or qualified or tokens[at + 1].token_type is not TokenType.DOT:
            continue
        name = _name(tokens[at + 2])
        if name in names:
            yield token, name


def _parts(tokens: Sequence[Token]) -> Iterator[list[Token]]:
    part: list[Token] = []
    for token in tokens:
        if token.token_type is not TokenType.SEMICOLON:
            part.append(token)
            continue
        if part:
            yield part
        part = []
    if part:
        yield part


def _statement(name: str, tokens: list[Token], source: str, path: Path) -> Statement:
    text = source[tokens[0].start : tokens[-1].end + 1]
    words = [token.text.upper() for token in tokens]
    line = source.count("\n", 0, tokens[0].start) + 1
    at = _object_at(words)
    if at is None:
        raise _no_statement_of_views(name, tokens, source, path, line)
    dotted = _dotted(tokens[at:])
    if dotted[:2] != [SCHEMA, name]:
        raise _other(name, words[0], dotted, path, line)
    if words[0] == "DROP" and len(words) > at + 3:
        raise ViewError(
            f"{_said(tokens[at + 3 :], source)} drops more than the view {SCHEMA}.{name}",
            path=path,
            line=line,
            remedy="Remove the DROP: where a view must be dropped, refold drops it and makes it again.",
        )
    follows = words[at + 3 : at + 5] or [""]
    if words[0] == "ALTER" and (follows[0] not in _TO_FOLLOW or follows == ["SET", "SCHEMA"]):
        raise ViewError(
            f"{_said(tokens[: at + 5], source)} changes more than options and defaults",
            path=path,
            line=line,
            remedy="Remove it; a view with another name needs another file.",
        )
    return Statement(words[0], text, line)


def _no_statement_of_views(name: str, tokens: Sequence[Token], source: str, path: Path, line: int) -> ViewError:
    """Return the error for a statement that neither makes nor changes a view."""
    words = [token.text.upper() for token in tokens]
    make = f"CREATE OR REPLACE VIEW {SCHEMA}.{name} AS"
    remedy = "Remove it: a file in sql/views may create one view, comment on it, and grant access to it."
    if words[0] in ("SELECT", "WITH", "VALUES", "TABLE", "("):
        said = f"{_said(tokens[:3], source)} … is a query, but makes no view"
        return ViewError(said, path=path, line=line, remedy=f"Write before it: {make}")
    if words[:2] == ["CREATE", "MATERIALIZED"]:
        remedy = f"Write {make} …. To keep its rows, make the query a metric in projections/."
    elif words[:1] == ["CREATE"] and any(word in ("TEMP", "TEMPORARY") for word in words[:4]):
        remedy = f"Write {make} …: a temporary view ends with its session."
    said = f"{_said(tokens[:3], source)} … makes or changes something else than the view {SCHEMA}.{name}"
    return ViewError(said, path=path, line=line, remedy=remedy)


def _said(tokens: Sequence[Token], source: str) -> str:
    """Return tokens in their author's words, on one line."""
    return " ".join(source[tokens[0].start : tokens[-1].end + 1].split())


def _other(name: str, verb: str, dotted: Sequence[str], path: Path, line: int) -> ViewError:
    said = ".".join(dotted)
    if said == name:
        remedy = f"Write {SCHEMA}.{name}."
    elif verb != "CREATE":
        remedy = "Remove it."
    elif closest(name, dotted[-1:]):
        remedy = f"Write {SCHEMA}.{name}, or name the file {dotted[-1]}.sql."
    else:
        remedy = f"Move it to its own file: {dotted[-1]}.sql."
    return ViewError(
        f"{verb} is about {said}, but the file may make only {SCHEMA}.{name}, the view that has the file's name",
        path=path,
        line=line,
        remedy=remedy,
    )


def _object_at(words: list[str]) -> int | None:
    """Return the index of the object's name in a statement that a file may have; None for any other statement."""
    at = 0

    def skip(*expected: str) -> bool:
        nonlocal at
        found = tuple(words[at : at + len(expected)]) == expected
        at += len(expected) if found else 0
        return found

    if skip("CREATE"):
        skip("OR", "REPLACE")
        skip("RECURSIVE")
        return at + 1 if words[at : at + 1] == ["VIEW"] else None
    if skip("DROP", "VIEW") or skip("ALTER", "VIEW"):
        skip("IF", "EXISTS")
        return at
    if skip("COMMENT", "ON"):
        return at + 1 if words[at : at + 1] in (["VIEW"], ["COLUMN"]) else None
    if words[:1] in (["GRANT"], ["REVOKE"]) and "ON" in words:
        at = words.index("ON") + 1
        skip("TABLE")
        return at
    return None


def _dotted(tokens: Sequence[Token]) -> list[str]:
    """Return the parts of a dotted name, such as schema, view and column."""
    names = [_name(tokens[0])] if tokens else []
    for dot, token in zip(tokens[1::2], tokens[2::2], strict=False):
        if dot.token_type is not TokenType.DOT:
            break
        names.append(_name(token))
    return names


def _name(token: Token) -> str:
    """Return a name as Postgres reads it: in lower case unless it is quoted."""
    return str(token.text) if token.token_type is TokenType.IDENTIFIER else str(token.text).lower()
