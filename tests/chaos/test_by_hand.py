"""A campaign without the duties that heal: it leaves out duties that there are."""

from chaos.by_hand import HEALING
from refold.service.duties.registry import DUTIES


def test_what_is_left_out_is_a_duty() -> None:
    assert set(HEALING) < {duty.name for duty in DUTIES}
