"""Canaries and feature flags, by OpenFeature (the extra `flags`): answer as a provider, or follow one."""

from refold.flags.provider import RefoldProvider as RefoldProvider
