"""The words of the dashboard: every kind of incident has its own."""

import pytest

from refold.dashboard.wording import title
from refold.store.incidents import KINDS, Kind


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_incident_has_a_title(kind: Kind) -> None:
    opened, over = title(kind, "daily", over=False), title(kind, "daily", over=True)
    assert opened and over and "{" not in opened + over
