"""Recovery after a restore: making every build equal its query over the restored log again."""

from refold.engine.recovery.recovery import RecoveryReport, recover
from refold.engine.recovery.survey import Survey, survey

__all__ = ["RecoveryReport", "Survey", "recover", "survey"]
