"""Load projections: one file with its plan, or a folder of files as a graph."""

from __future__ import annotations

import ast
import hashlib
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
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
from refold.model.projection.upcast import COLUMN, NONE, Upcasts, events_beside, load_upcasts
from refold.suggest import did_you_mean

EXTENSIONS = (".sql", ".py")
"""Extensions of files that define a projection."""
_NAME = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
_GENERATION = 3
"""Part of every fingerprint. Raise it when generated tables change their shape, or hashes of their rows."""


@dataclass(frozen=True, slots=True)
class Definition:
    """A projection as its file defines it.

    Args:
        name: the projection, from the file's name.
        path: the file; None when the definition comes from the database.
        source: the text of the file.
        plan: how the projection is kept.
        fingerprint: hash of the normalised query (or the transform's code) and of everything upstream.
        transform: the loaded function of a Python projection; None for SQL.
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
        """Return the projection that this one reads; None for the log."""
        return None if self.plan.stream == LOG else self.plan.stream


def load_directory(folder: Path) -> dict[str, Definition]:
    """Load every `*.sql` and `*.py` below a folder, and return the definitions by name, upstream first.

    Raises:
        DefinitionError: the folder does not exist, a file is wrong, two files have the same name, or projections read
            each other in a circle (`Mistakes` if there are several errors).
    """
    loading = load(folder)
    if loading.mistakes:
        raise at_once(loading.mistakes)
    return loading.definitions


@dataclass(frozen=True, slots=True)
class Loading:
    """The result of loading a folder.

    Args:
        definitions: the projections without mistakes in their files, by name, upstream first.
        mistakes: the errors of the other projections, without errors that only follow from another one.
        names: the names of all projections.
        reads: the stream that each projection reads, by name; without files that cannot be read.
    """

    definitions: dict[str, Definition]
    mistakes: list[DefinitionError]
    names: frozenset[str]
    reads: Mapping[str, str]

    @property
    def unknown(self) -> frozenset[str]:
        """Return the projections that are wrong, or that read a wrong one."""
        return self.names - self.definitions.keys()

    def mistakes_of(self, name: str) -> list[DefinitionError]:
        """Return the errors in a projection's file and in the files of the streams that it reads, directly or not."""
        own = {name}
        while (name := self.reads.get(name, LOG)) not in own:
            own.add(name)
        return [one for one in self.mistakes if one.path is not None and one.path.stem in own]

    def only(self, name: str) -> Definition | None:
        """Return one definition, whatever is wrong with files that it does not read; None if there is no such file.

        Raises:
            DefinitionError: the file, or one that it reads, is wrong (`Mistakes` if there are several errors).
        """
        wrong = self.mistakes_of(name)
        if wrong:
            raise at_once(wrong)
        return self.definitions.get(name)

    def wrong_files(self) -> frozenset[Path]:
        """Return the files that have mistakes."""
        return frozenset(one.path for one in self.mistakes if one.path is not None)


def load(folder: Path, *, events: Path | None = None) -> Loading:
    """Load every `*.sql` and `*.py` below a folder, and return definitions and mistakes.

    Args:
        folder: the folder of projections.
        events: the folder of upcasters; by default the one beside.

    Raises:
        DefinitionError: the folder does not exist.
    """
    if not folder.is_dir():
        raise DefinitionError(
            "there is no such folder of projections",
            path=folder,
            remedy="Make a project with `refold init DIR`, or name its folder of projections with --projections.",
        )
    mistakes: list[DefinitionError] = []
    upcasts = load_upcasts(events_beside(folder) if events is None else events, mistakes)
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
            # The upstream projection is wrong: an error here may only follow from that one.
            continue
        try:
            refuse_metrics(paths[name], {other for other in loaded if other not in streams})
            loaded[name] = _load(paths[name], streams, loaded, modules, upcasts)
        except DefinitionError as error:
            mistakes.append(error)
            continue
        if loaded[name].plan.event_grain:
            streams[name] = loaded[name].plan.stream_columns
    return Loading(loaded, mistakes, names, reads)


