"""Progress bars on stderr, for the commands that take their time."""

from __future__ import annotations

from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, Task, TextColumn, TimeElapsedColumn
from rich.text import Text

from refold.cli.output import err
from refold.visible import visible


class PlainColumn(TextColumn):
    """Text beside a bar, from which nothing is taken for markup."""

    def render(self, task: Task) -> Text:
        return Text(visible(self.text_format.format(task=task)), style=self.style)


def progress() -> Progress:
    """Progress bars on stderr; they draw nothing where stderr is no terminal."""
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
