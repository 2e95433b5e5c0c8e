"""Settings of the text generator's training: learning rates, weights, curriculum.

Five cycles of the learning rate; the curriculum goes from short scenes in canonical words to all
variation, to harder edits, to differences, to pairs that differ in several ways.
"""

from dataclasses import dataclass, replace
from random import Random

from embedded_world.edits import ONE_EDIT
from embedded_world.recipes.text_differences import UNRELATED, DifferenceMix, draw_difference
from embedded_world.recipes.text_samples import ADDED, COPY, EDIT, Mix, Sample, draw_sample

KIND_WEIGHTS = (*ONE_EDIT, "move", "remove", "shape")
"""Kinds of edit in training: the harder ones twice."""
HARD_KIND_WEIGHTS = (*ONE_EDIT, "colour", "size", "fill", "remove", "move", "replace")
"""Kinds of edit after the restart: twice the kinds that name the change early in a phrase."""


@dataclass(frozen=True)
class Settings:
    """Complete settings of a run.

    Attributes:
        steps: Optimiser steps in all.
        seed: Seed of weights and data.
        batch: Samples a step.
        pool: Batches that are drawn and sorted by length together.
        lr: Peak learning rate.
        warm_up: Steps of linear warm-up.
        flat: Steps before the rate begins to fall linearly to 1 % of its peak.
        restart: Step at which the rate has fallen and starts again at `restart_lr`, to fall
            linearly until the end; from then on the aim probe helps and harder samples prevail.
        restart_lr: Peak of the second fall, which ends at `third`.
        third: Step at which the rate starts again at `third_lr`, to fall until `fourth`; from
            then on differences are asked for too.
        third_lr: Peak of the third fall.
        fourth: Step at which the rate starts again at `fourth_lr`, to fall until `fifth`; from
            then on more pairs differ in several ways and facts weigh more than wordings.
        fourth_lr: Peak of the fourth fall.
        fifth: Step at which the rate starts again at `fifth_lr`, to fall until the end.
        fifth_lr: Peak of the fifth fall.
        difference_share: Share of the samples that ask for a difference, from `third` on ...
        late_difference_share: ... and from `fourth` on.
        fact_weight: Weight in the loss of the words of a difference that are facts (places,
            attributes, backgrounds), from `fourth` on.
        settled: Step from which pairs differ in several ways and captions vary.
        weight_decay: Decoupled decay of the matrices.
        change_weight: Weight of the change probe's loss.
        contrast_weight: Weight of the losses of the contrast and the target probe, from `third` on.
        contrast_layer: Layer after which caption B's words know whether caption A says otherwise.
        target_layer: Layer after which a difference's words know the cell that they speak about.
        change_layer: Layer whose output tells whether the next token is a change ...
        late_change_layer: ... and from `restart` on.
        aim_weight: Weight of the losses of the aim and the spread probe, from `restart` on.
        aim_layer: Layer after which an instruction's noun knows the cell that it points at.
        spread_layer: Layer after which the words that follow the noun know it too.
        first: Steps spent on short scenes in canonical words.
        second: Steps before all variation is in.
        full_prompt: Steps in which the prompt's tokens weigh 0.3 in the loss, and not 0.1.
        save_every: Steps between checkpoints.
    """

    steps: int = 19000
    seed: int = 0
    batch: int = 32
    pool: int = 12
    lr: float = 4e-3
    warm_up: int = 100
    flat: int = 2400
    restart: int = 7600
    restart_lr: float = 3e-3
    third: int = 11200
    third_lr: float = 3e-3
    fourth: int = 14800
    fourth_lr: float = 2e-3
    fifth: int = 17300
    fifth_lr: float = 1.5e-3
    difference_share: float = 0.55
    late_difference_share: float = 0.7
    fact_weight: float = 4.0
    settled: int = 12000
    weight_decay: float = 0.02
    change_weight: float = 1.0
    change_layer: int = 3
    late_change_layer: int = 4
    aim_weight: float = 0.5
    aim_layer: int = 2
    spread_layer: int = 3
    contrast_weight: float = 1.0
    contrast_layer: int = 3
    target_layer: int = 4
    first: int = 400
    second: int = 1200
    full_prompt: int = 4200
    save_every: int = 480

    def rate(self, step: int) -> float:
        """Learning rate of a step."""
        starts = (0, self.restart, self.third, self.fourth, self.fifth, self.steps)
        peaks = (self.lr, self.restart_lr, self.third_lr, self.fourth_lr, self.fifth_lr)
        cycle = max(i for i in range(len(peaks)) if step >= starts[i])
        begin, end, peak = starts[cycle], starts[cycle + 1], peaks[cycle]
        fall = begin if cycle else self.flat
        left = (end - step) / max(1, end - fall)
        return peak * min(1.0, (step - begin + 1) / self.warm_up, max(0.01, left))

    def draw(self, rng: Random, step: int) -> Sample:
        """Draw a sample of a step; nothing in it is held out."""
        share = self.difference_share if step < self.fourth else self.late_difference_share
        if step >= self.third and rng.random() < share:
            return draw_difference(rng, self.difference_mix(step))
        return draw_sample(rng, self.mix(step))

    def mix(self, step: int) -> Mix:
        """The curriculum: short scenes and copying first, then more things, then variation."""
        every = Mix(tasks=(EDIT,) * 7 + (ADDED,) + (COPY,), kinds=KIND_WEIGHTS)
        if step < self.first:
            return replace(every, tasks=(EDIT, EDIT, ADDED, COPY), most=2, varied=0.0, plain=0.5)
        if step < self.second:
            return replace(every, varied=0.25, plain=0.3, two=0.1, open_edits=0.1)
        if step >= self.restart:
            # One thing alone is too easy by now, and so are shapes, additions and backgrounds.
            least = 1 if step // self.pool % 4 == 0 else 2
            every = replace(every, least=least, kinds=HARD_KIND_WEIGHTS)
        return replace(
            every,
            varied=0.6,
            plain=0.1,
            two=0.3,
            open_scenes=0.25,
            open_edits=0.15,
            mismatched=0.12,
        )

    def difference_mix(self, step: int) -> DifferenceMix:
        """The differences that are asked for: one edit apart in canonical words first, then all."""
        if step < self.settled:
            return DifferenceMix(apart=(1,), position_first=0.7)
        every = DifferenceMix(varied=0.35, open_scenes=0.15, bare=0.05)
        if step < self.fourth:
            return every
        apart = (1, 1, 1, 1, 2, 2, 2, 3, 4, UNRELATED, UNRELATED)
        kinds = (*every.kinds, "background", "background" if step < self.fifth else "replace")
        return replace(every, apart=apart, kinds=kinds)

    def prompt_weight(self, step: int) -> float:
        """Weight of the prompt's tokens in the loss; answers weigh 1."""
        return 0.3 if step < self.full_prompt else 0.1
