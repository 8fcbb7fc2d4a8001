"""Upcasters: SQL that turns the metadata of an older version of an action into that of the next one.

Each step is an expression over `metadata`, in `events/ACTION.v1_to_v2.sql`. A projection that reads the metadata of the
log gets the composed steps in the place of the column, before anything else looks at its query. So they are part of its
definition: of its fingerprint, its pages, its audits, and of what explains it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import sqlglot
from sqlglot import exp

from refold.errors import DefinitionError
from refold.model.projection.files import project_files, read_text
from refold.model.projection.plan import LOG, LOG_COLUMNS, NO_UPCAST
from refold.model.projection.query import analyse
from refold.model.projection.sqlglot_compat import (
    conjuncts,
    expression,
    fold_case,
    interval_casts,
    plain_intervals,
    replaced,
    statements,
)
from refold.model.projection.uniqueness import relation_of

COLUMN = "metadata"
LONGEST = 20_000
"""Most characters of the composed steps: each mention of `metadata` holds the steps before."""
_NAME = re.compile(r"(?P<action>.+)\.v(?P<old>[1-9][0-9]{0,4})_to_v(?P<new>[1-9][0-9]{0,4})")


@dataclass(frozen=True, slots=True)
class Step:
    """A step from a version of an action to the next.

    Args:
        action: the action of the events.
        old: the version that the step takes.
        sql: the expression over `metadata`, in one line.
        path: its file.
    """

    action: str
    old: int
    sql: str
    path: Path


@dataclass(frozen=True, slots=True)
class Upcasts:
    """The steps of all actions.

    Args:
        steps: the steps of each action, without a gap.
    """

    steps: Mapping[str, tuple[Step, ...]]

    @property
    def digest(self) -> str:
        """A fingerprint of all steps; empty if there is none."""
        text = "\x1f".join(f"{step.action}\x1e{step.old}\x1e{step.sql}" for step in self._all())
        return hashlib.sha256(text.encode()).hexdigest()[:16] if text else ""

    def _all(self) -> list[Step]:
        return [step for action in sorted(self.steps) for step in self.steps[action]]

    def column(self, of: str = "", only: frozenset[str] | None = None) -> str:
        """Return the SQL of the metadata as the newest version has it, in one line; the column itself without steps.

        Args:
            of: what the columns are qualified by, with a dot behind it.
            only: the actions whose events are read; None: all.
        """
        cases = []
        for action in sorted(self.steps.keys() if only is None else self.steps.keys() & only):
            chain = self.steps[action]
            for at, step in enumerate(chain):
                made = f"{of}{COLUMN}"
                for following in chain[at:]:
                    # NULL would take all fields of the event with it, silently.
                    made = f"coalesce({_over(following.sql, made)}, {NO_UPCAST}({of}action, {following.old}))"
                literal = exp.Literal.string(action).sql(dialect="postgres")
                cases.append(f"WHEN {of}action = {literal} AND {of}version = {step.old} THEN {made}")
        if not cases:
            return f"{of}{COLUMN}"
        return f"(CASE {' '.join(cases)} ELSE {of}{COLUMN} END)"

    def rewritten(self, source: str, path: Path | None = None) -> str:
        """Return the text of a query on the log that reads the newest metadata; lines stay where they are.

        Args:
            source: a query that `analyse` takes.
            path: its file, for messages.

        Raises:
            DefinitionError: the query reads metadata in a way that hides it from here.
        """
        if not self.steps:
            return source
        casts = interval_casts(source)
        text = replaced(source, casts)
        [tree] = statements(source)
        fold_case(tree)
        columns = [column for column in tree.find_all(exp.Column) if column.name == COLUMN]
        _refuse_hidden(tree, columns, path)
        places = []
        for column in columns:
            qualified = column.args.get("table")
            first = column.this if qualified is None else qualified
            start, end = first.meta["start"], column.this.meta["end"] + 1
            of = "" if qualified is None else f"{text[start : qualified.meta['end'] + 1]}."
            made = self.column(of, _actions(column))
            if made == f"{of}{COLUMN}":
                continue
            # The tree has its places from a text with casts; its author's text stays as it is.
            grown = 0
            for begin, behind, cast in casts:
                if begin + grown < start:
                    grown += len(cast) - (behind - begin)
            # A bare column names itself.
            places.append((start - grown, end - grown, f"{made} AS {COLUMN}" if _bare(column) else made))
        return replaced(source, places)


NONE = Upcasts({})


def events_beside(projections: Path) -> Path:
    """Return the folder of contracts and upcasters that belongs to a folder of projections; it may not exist."""
    return projections.resolve().parent / "events"


def load_upcasts(folder: Path, mistakes: list[DefinitionError]) -> Upcasts:
    """Read every `*.sql` of a folder of contracts, and return the steps.

    Args:
        folder: the folder; it may not exist.
        mistakes: receives an error for everything that is wrong; the actions with mistakes are left out.
    """
    found: dict[str, dict[int, Step]] = {}
    for path in project_files(folder, ".sql", wrong=mistakes.append):
        try:
            step = upcast_file(path.stem, read_text(path), path)
        except DefinitionError as error:
            mistakes.append(error)
        else:
            found.setdefault(step.action, {})[step.old] = step
    chains = {}
    for action, steps in found.items():
        versions = sorted(steps)
        missing = [one for one in range(versions[0], versions[-1]) if one not in steps]
        if missing:
            mistakes.append(
                DefinitionError(
                    f"there is no step from v{missing[0]} to v{missing[0] + 1}",
                    path=steps[versions[-1]].path,
                    remedy=f"Write {action}.v{missing[0]}_to_v{missing[0] + 1}.sql.",
                )
            )
            continue
        chains[action] = tuple(steps[version] for version in versions)
        if len(Upcasts({action: chains[action]}).column()) > LONGEST:
            mistakes.append(
                DefinitionError(
                    f"the steps of {action} together have more than {LONGEST:,} characters",
                    path=chains[action][-1].path,
                    remedy="Mention metadata less often in each step: metadata || jsonb_build_object(…).",
                )
            )
            del chains[action]
    return Upcasts(chains)


def upcast_file(stem: str, source: str, path: Path) -> Step:
    """Read the text of a file.

    Args:
        stem: the file's name without its extension: `purchase.v1_to_v2`.
        source: the text of the file.
        path: the file, for messages.

    Raises:
        DefinitionError: the name or the expression is wrong.
    """
    named = _NAME.fullmatch(stem)
    if named is None or int(named["new"]) != int(named["old"]) + 1:
        raise DefinitionError(
            "the name of an upcaster says the action, a version, and the next one",
            path=path,
            remedy="Rename it, such as purchase.v1_to_v2.sql.",
        )
    try:
        sql = _line(plain_intervals(source))
        tree = expression(sql)
    except sqlglot.errors.SqlglotError as error:
        raise DefinitionError("is no expression that refold can read", path=path, remedy=_REMEDY) from error
    fold_case(tree)
    others = [column.sql(dialect="postgres") for column in tree.find_all(exp.Column)
              if column.name != COLUMN or column.args.get("table") is not None]  # fmt: skip
    if isinstance(tree, exp.Query | exp.Command | exp.DDL | exp.DML):
        raise DefinitionError("must be one expression, and no statement", path=path, remedy=_REMEDY)
    if tree.find(exp.Query, exp.AggFunc, exp.Window, exp.Placeholder, exp.Parameter) is not None:
        raise DefinitionError("must be one expression without a query or an aggregate", path=path, remedy=_REMEDY)
    if others:
        raise DefinitionError(f"reads {others[0]}, but a step may read metadata alone", path=path, remedy=_REMEDY)
    # The rules of queries: nothing that gives other results at another time.
    analyse("upcast", f"SELECT event_id, {sql} AS made FROM {LOG}", {LOG: LOG_COLUMNS}, path=path)
    return Step(named["action"], int(named["old"]), sql, path)


_REMEDY = "Write an expression over metadata, such as metadata || jsonb_build_object('currency', 'EUR')."


def _line(text: str) -> str:
    """Return a text in one line, without comments, and otherwise as its author wrote it."""
    parts: list[str] = []
    end = 0
    for token in sqlglot.tokenize(text, read="postgres"):
        parts += [" " if parts and token.start > end else "", text[token.start : token.end + 1]]
        end = token.end + 1
    return "".join(parts)


def _over(sql: str, metadata: str) -> str:
    """Return a step over other metadata than the column's."""
    for column in sorted(expression(sql).find_all(exp.Column), key=lambda one: -one.this.meta["start"]):
        sql = f"{sql[: column.this.meta['start']]}{metadata}{sql[column.this.meta['end'] + 1 :]}"
    return f"({sql})"


