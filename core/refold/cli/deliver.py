"""`refold deliver`: a process that delivers sinks."""

from __future__ import annotations

import logging
from typing import Annotated

import typer

from refold.cli.app import TRUST, app
from refold.cli.session import DatabaseUrl, Projections, database, folder
from refold.postgres.connect import connection
from refold.service.processes import told_to_stop
from refold.store import sinks as store
from refold.store.schema.installed import check

log = logging.getLogger("refold.sinks")


@app.command(rich_help_panel=TRUST)
def deliver(
    sinks: Annotated[
        list[str] | None, typer.Option("--sink", metavar="NAME", help="Only this sink; may be repeated.")
    ] = None,
    drain: Annotated[bool, typer.Option("--drain", help="Deliver what is due now, then exit.")] = False,
    projections: Projections = None,
    database_url: DatabaseUrl = None,
) -> None:
    """Deliver metrics to the receivers of sinks, and notices of incidents to their routes.

    Workers do this too, unless they are started with --no-deliver. A process of its own suits a host that alone may
    talk to the outside, and alone has the secrets. Any number may run: each sink is delivered by one at a time.

    \b
    Examples:
      refold deliver
      refold deliver --sink crm --sink warehouse
      refold deliver --drain            once, and exit
    """
    from refold.service.duties.registry import NOTICES
    from refold.service.duties.thread import DutyThread
    from refold.sinks.run import Delivery

    url = database(database_url)
    with connection(url, "refold_worker", autocommit=True, application_name="refold deliver") as conn:
        check(conn)
        for name in sinks or ():
            store.known(conn, name)
    log.setLevel(logging.INFO)
    if not drain:
        log.info("deliveries started; Ctrl-C stops them")
    with told_to_stop(log, "stopping after the current deliveries") as stopped:
        notices = DutyThread(url, None, () if sinks or drain else NOTICES, frozen_after=60.0, name="refold notices")
        notices.begin()
        try:
            Delivery(url, folder(projections, quiet=True), only=sinks or (), stopped=stopped).run(drain=drain)
        finally:
            notices.end()
