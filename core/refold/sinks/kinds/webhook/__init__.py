"""The kind `webhook`: signed HTTP requests with the rows of a metric that changed."""

from refold.sinks.kinds.webhook.options import WebhookOptions
from refold.sinks.kinds.webhook.receiver import WebhookReceiver

__all__ = ["WebhookOptions", "WebhookReceiver"]
