"""The command line: `refold …`.

`refold.cli.commands` lists the commands; the module of each is imported when that command is called, and not before:
what one of them needs, no other waits for. So this one imports nothing at all.
"""

__all__ = ["main"]


def main() -> None:
    """The command `refold`."""
    try:
        from refold.cli.app import app

        app(prog_name="refold")
    except KeyboardInterrupt:
        # Python was still importing: nothing has been begun.
        raise SystemExit(130) from None
