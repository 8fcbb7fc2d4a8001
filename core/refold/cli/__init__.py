"""The command line: `refold …`.

`refold.cli.commands` lists the commands. A command's module is imported only when that command is called, so that no
command waits for the imports of another. This module imports nothing for the same reason.
"""

__all__ = ["main"]


def main() -> None:
    """Run the command `refold`."""
    try:
        from refold.cli.app import app

        app(prog_name="refold")
    except KeyboardInterrupt:
        # Python was still importing: nothing has been begun.
        raise SystemExit(130) from None
