"""`refold server`: the embedded PostgreSQL."""

from __future__ import annotations

from refold.cli.app import DATABASE, app
from refold.cli.command_group import CommandGroup
from refold.cli.output import as_json, line
from refold.cli.session import AsJson
from refold.embedded import EmbeddedServer, default_directory
from refold.embedded.account import account_for
from refold.embedded.binaries import Binaries
from refold.embedded.postmaster import Postmaster

server = CommandGroup(
    no_args_is_help=True,
    help="Manage the embedded PostgreSQL, which refold uses without a --database-url.",
)
app.add_typer(server, name="server", rich_help_panel=DATABASE)


def _found() -> EmbeddedServer:
    """Return the server of the default directory without starting or creating it."""
    directory = default_directory().expanduser().resolve()
    return EmbeddedServer(directory, Binaries.find(None), account_for(directory / "data"))


@server.command()
def status(json: AsJson = False) -> None:
    """Show where the embedded server lives and whether it runs.

    \b
    Example:
      refold server status
    """
    directory = default_directory().expanduser().resolve()
    postmaster = Postmaster.find(directory / "data")
    running = postmaster is not None and postmaster.ready
    pid = postmaster.pid if postmaster is not None and running else None
    if json:
        as_json({"directory": directory, "running": running, "pid": pid})
    elif pid is not None:
        line(f"running  pid {pid}  {directory}")
    elif (directory / "data").exists():
        line(f"stopped  {directory}")
    else:
        line(f"not created yet: the first command that needs the server creates it in {directory}")


@server.command()
def start() -> None:
    """Start the embedded server. Other commands start it automatically.

    \b
    Example:
      refold server start
    """
    running = EmbeddedServer.start()
    line(f"running  pid {running.pid}  {running.directory}")


@server.command()
def stop() -> None:
    """Stop the embedded server. Its data is kept.

    \b
    Example:
      refold server stop
    """
    directory = default_directory().expanduser().resolve()
    if Postmaster.find(directory / "data") is None:
        line("the embedded server is not running")
        return
    _found().stop()
    line(f"stopped  {directory}")
