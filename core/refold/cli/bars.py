"""Progress bars on stderr, for commands that take long."""

from __future__ import annotations

from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, Task, TextColumn, TimeElapsedColumn
from rich.text import Text

from refold.cli.output import err
from refold.visible import visible


class PlainColumn(TextColumn):
    """A column of text beside a bar, printed without markup."""

    def render(self, task: Task) -> Text:
        return Text(visible(self.text_format.format(task=task)), style=self.style)


def progress() -> Progress:
    """Return progress bars on stderr; they draw nothing where stderr is not a terminal."""
    return Progress(
        SpinnerColumn(),
        PlainColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        PlainColumn("{task.fields[note]}"),
        TimeElapsedColumn(),
        console=err,
        transient=True,
        disable=not err.is_terminal,
    )