def _actions(column: exp.Column) -> frozenset[str] | None:
    """Return the actions of the events for which a column is read, if the condition of its SELECT names them.

    The steps of other actions would change nothing, but that a key may be no expression that can fail.
    """
    select = column.find_ancestor(exp.Select)
    read, where = (None, None) if select is None else (relation_of(select), select.args.get("where"))
    if where is None or not isinstance(read, exp.Table) or read.name != LOG:
        return None
    own = ("", read.alias_or_name)
    if column.table not in own:
        return None
    found: frozenset[str] | None = None
    for one in conjuncts(where.this):
        left = one.this
        if not isinstance(left, exp.Column) or left.name != "action" or left.table not in own:
            continue
        if isinstance(one, exp.EQ):
            values = [one.expression]
        elif isinstance(one, exp.In) and not one.args.get("query"):
            values = one.expressions
        else:
            continue
        if values and all(isinstance(value, exp.Literal) and value.is_string for value in values):
            named = frozenset(str(value.this) for value in values)
            found = named if found is None else found & named
    return found


def _bare(column: exp.Column) -> bool:
    """Return whether a column is a result by itself, and so gives it its name."""
    return isinstance(column.parent, exp.Select) and column.arg_key == "expressions"


def _refuse_hidden(tree: exp.Expr, columns: Sequence[exp.Column], path: Path | None) -> None:
    """Refuse what would read the metadata as it is stored, or read it twice."""
    # A result may have the name of the table: count(*) AS events.
    results = {one.alias for one in tree.find_all(exp.Alias)}
    tables = {table.alias_or_name for table in tree.find_all(exp.Table)} - results
    whole = [column for column in tree.find_all(exp.Column) if column.name in tables]
    stars = [star for star in tree.find_all(exp.Star) if not isinstance(star.parent, exp.Count)]
    if whole or stars:
        raise DefinitionError(
            "reads whole rows, of which refold cannot bring the metadata to its newest version",
            path=path,
            remedy="Name the columns.",
        )
    named = [one for one in tree.find_all(exp.Alias, exp.TableAlias) if _names(one)]
    inner = [column for column in columns if _bare(column) and column.parent is not tree]
    # What is called metadata outside of them would get the steps a second time.
    if columns and (inner or any(not (isinstance(one, exp.Alias) and one.parent is tree) for one in named)):
        raise DefinitionError(
            "gives the name metadata to something else, beside upcasters of the log's metadata",
            path=path,
            remedy="Give it another name.",
        )


def _names(one: exp.Expr) -> bool:
    aliases = [one.args.get("alias"), one.args.get("this"), *(one.args.get("columns") or [])]
    return any(isinstance(alias, exp.Identifier) and alias.name == COLUMN for alias in aliases)
