"""The fault campaign: refold under load while all around it breaks, counted by somebody who does not trust it."""
