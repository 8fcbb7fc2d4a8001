"""The Python files of a project as modules: transforms, and the helpers beside them.

Every load runs the files again, from the text that is fingerprinted. A worker that runs for weeks therefore sees a
changed helper, and threads share no modules. `import helper` and `from .helper import x` find a file in the folder of
the importing file, or in a folder above it, up to the folder of projections. A name with a leading underscore always
means such a file; any other name means an installed package, if there is one.
"""

from __future__ import annotations

import ast
import builtins
import importlib.util
import itertools
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from refold.errors import DefinitionError
from refold.model.projection.files import read_text

_numbers = itertools.count(1)
_thread = threading.local()


class Modules:
    """The modules below one folder; each is run once.

    Args:
        root: the folder of projections.
    """

    def __init__(self, root: Path) -> None:
        self._given = root
        self._root = root.absolute()
        self._texts: dict[Path, str] = {}
        self._modules: dict[Path, ModuleType] = {}
        self._builtins = {**vars(builtins), "__import__": self._import}
        # Pydantic and dataclasses look names up in sys.modules. A thread's next load replaces its last one there:
        # otherwise a worker would keep the modules of every load.
        if not hasattr(_thread, "number"):
            _thread.number = next(_numbers)
        self._package = f"refold_projections_{_thread.number}"

    def helpers(self, path: Path) -> list[tuple[str, str]]:
        """Return the project's files that a file imports, directly or through others, anywhere in their code.

        Returns:
            The path of each file below the root, and its text, sorted by path.

        Raises:
            DefinitionError: one of the files is not valid Python, or cannot be read.
        """
        path = path.absolute()
        found: set[Path] = set()
        left = [path]
        while left:
            for one in self._imported(left.pop()):
                if one not in found:
                    found.add(one)
                    left.append(one)
        helpers = {one.relative_to(self._root).as_posix(): one for one in found - {path}}
        return [(name, self._text(helpers[name])) for name in sorted(helpers)]

    def run(self, path: Path) -> ModuleType:
        """Run a file, and return its module; helpers are run when they are imported.

        Raises:
            DefinitionError: the file or one of its helpers fails; the error has the failing file and line.
        """
        self.helpers(path)
        try:
            return self._module(path.absolute())
        except Exception as error:
            where, line = self._place(error) or (path.absolute(), None)
            raise DefinitionError(
                f"the file fails when it is loaded: {type(error).__name__}: {error}",
                path=self._shown(where),
                line=line,
                remedy="Put the module beside the file or in a folder above it, or install the package."
                if isinstance(error, ImportError)
                else None,
            ) from error

    # Which files

    def _shown(self, path: Path) -> Path:
        """Return a path below the folder, in the form in which the folder was given."""
        return self._given / path.relative_to(self._root)

    def _text(self, path: Path) -> str:
        if path not in self._texts:
            self._texts[path] = read_text(self._shown(path))
        return self._texts[path]

    def _imported(self, path: Path) -> Iterator[Path]:
        """Yield the project's files that the import statements of a file name."""
        try:
            tree = ast.parse(self._text(path))
        except SyntaxError as error:
            raise DefinitionError(
                f"not valid Python: {error.msg}", path=self._shown(path), line=error.lineno
            ) from error
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    yield from self._files(path.parent, alias.name, (), 0)
            elif isinstance(node, ast.ImportFrom):
                yield from self._files(path.parent, node.module or "", [one.name for one in node.names], node.level)

    def _files(self, beside: Path, name: str, wanted: Sequence[str], level: int) -> Iterator[Path]:
        """Yield the project's files that an import statement runs.

        Args:
            beside: the folder of the importing file.
            name: the dotted name of the module; empty in `from . import x`.
            wanted: the names after `import` in a `from` statement.
            level: the number of leading dots.
        """
        at = self._base(beside, name, level)
        if at is None:
            return
        if level:
            yield from _file(at)
        for part in name.split(".") if name else ():
            yield from _file(at, part)
            at = at / part
        for part in wanted:
            yield from _file(at, part)

    def _base(self, beside: Path, name: str, level: int) -> Path | None:
        """Return the folder that holds the first part of a module's name; None if it is not the project's."""
        above = [at for at in (beside, *beside.parents) if at.is_relative_to(self._root)]
        if level:
            return above[level - 1] if level <= len(above) else None
        first = name.partition(".")[0]
        at = next((at for at in above if _found(at, first) is not None), None)
        return None if at is None or self._installed(first) else at

    def _installed(self, name: str) -> bool:
        """Return whether a name belongs to the standard library or an installed package; no file can replace it."""
        if name in sys.stdlib_module_names:
            return True
        if name.startswith("_"):
            return False
        try:
            spec = importlib.util.find_spec(name)
        except (ImportError, ValueError):
            return False
        return spec is not None and spec.origin is not None and not Path(spec.origin).is_relative_to(self._root)

    # Running them

    def _import(
        self,
        name: str,
        globals: Mapping[str, Any] | None = None,
        locals: Mapping[str, Any] | None = None,
        fromlist: Sequence[str] | None = (),
        level: int = 0,
    ) -> ModuleType:
        """Import a module for a file of the project: `__import__` of its modules.

        A module that is not the project's is imported as usual.
        """
        file = (globals or {}).get("__file__")
        beside = self._root if file is None else Path(file).parent
        at = self._base(beside, name, level)
        if at is None:
            if level:
                raise ImportError(f"the project has no folder {level - 1} levels above {beside.name}")
            return builtins.__import__(name, globals, locals, fromlist or (), level)
        chain = [self._module(_found(at, "") or at)] if level else []
        for part in name.split(".") if name else ():
            chain.append(self._part(chain[-1] if chain else None, at, part))
            at = at / part
        for part in fromlist or ():
            if not hasattr(chain[-1], part) and _found(at, part) is not None:
                self._part(chain[-1], at, part)
        return chain[-1] if fromlist else chain[0]

    def _part(self, package: ModuleType | None, folder: Path, name: str) -> ModuleType:
        """Return a module of a package, and set it as an attribute of the package."""
        found = _found(folder, name)
        if found is None:
            raise ModuleNotFoundError(f"No module named {name!r} in {folder}", name=name)
        module = self._module(found)
        if package is not None:
            setattr(package, name, module)
        return module

    def _module(self, path: Path) -> ModuleType:
        """Return the module of a file, which is run at its first import; for a folder, an empty package."""
        if path in self._modules:
            return self._modules[path]
        folder = path if path.is_dir() else path.parent if path.name == "__init__.py" else None
        at = folder or path.with_suffix("")
        module = ModuleType(".".join((self._package, *at.relative_to(self._root).parts)))
        module.__dict__["__builtins__"] = self._builtins
        module.__package__ = module.__name__ if folder else module.__name__.rpartition(".")[0]
        if folder:
            module.__path__ = [str(folder)]
        self._modules[path] = sys.modules[module.__name__] = module
        if path != folder:
            if path not in self._texts:
                del self._modules[path]
                raise ImportError(f"{path.name} is not part of the fingerprint: name it in an import statement")
            module.__file__ = str(path)
            try:
                exec(compile(self._texts[path], str(path), "exec", dont_inherit=True), module.__dict__)
            except BaseException:
                del self._modules[path]
                raise
        return module

    def _place(self, error: Exception) -> tuple[Path, int] | None:
        """Return the project's file and line that are innermost in an error's traceback; None if there are none."""
        place = None
        trace = error.__traceback__
        while trace is not None:
            path = Path(trace.tb_frame.f_code.co_filename)
            if path in self._texts:
                place = (path, trace.tb_lineno)
            trace = trace.tb_next
        return place


def _file(folder: Path, name: str = "") -> Iterator[Path]:
    """Yield the file to run for a module, or for the folder as a package; nothing for a folder of files."""
    found = _found(folder, name)
    if found is not None and found.is_file():
        yield found


def _found(folder: Path, name: str) -> Path | None:
    """Return the path of a module: a package's `__init__.py`, a file, or a folder of Python files.

    Args:
        folder: the folder to search.
        name: the module; empty for the folder itself.

    Returns:
        The path; None if the folder has no such module.
    """
    inner = folder / name
    if (inner / "__init__.py").is_file():
        return inner / "__init__.py"
    if name and (folder / f"{name}.py").is_file():
        return folder / f"{name}.py"
    return inner if inner.is_dir() and any(inner.glob("*.py")) else None
