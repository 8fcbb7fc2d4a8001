"""The kind `files`: Parquet, CSV or JSON lines in a folder of this host or of an object store."""

from refold.sinks.kinds.files.options import Options
from refold.sinks.kinds.files.receiver import Files

__all__ = ["Files", "Options"]
