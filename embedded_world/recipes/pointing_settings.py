"""Settings of the training of the text generator that reads instructions which point.

It is the last cycle of the text generator's own training over again, from its shipped weights,
with a share of other samples.
"""

from dataclasses import dataclass
from random import Random

from embedded_world.edits import ONE_EDIT
from embedded_world.recipes.pointing_samples import (
    BOTH,
    POINTED,
    RELATION,
    RELATIONS,
    PointingMix,
    draw_pointing,
)
from embedded_world.recipes.text_samples import ADDED, EDIT, Sample
from embedded_world.recipes.text_settings import Settings

POINTING_MIX = PointingMix(
    forms=(RELATION, RELATION, RELATIONS, RELATIONS, BOTH),
    tasks=(EDIT,) * 7 + (ADDED,),
    pointed=(*POINTED, "remove"),
    kinds=(*ONE_EDIT, "remove"),
    varied=0.6,
    open_scenes=0.25,
    open_edits=0.15,
)
"""Samples that point: what is hard to do, and two clauses above all, more often."""


@dataclass(frozen=True)
class PointingSettings(Settings):
    """Complete settings of a run; all cycles but the fifth are empty.

    Attributes:
        pointing_share: Share of the samples that point; the others are those of the fifth cycle.
    """

    steps: int = 5000
    restart: int = 0
    third: int = 0
    fourth: int = 0
    fifth: int = 0
    fifth_lr: float = 2.5e-3
    settled: int = 0
    first: int = 0
    second: int = 0
    full_prompt: int = 0
    late_difference_share: float = 0.6
    pointing_share: float = 0.5

    def draw(self, rng: Random, step: int) -> Sample:
        """Draw a sample of a step; nothing in it is held out."""
        if rng.random() < self.pointing_share:
            return draw_pointing(rng, POINTING_MIX)
        return super().draw(rng, step)
