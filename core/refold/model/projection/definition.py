"""A projection's file, loaded and planned; and a folder of them as a graph."""

from __future__ import annotations

import ast
import hashlib
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import sqlglot

from refold.errors import DefinitionError, at_once
from refold.model.projection import transform as transforms
from refold.model.projection.files import project_files, read_text
from refold.model.projection.hints import refuse_metrics
from refold.model.projection.modules import Modules
from refold.model.projection.plan import LOG, LOG_COLUMNS, Plan
from refold.model.projection.query import analyse
from refold.model.projection.sqlglot_compat import fold_case, statements
from refold.model.projection.transform import Transform
from refold.suggest import did_you_mean

EXTENSIONS = (".sql", ".py")
"""Those of files that define a projection."""
_NAME = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
_GENERATION = 2
"""Part of every fingerprint: raised when generated tables change their shape."""


@dataclass(frozen=True, slots=True)
class Definition:
    """A projection as its file defines it.

    Args:
        name: the projection, from the file's name.
        path: the file; None when the definition comes out of the database.
        source: its text.
        plan: how it is kept.
        fingerprint: of the normalised query (or the transform's code) and of everything upstream.
        transform: the loaded function, for Python.
    """

    name: str
    path: Path | None
    source: str
    plan: Plan
    fingerprint: str
    transform: Transform | None = None

    @property
    def language(self) -> str:
        return "sql" if self.transform is None else "python"

    @property
    def upstream(self) -> str | None:
        """The projection it reads, None for the log."""
        return None if self.plan.stream == LOG else self.plan.stream


def load_directory(folder: Path) -> dict[str, Definition]:
    """Loads every `*.sql` and `*.py` of a folder and of the folders in it, upstream first.

    Raises:
        DefinitionError: a file is wrong, a name is taken twice, or projections read each other in a circle
            (`Mistakes` where there are several).
    """
    loading = load(folder)
    if loading.mistakes:
        raise at_once(loading.mistakes)
    return loading.definitions


@dataclass(frozen=True, slots=True)
class Loading:
    """What a folder holds.

    Args:
        definitions: the projections that can be kept, as far as the files tell, upstream first.
        mistakes: what is wrong with the others; not what only follows from that.
        names: all of them.
    """

    definitions: dict[str, Definition]
    mistakes: list[DefinitionError]
    names: frozenset[str]

    @property
    def unknown(self) -> frozenset[str]:
        """Those that are wrong, or read one that is."""
        return self.names - self.definitions.keys()


def load(folder: Path) -> Loading:
    """Loads every `*.sql` and `*.py` of a folder, and says all that is wrong with them.

    Raises:
        DefinitionError: there is no such folder.
    """
    if not folder.is_dir():
        raise DefinitionError(
            "there is no such folder of projections",
            path=folder,
            remedy="Run `refold init DIR`, or give --projections.",
        )
    mistakes: list[DefinitionError] = []
    paths: dict[str, Path] = {}
    for path in project_files(folder, *EXTENSIONS, wrong=mistakes.append):
        try:
            check_name(path)
        except DefinitionError as error:
            mistakes.append(error)
            continue
        paths[path.stem] = path
    names = frozenset(paths)
    reads: dict[str, str] = {}
    for name, path in list(paths.items()):
        try:
            reads[name] = _reads(path, {*names, LOG})
        except DefinitionError as error:
            mistakes.append(error)
            del paths[name]
    loaded: dict[str, Definition] = {}
    streams: dict[str, tuple[str, ...]] = {LOG: LOG_COLUMNS}
    modules = Modules(folder)
    for name in _upstream_first(reads, paths, names, mistakes):
        above = reads[name]
        if above in names and above not in loaded:
            # That one is wrong; what would be said of this one may only follow from it.
            continue
        try:
            refuse_metrics(paths[name], {other for other in loaded if other not in streams})
            loaded[name] = _load(paths[name], streams, loaded, modules)
        except DefinitionError as error:
            mistakes.append(error)
            continue
        if loaded[name].plan.event_grain:
            streams[name] = loaded[name].plan.stream_columns
    return Loading(loaded, mistakes, names)


def from_source(
    name: str,
    source: str,
    streams: Mapping[str, tuple[str, ...]],
    fingerprints: Mapping[str, str],
    path: Path | None = None,
) -> Definition:
    """An SQL projection from its text.

    Args:
        name: the projection.
        source: its SQL.
        streams: what it may read, with the columns of each.
        fingerprints: of the projections it may read; a change up there is a change here.
        path: where it stands, for messages.
    """
    plan, normal = _analysed(name, source, tuple(streams.items()), path)
    keys = ",".join(part.name for part in plan.key)
    return Definition(
        name,
        path,
        source,
        plan,
        _fingerprint("sql", normal, keys, plan.upkeep, fingerprints.get(plan.stream, "")),
    )


