"""After a restore: bringing every build back under the one law, whatever came back of the log."""

from refold.engine.recovery.recovery import RecoveryReport, recover
from refold.engine.recovery.survey import Survey, survey

__all__ = ["RecoveryReport", "Survey", "recover", "survey"]
