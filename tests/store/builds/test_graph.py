"""The order of builds along their streams."""

from __future__ import annotations

from refold.store.builds.graph import depths


def test_how_far_each_node_is_from_the_root() -> None:
    assert depths([]) == {}
    # In any order, with several roots and two that read the same.
    assert depths([(5, 3), (1, None), (3, 1), (4, 1), (2, None)]) == {1: 0, 2: 0, 3: 1, 4: 1, 5: 2}
