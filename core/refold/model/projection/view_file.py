"""A file of `sql/views/`: the statements that make one view on top of the metrics, and nothing else."""

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
"""Where all of them stand, beside the views of the metrics."""
TAKEN = ("freshness",)
"""Names in it that are refold's own."""

_TO_FOLLOW = {"SET", "RESET", "ALTER"}
"""What ALTER VIEW may do: an option or a default, but give it no other name, owner or schema."""


@dataclass(frozen=True, slots=True)
class Statement:
    """One statement of a file.

    Args:
        verb: its first word, in capitals.
        text: the whole of it, without the semicolon.
        line: the line on which it begins.
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
        source: its text.
        statements: what is in it.
    """

    name: str
    path: Path
    source: str
    statements: tuple[Statement, ...]


def views_beside(projections: Path) -> Path:
    """The folder of views that belongs to one of projections; there need not be any."""
    return projections.resolve().parent / "sql" / "views"


def load_views(folder: Path, metrics: Collection[str], mistakes: list[RefoldError]) -> list[ViewFile]:
    """Reads every `*.sql` of a folder.

    Args:
        folder: where they are; there may be none.
        metrics: names that are taken by metrics.
        mistakes: gets what is wrong with each file that is left out.
    """
    files: list[ViewFile] = []
    for path in project_files(folder, ".sql", wrong=mistakes.append):
        try:
            if path.stem in metrics or path.stem in TAKEN:
                whose = "a metric" if path.stem in metrics else "refold itself"
                raise ViewError(
                    f"the name {path.stem} is taken by {whose}",
                    path=path,
                    remedy="Give file and view another name: to make it would take the other away.",
                )
            files.append(view_file(path.stem, read_text(path), path))
        except (DefinitionError, ViewError) as error:
            mistakes.append(error)
    return files


def view_file(name: str, source: str, path: Path) -> ViewFile:
    """Reads the text of a file.

    Raises:
        ViewError: something in it makes, changes or drops anything but the view that it is named after.
    """
    try:
        tokens = sqlglot.tokenize(source, read="postgres")
    except sqlglot.errors.TokenError as error:
        raise ViewError(
            f"refold cannot read this SQL: {error}", path=path, remedy="Look for a quote that is not closed."
        ) from error
    statements = tuple(_statement(name, part, source, path) for part in _parts(tokens))
    if all(statement.verb != "CREATE" for statement in statements):
        raise ViewError(
            f"the file makes no view {SCHEMA}.{name}",
            path=path,
            remedy=f"CREATE OR REPLACE VIEW {SCHEMA}.{name} AS SELECT …; or remove the file.",
        )
    return ViewFile(name, path, source, statements)


def in_schema(text: str, names: Collection[str], schema: str) -> str:
    """A statement in which some views of `metrics` stand in another schema.

    Args:
        text: the statement.
        names: those views.
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
    """Whether a text speaks of one of these in `metrics`."""
    return any(True for _ in _mentioned(sqlglot.tokenize(text, read="postgres"), names))


def unqualified(text: str, names: Collection[str]) -> str | None:
    """The first of some views of `metrics` that a query names without the schema, as far as it can be told."""
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
        raise ViewError(
            f"{' '.join(words[:3])} … makes or changes something else than the view {SCHEMA}.{name}",
            path=path,
            line=line,
            remedy="Leave it out: a file in sql/views makes one view, describes it, and says who may read it.",
        )
    dotted = _dotted(tokens[at:])
    if dotted[:2] != [SCHEMA, name]:
        raise _other(name, words[0], dotted, path, line)
    if words[0] == "DROP" and len(words) > at + 3:
        raise ViewError(
            f"{' '.join(words[at + 3 :])} drops more than the view {SCHEMA}.{name}",
            path=path,
            line=line,
            remedy="Leave the DROP out: refold drops what it has to, and makes it again.",
        )
    if words[0] == "ALTER" and (words[at + 3 : at + 4] or [""])[0] not in _TO_FOLLOW:
        raise ViewError(
            f"ALTER VIEW {SCHEMA}.{name} {' '.join(words[at + 3 : at + 5])} takes away the view of this name",
            path=path,
            line=line,
            remedy="Leave it out; another name is another file.",
        )
    return Statement(words[0], text, line)


def _other(name: str, verb: str, dotted: Sequence[str], path: Path, line: int) -> ViewError:
    said = ".".join(dotted)
    if said == name:
        remedy = f"Write {SCHEMA}.{name}."
    elif verb != "CREATE":
        remedy = "Leave it out."
    elif closest(name, dotted[-1:]):
        remedy = f"Write {SCHEMA}.{name}, or name the file {dotted[-1]}.sql."
    else:
        remedy = f"Give it a file of its own: {dotted[-1]}.sql."
    return ViewError(
        f"{verb} is about {said}, and the file may make {SCHEMA}.{name} alone, which it is named after",
        path=path,
        line=line,
        remedy=remedy,
    )


def _object_at(words: list[str]) -> int | None:
    """Where the name stands in a statement of a kind that a file may have."""
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
    """A name with what it is qualified by."""
    names = [_name(tokens[0])] if tokens else []
    for dot, token in zip(tokens[1::2], tokens[2::2], strict=False):
        if dot.token_type is not TokenType.DOT:
            break
        names.append(_name(token))
    return names


def _name(token: Token) -> str:
    """A name as Postgres reads it: in lower case where it has no quotes."""
    return str(token.text) if token.token_type is TokenType.IDENTIFIER else str(token.text).lower()
