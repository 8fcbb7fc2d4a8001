"""Several things at the same time, in threads."""

import threading
from collections.abc import Callable


def at_once(*work: Callable[[], object]) -> None:
    """Runs functions in threads; raises what one of them raises."""
    failed: list[BaseException] = []

    def guarded(function: Callable[[], object]) -> None:
        try:
            function()
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=guarded, args=(function,)) for function in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    if failed:
        raise failed[0]
