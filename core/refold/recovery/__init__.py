"""After a restore: bringing every build back under the one law, whatever came back of the log."""

from refold.recovery.recovery import Report, recover
from refold.recovery.survey import Survey, survey

__all__ = ["Report", "Survey", "recover", "survey"]
