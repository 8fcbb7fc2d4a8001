"""What each read of an analysts' view costs, and the metric that would make it cheap: for deploy and explain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from refold.cli.output import block, line, note
from refold.engine.publish.scans import Scan
from refold.errors import DefinitionError
from refold.model.projection.definition import Definition
from refold.model.projection.keepable import Keepable, keepable, streams_read
from refold.model.projection.plan import LOG, LOG_COLUMNS
from refold.model.projection.view_file import views_beside

_INSTEAD = "keep what it groups by as a metric in projections/, and let the view read that"


@dataclass(frozen=True, slots=True)
class ViewCost:
    """A view's file, and what a read of it comes to.

    Args:
        file: where it stands.
        reads: the streams that its text names.
        kept: the metric that would keep it, or a part of it.
        scans: what the view in the database reads of streams from one end to the other; None: nobody has looked.
    """

    file: Path
    reads: tuple[str, ...]
    kept: Keepable | None
    scans: Sequence[Scan] | None

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        return {
            "view": self.file.stem,
            "source": self.file,
            "reads_streams": list(self.reads),
            "scans": None if self.scans is None else [scan_as_dict(one) for one in self.scans],
            "metric": None if self.kept is None else asdict(self.kept),
        }

    def show(self) -> None:
        """Prints it."""
        line(f"view        {self.file.stem}")
        line(f"from        {self.file}")
        line(f"names       {', '.join(self.reads) or 'no stream, only metrics that are kept, or other views'}")
        for told in self._costs():
            line(f"each read   {told}")
        if self.scans == [] or not (self.reads or self.scans):
            return
        if self.kept is None:
            line(f"instead     {_INSTEAD}")
            return
        line()
        name = self.file.stem
        told = "what this view starts from: put it into projections/ under a name of its own, and read that"
        if self.kept.whole:
            told = f"all of it: put it into projections/{name}.sql, and remove the view"
        line(f"-- refold would keep ({self.kept.upkeep}) {told}", "bold cyan")
        block(self.kept.sql)

    def _costs(self) -> list[str]:
        if self.scans:
            return [f"reads {scan.told()}" for scan in self.scans]
        if not self.reads:
            return []
        if self.scans is None:
            return ["reads a row for each event; --deployed says how many that are"]
        return ["reads what an index finds"]


def cost_of(file: Path, definitions: Mapping[str, Definition], found: Sequence[Scan] | None) -> ViewCost:
    """What a read of a view costs.

    Args:
        file: the view's.
        definitions: the projections beside it.
        found: what it reads in the database, if somebody has looked.

    Raises:
        DefinitionError: the file is not UTF-8.
    """
    try:
        source = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DefinitionError("not UTF-8", path=file) from error
    kept = {name: one.plan.stream_columns for name, one in definitions.items() if one.plan.event_grain}
    streams = {LOG: LOG_COLUMNS, **kept}
    return ViewCost(file, streams_read(source, streams), keepable(source, streams), found)


def view_file(projections: Path, name: str) -> Path:
    """Where the file of a view stands, beside the projections."""
    return views_beside(projections) / f"{name}.sql"


def tell_costs(found: Sequence[Scan], projections: Path, definitions: Mapping[str, Definition]) -> None:
    """Notes which views read a stream at each read, and what would keep them from it."""
    for scan in found:
        file = view_file(projections, scan.view)
        own = not scan.through and file.is_file()
        remedy = f"a metric that `refold explain {scan.view}` shows" if own and _keeps(file, definitions) else _INSTEAD
        note(f"each read of the view {scan.view} reads {scan.told()}. Instead: {remedy}")


def _keeps(file: Path, definitions: Mapping[str, Definition]) -> bool:
    try:
        return cost_of(file, definitions, None).kept is not None
    except DefinitionError:
        # It has changed since its view was made.
        return False


def scan_as_dict(scan: Scan) -> dict[str, object]:
    """For JSON."""
    return {**asdict(scan), "seconds": round(scan.seconds, 3)}
