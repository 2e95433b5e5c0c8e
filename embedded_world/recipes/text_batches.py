"""The text generator's batches: tokens, their weights in the loss, and labels of the probes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from embedded_world.recipes.text_differences import DIFFERENCE
from embedded_world.recipes.text_labels import AimLabels, ChangeLabels, DifferenceLabels
from embedded_world.recipes.text_samples import COPY, EDIT, Sample
from embedded_world.recipes.text_settings import Settings


@dataclass(frozen=True)
class Batch:
    """Token ids, loss weights and probe labels, each (B, T), padded on the right.

    `changes[b, t]` is about the token at t + 1, `aims[b, t]` and `spread[b, t]` about the one at
    t; `contrast[b, t]` about the one at t, `target[b, t]` about the one at t + 1; -1 = no label.
    """

    ids: Tensor
    weights: Tensor
    changes: Tensor
    aims: Tensor
    spread: Tensor
    contrast: Tensor
    target: Tensor


class BatchMaker:
    """Draws the batches of a run; batch number `step` depends on (settings, step) only."""

    def __init__(self, settings: Settings, tokenizer: PreTrainedTokenizerFast) -> None:
        self.settings = settings
        self.tokenizer = tokenizer
        self.changes = ChangeLabels(tokenizer)
        self.aims = AimLabels(tokenizer)
        self.differences = DifferenceLabels(tokenizer, self.changes)

    def pool(self, number: int) -> list[Batch]:
        """The batches of steps `number * pool` onwards: sorted by length, in random order."""
        s = self.settings
        rng = Random(f"{s.seed}/{number}")
        first = number * s.pool
        samples = [s.draw(rng, first) for _ in range(s.batch * s.pool)]
        prompts = self.tokenizer([x.prompt for x in samples])["input_ids"]
        answers = self.tokenizer([x.answer for x in samples], add_special_tokens=False)["input_ids"]
        rows = list(zip(samples, prompts, answers, strict=True))
        rows.sort(key=lambda row: len(row[1]) + len(row[2]) + 4 * rng.random())
        batches = [rows[i : i + s.batch] for i in range(0, len(rows), s.batch)]
        rng.shuffle(batches)
        return [self._batch(b, first) for b in batches]

    def _batch(self, rows: Sequence[tuple[Sample, list[int], list[int]]], step: int) -> Batch:
        weight = self.settings.prompt_weight(step)
        fact = self.settings.fact_weight if step >= self.settings.fourth else 1.0
        eos = self.tokenizer.eos_token_id
        length = max(len(prompt) + len(answer) for _, prompt, answer in rows) + 1
        ids = torch.full((len(rows), length), self.tokenizer.pad_token_id)
        weights = torch.zeros(len(rows), length)
        changes = torch.full((len(rows), length), -1.0)
        contrast = torch.full((len(rows), length), -1.0)
        aims, spread, target = torch.full((3, len(rows), length), -1)
        for i, (sample, prompt, answer) in enumerate(rows):
            start, end = len(prompt), len(prompt) + len(answer) + 1
            ids[i, :end] = torch.tensor([*prompt, *answer, eos])
            weights[i, :start] = weight
            weights[i, start:end] = 1.0
            if sample.task in (EDIT, COPY):
                marks = self.changes(answer, sample.said)
                changes[i, start - 1 : end - 2] = torch.tensor(marks, dtype=torch.float)
            if sample.task == EDIT:
                found, told = self.aims(prompt, sample.aims, sample.said)
                aims[i, :start], spread[i, :start] = torch.tensor(found), torch.tensor(told)
            if sample.task == DIFFERENCE:
                told = self.differences.contrast(prompt, sample.said)
                contrast[i, :start] = torch.tensor(told, dtype=torch.float)
                found = self.differences.target(answer, sample.aims)
                target[i, start - 1 : end - 2] = torch.tensor(found)
                for j, token in enumerate(answer, start):
                    weights[i, j] = fact if token in self.differences.facts else 1.0
        return Batch(ids, weights, changes, aims, spread, contrast, target)

    def from_step(self, step: int) -> Iterator[Batch]:
        """Batches from a step on."""
        number, skip = divmod(step, self.settings.pool)
        while True:
            yield from self.pool(number)[skip:]
            number, skip = number + 1, 0
