"""The cost of reading an analysts' view, and the metric that would reduce it: for deploy and explain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from refold.cli.output import block, line, note
from refold.errors import DefinitionError

if TYPE_CHECKING:
    from refold.engine.publish.scans import Scan
    from refold.model.projection.definition import Definition
    from refold.model.projection.keepable import Keepable

_INSTEAD = "make its GROUP BY query a metric in projections/, and let the view read that metric"


@dataclass(frozen=True, slots=True)
class ViewCost:
    """A view's file, and the cost of reading the view.

    Args:
        file: path of the file.
        reads: streams that the view's text names.
        kept: metric that would keep the view, or a part of it.
        scans: streams that the view in the database scans completely; None: not checked.
    """

    file: Path
    reads: tuple[str, ...]
    kept: Keepable | None
    scans: Sequence[Scan] | None

    def as_dict(self) -> dict[str, object]:
        """Return the cost as a dict for JSON."""
        return {
            "view": self.file.stem,
            "source": self.file,
            "reads_streams": list(self.reads),
            "scans": None if self.scans is None else [scan_as_dict(one) for one in self.scans],
            "metric": None if self.kept is None else asdict(self.kept),
        }

    def show(self) -> None:
        """Print the cost as text."""
        line(f"view        {self.file.stem}")
        line(f"from        {self.file}")
        line(f"names       {', '.join(self.reads) or 'no stream of this folder, only metrics or other views'}")
        for told in self._costs():
            line(f"each read   {told}")
        if self.scans == [] or not (self.reads or self.scans):
            return
        if self.kept is None:
            line(f"instead     {_INSTEAD}")
            return
        line()
        name = self.file.stem
        told = "a part of this view: save it in projections/ under a new name, and let the view read that metric"
        if self.kept.whole:
            told = f"the whole view: save it as projections/{name}.sql, and remove the view"
        line(f"-- refold can keep ({self.kept.upkeep}) {told}", "bold cyan")
        block(self.kept.sql)

    def _costs(self) -> list[str]:
        if self.scans:
            return [f"reads {scan.told()}" for scan in self.scans]
        if not self.reads:
            return []
        if self.scans is None:
            return ["reads one row for each event; --deployed shows how many"]
        return ["reads only the rows that an index finds"]


def cost_of(file: Path, definitions: Mapping[str, Definition], found: Sequence[Scan] | None) -> ViewCost:
    """Return the cost of reading a view.

    Args:
        file: the view's file.
        definitions: the projections of the same project.
        found: streams that the view scans in the database; None: not checked.

    Raises:
        DefinitionError: the file is not UTF-8, or makes no view of its name.
    """
    from refold.model.projection.keepable import keepable, streams_read
    from refold.model.projection.plan import LOG, LOG_COLUMNS
    from refold.model.projection.view_file import view_file as read

    try:
        source = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DefinitionError("not UTF-8", path=file) from error
    read(file.stem, source, file)
    kept = {name: one.plan.stream_columns for name, one in definitions.items() if one.plan.event_grain}
    streams = {LOG: LOG_COLUMNS, **kept}
    return ViewCost(file, streams_read(source, streams), keepable(source, streams), found)


def view_file(projections: Path, name: str) -> Path | None:
    """Return a view's file in the folders beside the projections; None if it has none."""
    from refold.model.projection.files import files_named
    from refold.model.projection.view_file import views_beside

    return next(iter(files_named(views_beside(projections), name, ".sql")), None)


def tell_costs(found: Sequence[Scan], projections: Path, definitions: Mapping[str, Definition]) -> None:
    """Print which views scan a stream at each read, and how to avoid it."""
    for scan in found:
        file = view_file(projections, scan.view)
        own = not scan.through and file is not None and _keeps(file, definitions)
        remedy = f"a metric that `refold explain {scan.view}` shows" if own else _INSTEAD
        note(f"each read of the view {scan.view} reads {scan.told()}. Cheaper: {remedy}")


def _keeps(file: Path, definitions: Mapping[str, Definition]) -> bool:
    try:
        return cost_of(file, definitions, None).kept is not None
    except DefinitionError:
        # It has changed since its view was made.
        return False


def scan_as_dict(scan: Scan) -> dict[str, object]:
    """Return a scan as a dict for JSON."""
    return {**asdict(scan), "seconds": round(scan.seconds, 3)}
