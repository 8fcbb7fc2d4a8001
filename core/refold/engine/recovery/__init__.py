"""Recovery after a restore: making every build equal its query over the restored log again."""

from refold.engine.recovery.recovery import RecoveryReport, recover
from refold.engine.recovery.survey import StoreLook, Survey, look_at_store, survey

__all__ = ["RecoveryReport", "StoreLook", "Survey", "look_at_store", "recover", "survey"]