# Whoever meets a build again (a duty, a command of a long session) needs its plan again: the same for the same text.
@lru_cache(maxsize=256)
def _analysed(
    name: str, source: str, streams: tuple[tuple[str, tuple[str, ...]], ...], path: Path | None
) -> tuple[Plan, str]:
    """The plan of a text, and the text without what makes no difference."""
    plan = analyse(name, source, dict(streams), path=path)
    [statement] = statements(source)
    return plan, statement.sql(dialect="postgres", comments=False)


def _load(
    path: Path, streams: Mapping[str, tuple[str, ...]], loaded: Mapping[str, Definition], modules: Modules
) -> Definition:
    source = read_text(path)
    fingerprints = {name: definition.fingerprint for name, definition in loaded.items()}
    if path.suffix.lower() == ".sql":
        return from_source(path.stem, source, streams, fingerprints, path)
    transform = transforms.load(path, streams, modules)
    above = fingerprints.get(transform.plan.stream, "")
    return Definition(path.stem, path, source, transform.plan, _fingerprint("python", transform.code, above), transform)


def _fingerprint(*parts: str) -> str:
    return hashlib.sha256("\x1f".join((str(_GENERATION), *parts)).encode()).hexdigest()[:16]


def check_name(path: Path) -> None:
    """Refuses a file whose name cannot be that of a projection.

    Raises:
        DefinitionError: it cannot.
    """
    if _NAME.fullmatch(path.stem) is None or len(path.stem) > 32:
        raise DefinitionError(
            f"{path.stem} cannot be the name of a projection",
            path=path,
            remedy="Use lower-case words with single underscores, at most 32 characters" + _better(path),
        )
    if path.stem in (LOG, "freshness"):
        raise DefinitionError(f"the name {path.stem} is taken by refold itself", path=path)


def _better(path: Path) -> str:
    """How a file might be called instead."""
    name = path.stem.lower().replace("-", "_").replace(" ", "_")
    return f": {name}{path.suffix.lower()}." if _NAME.fullmatch(name) and len(name) <= 32 else "."


def _reads(path: Path, known: Collection[str]) -> str:
    """The stream that a file reads, found without checking anything else; of several names one that is known."""
    text = read_text(path)
    return _transform_reads(text, path) if path.suffix.lower() == ".py" else stream_in(text, known)


def stream_in(text: str, known: Collection[str]) -> str:
    """The stream that a query reads; of several names one that is known.

    Args:
        text: the query, right or wrong.
        known: names of streams.
    """
    try:
        tree = next(iter(statements(text)), None)
    except sqlglot.errors.SqlglotError:
        return LOG
    if not isinstance(tree, sqlglot.exp.Query):
        return LOG
    fold_case(tree)
    inner = {cte.alias for cte in tree.find_all(sqlglot.exp.CTE)}
    names = [table.name for table in tree.find_all(sqlglot.exp.Table) if table.name not in inner]
    return next((name for name in names if name in known), names[0] if names else LOG)


def _transform_reads(text: str, path: Path) -> str:
    try:
        tree = ast.parse(text)
    except SyntaxError as error:
        raise DefinitionError(f"not valid Python: {error.msg}", path=path, line=error.lineno) from error
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name == path.stem:
            for decorator in node.decorator_list:
                if isinstance(decorator, ast.Call):
                    for keyword in decorator.keywords:
                        if keyword.arg == "reads" and isinstance(keyword.value, ast.Constant):
                            return str(keyword.value.value)
    return LOG


def _upstream_first(
    reads: Mapping[str, str], paths: Mapping[str, Path], names: Collection[str], mistakes: list[DefinitionError]
) -> list[str]:
    order: list[str] = []
    state: dict[str, str] = {}

    def visit(name: str, chain: tuple[str, ...]) -> None:
        if state.get(name) == "done":
            return
        if name in chain:
            circle = " → ".join((*chain[chain.index(name) :], name))
            raise DefinitionError(f"projections read each other in a circle: {circle}", path=paths[name])
        above = reads[name]
        if above in paths:
            visit(above, (*chain, name))
        elif above != LOG and above not in names:
            hint = did_you_mean(above, (*paths, LOG))
            raise DefinitionError(f"there is no stream named {above}.{hint}", path=paths[name])
        state[name] = "done"
        order.append(name)

    for name in paths:
        try:
            visit(name, ())
        except DefinitionError as error:
            if str(error) not in map(str, mistakes):
                mistakes.append(error)
    return order
