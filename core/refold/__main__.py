"""``python -m refold`` is the command ``refold``."""

from refold.cli import main

if __name__ == "__main__":
    main()