def from_source(
    name: str,
    source: str,
    streams: Mapping[str, tuple[str, ...]],
    fingerprints: Mapping[str, str],
    path: Path | None = None,
    upcasts: Upcasts = NONE,
) -> Definition:
    """Return the definition of an SQL projection from its text.

    Args:
        name: the projection.
        source: its SQL.
        streams: the streams that it may read, by name, with the columns of each.
        fingerprints: those of the projections that it may read, by name; a change upstream is a change here.
        path: the file, for messages; None when the text does not come from a file.
        upcasts: the upcasters of the log's metadata; a text from the database has them already.

    Raises:
        DefinitionError: the query cannot be kept exactly.
    """
    plan, normal = _analysed(name, source, tuple(streams.items()), path)
    if plan.stream == LOG and upcasts.steps:
        source = upcasts.rewritten(source, path)
        plan, normal = _analysed(name, source, tuple(streams.items()), path)
    keys = ",".join(part.name for part in plan.key)
    return Definition(
        name,
        path,
        source,
        plan,
        _fingerprint("sql", normal, keys, plan.upkeep, fingerprints.get(plan.stream, "")),
    )


# A worker plans the same builds again and again; the same text has the same plan.
@lru_cache(maxsize=256)
def _analysed(
    name: str, source: str, streams: tuple[tuple[str, tuple[str, ...]], ...], path: Path | None
) -> tuple[Plan, str]:
    """Return the plan of a query, and its normalised text, without comments and layout, for the fingerprint."""
    plan = analyse(name, source, dict(streams), path=path)
    [statement] = statements(source)
    return plan, statement.sql(dialect="postgres", comments=False)


def _load(
    path: Path,
    streams: Mapping[str, tuple[str, ...]],
    loaded: Mapping[str, Definition],
    modules: Modules,
    upcasts: Upcasts,
) -> Definition:
    source = read_text(path)
    fingerprints = {name: definition.fingerprint for name, definition in loaded.items()}
    if path.suffix.lower() == ".sql":
        return from_source(path.stem, source, streams, fingerprints, path, upcasts)
    transform = transforms.load(path, streams, modules)
    above = [fingerprints.get(transform.plan.stream, "")]
    if transform.plan.stream == LOG and upcasts.steps and COLUMN in transform.plan.reads:
        transform = replace(transform, upcast=upcasts.column())
        above.append(upcasts.digest)
    fingerprint = _fingerprint("python", transform.code, *above)
    return Definition(path.stem, path, source, transform.plan, fingerprint, transform)


def _fingerprint(*parts: str) -> str:
    return hashlib.sha256("\x1f".join((str(_GENERATION), *parts)).encode()).hexdigest()[:16]


def check_name(path: Path) -> None:
    """Refuse a file whose name cannot be the name of a projection.

    Raises:
        DefinitionError: the name has other characters, is too long, or belongs to refold.
    """
    if _NAME.fullmatch(path.stem) is None or len(path.stem) > 32:
        raise DefinitionError(
            f"{path.stem} cannot be the name of a projection",
            path=path,
            remedy="Use lower-case words with single underscores, at most 32 characters" + _better(path),
        )
    if path.stem in (LOG, "freshness"):
        raise DefinitionError(
            f"the name {path.stem} is taken by refold itself", path=path, remedy="Give the file another name."
        )


def _better(path: Path) -> str:
    """Return a suggestion for a file's name, to end a sentence with; only a full stop if there is none."""
    name = path.stem.lower().replace("-", "_").replace(" ", "_")
    return f": {name}{path.suffix.lower()}." if _NAME.fullmatch(name) and len(name) <= 32 else "."


def _reads(path: Path, known: Collection[str]) -> str:
    """Return the stream that a file reads, without other checks; of several names, a known one."""
    text = read_text(path)
    return _transform_reads(text, path) if path.suffix.lower() == ".py" else stream_in(text, known)


def stream_in(text: str, known: Collection[str]) -> str:
    """Return the stream that a query reads; of several names, a known one. The log if the query names none.

    Args:
        text: the query; it may be invalid.
        known: the names of all streams.
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
            raise DefinitionError(
                f"projections read each other in a circle: {circle}",
                path=paths[name],
                remedy="Let one of them read events instead.",
            )
        above = reads[name]
        if above in paths:
            visit(above, (*chain, name))
        elif above != LOG and above not in names:
            hint = did_you_mean(above, (*paths, LOG))
            raise DefinitionError(
                f"there is no stream named {above}.{hint}",
                path=paths[name],
                remedy="Read events, or an event-grain projection of this folder.",
            )
        state[name] = "done"
        order.append(name)

    for name in paths:
        try:
            visit(name, ())
        except DefinitionError as error:
            if str(error) not in map(str, mistakes):
                mistakes.append(error)
    return order
