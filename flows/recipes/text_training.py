"""How the embedded text generator is trained: optimiser, batches, losses, checkpoints.

Everything depends on (seed, step) only: batches are drawn anew from the step's own random stream,
nothing in the model is random, so a run resumed from a checkpoint equals an undisturbed one.
"""

import json
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from random import Random

import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from flows.recipes.text_differences import (
    DIFFERENCE,
    UNRELATED,
    DifferenceMix,
    draw_difference,
)
from flows.recipes.text_language import CAPTION_B, INSTRUCTION, with_synonyms
from flows.recipes.text_samples import ADDED, COPY, EDIT, Mix, Sample, draw_sample
from storage.world import grammar
from storage.world.scenes import ATTRIBUTES, BACKGROUNDS, NUM_CELLS, SHAPES, Scene

KIND_WEIGHTS = (*grammar.ONE_EDIT, "move", "remove", "shape")
"""Kinds of edit in training: the harder ones twice."""
HARD_KIND_WEIGHTS = (*grammar.ONE_EDIT, "colour", "size", "fill", "remove", "move", "replace")
"""Kinds of edit after the restart: twice those that say early in a phrase what changes."""


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

    def mix(self, step: int) -> Mix:
        """The curriculum: short scenes and copying first, then more things, then variation."""
        every = Mix(tasks=(EDIT,) * 7 + (ADDED,) + (COPY,), kinds=KIND_WEIGHTS)
        if step < self.first:
            return replace(every, tasks=(EDIT, EDIT, ADDED, COPY), most=2, varied=0.0, plain=0.5)
        if step < self.second:
            return replace(every, varied=0.25, plain=0.3, two=0.1, open_edits=0.1)
        if step >= self.restart:
            # One thing alone is no task any more; neither are shapes, additions and backgrounds.
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
        """What differences are asked for: one edit apart in canonical words first, then all."""
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


class Muon:
    """Momentum orthogonalised by a Newton-Schulz iteration, for matrices (Jordan et al. 2024).

    A float32 re-implementation: torch's own iterates in bfloat16, which is slow on CPUs without
    it. Matrices of one shape (up to transposition) are stacked.
    """

    def __init__(self, matrices: Sequence[nn.Parameter], momentum: float = 0.95) -> None:
        self.momentum = momentum
        self.groups: dict[tuple[int, ...], list[nn.Parameter]] = {}
        for matrix in matrices:
            self.groups.setdefault(tuple(sorted(matrix.shape)), []).append(matrix)
        self.buffers = {s: torch.zeros(len(group), *s) for s, group in self.groups.items()}

    @torch.no_grad()
    def step(self, lr: float, weight_decay: float) -> None:
        """Update the matrices from their gradients."""
        for shape, group in self.groups.items():
            flips = [tuple(p.shape) != shape for p in group]
            gradients = [p.grad for p in group if p.grad is not None]
            g = torch.stack([x.T if f else x for x, f in zip(gradients, flips, strict=True)])
            buffer = self.buffers[shape].lerp_(g, 1 - self.momentum)
            x = torch.lerp(g, buffer, self.momentum)
            x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
            for _ in range(5):
                a = x @ x.mT
                x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
            size = lr * 0.2 * max(shape) ** 0.5
            for p, update, flip in zip(group, x, flips, strict=True):
                p.mul_(1 - lr * weight_decay).add_(update.T if flip else update, alpha=-size)


# --------------------------------------------------------------------------- batches


class AimLabels:
    """Labels of two probes: which cell does this token of an instruction speak about?

    Texts often name a thing without its place, and captions name the place first: the model must
    find the thing before it can know where its answer departs from the caption. First the noun
    finds the cell (aim), then the words after it learn it from the noun (spread).
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        ids = tokenizer.convert_tokens_to_ids
        self.instruction, self.joint = ids(INSTRUCTION.lower()), ids("and")
        self.thing = ids("object")
        self.nouns = {self.thing, *(ids(shape) for shape in SHAPES)}

    def __call__(
        self, prompt: Sequence[int], aims: Sequence[int | None]
    ) -> tuple[list[int], list[int]]:
        """A cell at each edit's noun, and one at each word after it; -1 elsewhere."""
        aimed, spread = [-1] * len(prompt), [-1] * len(prompt)
        if not aims:
            return aimed, spread
        start = prompt.index(self.instruction) + 1
        for aim in aims:
            end = next((i for i in range(start, len(prompt) - 1) if prompt[i] == self.joint), -1)
            end = len(prompt) - 1 if end < 0 else end
            noun = next((i for i in range(start, end) if prompt[i] in self.nouns), end)
            # "the object on the left": what follows the noun tells which one it is.
            noun += prompt[noun] == self.thing
            if aim is not None and noun < end:
                aimed[noun] = aim
                spread[noun + 1 : end] = [aim] * (end - noun - 1)
            start = end + 1
        return aimed, spread


class ChangeLabels:
    """Labels of the second probe: does the next answer token differ from the caption?"""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self.meaning: dict[int, tuple[str, object]] = {}

        def learn(token: str, slot: str, value: object) -> None:
            self.meaning[tokenizer.convert_tokens_to_ids(token)] = (slot, value)

        for places in (grammar.AT, grammar.AT_ALT):
            for cell, place in enumerate(places):
                learn(place, "place", cell)
        for slot, values in ATTRIBUTES.items():
            for word in with_synonyms(values):
                learn(word, slot, grammar.PLAIN.get(word, word))
                if slot == "size":
                    learn(f"a {word}", slot, grammar.PLAIN.get(word, word))
        for word in with_synonyms(BACKGROUNDS):
            for phrase in (f"on a {word} background", f"with a {word} backdrop"):
                learn(phrase, "ground", grammar.PLAIN.get(word, word))

    def __call__(self, answer: Sequence[int], said: Scene) -> list[int]:
        """One label per answer token: 1 = not what the caption says next, 0 = is, -1 = neither."""
        labels = []
        cell = -1
        for token in answer:
            slot, value = self.meaning.get(token, ("", None))
            label = -1
            if slot in ("place", "ground"):
                following = next((c for c in said.occupied if c > cell), None)
                if slot == "place":
                    label = int(value != following)
                    cell = int(str(value))
                else:
                    label = int(following is not None or value != said.background)
            elif slot:
                thing = said.cells[cell] if cell >= 0 else None
                label = int(thing is None or getattr(thing, slot) != value)
            labels.append(label)
        return labels


class DifferenceLabels:
    """Labels of the probes of the difference task.

    Contrast: does caption A say otherwise than this token of caption B? Target: which cell is the
    change in that this part of the answer tells?
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast, changes: ChangeLabels) -> None:
        self.meaning = changes.meaning
        self.caption_b = tokenizer.convert_tokens_to_ids(CAPTION_B.lower())
        self.joint = tokenizer.convert_tokens_to_ids("and")
        words = [*grammar.TO, *BACKGROUNDS, "bigger", "smaller"]
        self.facts = {*changes.meaning, *tokenizer.convert_tokens_to_ids(words)}

    def contrast(self, prompt: Sequence[int], before: Scene) -> list[int]:
        """One label per token of the prompt: 1 = A says otherwise, 0 = not, -1 = neither."""
        labels = [-1] * len(prompt)
        old = None
        for i in range(prompt.index(self.caption_b), len(prompt)):
            slot, value = self.meaning.get(prompt[i], ("", None))
            if slot == "place":
                old = before.cells[int(str(value))]
                labels[i] = int(old is None)
            elif slot == "ground":
                labels[i] = int(before.background not in (None, value))
            elif slot:
                labels[i] = int(old is None or getattr(old, slot) not in (None, value))
        return labels

    def target(self, answer: Sequence[int], aims: Sequence[int | None]) -> list[int]:
        """The cell that each token of the answer is about, -1 where it is about none."""
        labels, clause = [], 0
        for token in answer:
            clause += token == self.joint
            aim = aims[clause]
            labels.append(-1 if aim is None or token == self.joint else aim)
        return labels


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

    def _sample(self, rng: Random, step: int) -> Sample:
        s = self.settings
        share = s.difference_share if step < s.fourth else s.late_difference_share
        if step >= s.third and rng.random() < share:
            return draw_difference(rng, s.difference_mix(step))
        return draw_sample(rng, s.mix(step))

    def pool(self, number: int) -> list[Batch]:
        """The batches of steps `number * pool` onwards: sorted by length, in random order."""
        s = self.settings
        rng = Random(f"{s.seed}/{number}")
        first = number * s.pool
        samples = [self._sample(rng, first) for _ in range(s.batch * s.pool)]
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
                found, told = self.aims(prompt, sample.aims)
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


# --------------------------------------------------------------------------- the run


class Trainer:
    """One training run with its state; `step()` is one optimiser step."""

    def __init__(
        self, settings: Settings, model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast
    ) -> None:
        self.settings = settings
        self.model = model
        self.tokenizer = tokenizer
        # Thrown away after training.
        self.probes = nn.ModuleDict(
            {
                "change": nn.Linear(model.config.hidden_size, 1),
                "aim": nn.Linear(model.config.hidden_size, NUM_CELLS),
                "spread": nn.Linear(model.config.hidden_size, NUM_CELLS),
                "contrast": nn.Linear(model.config.hidden_size, 1),
                "target": nn.Linear(model.config.hidden_size, NUM_CELLS),
            }
        )
        for parameter in self.probes.parameters():
            nn.init.zeros_(parameter)
        named = list(model.named_parameters())
        matrices = [p for n, p in named if p.ndim == 2 and "embed" not in n]
        rest = [p for n, p in named if p.ndim < 2 or "embed" in n] + list(self.probes.parameters())
        self.muon = Muon(matrices)
        self.adam = torch.optim.AdamW(rest, lr=settings.lr, betas=(0.9, 0.98), weight_decay=0.0)
        self.done = 0
        self.cpu_seconds = 0.0

    def losses(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss to minimise, and its parts: answer tokens alone, and each probe."""
        output = self.model(batch.ids, output_hidden_states=True, use_cache=False)
        weights = batch.weights[:, 1:]
        each = F.cross_entropy(
            output.logits[:, :-1].flatten(0, 1), batch.ids[:, 1:].flatten(), reduction="none"
        ).view_as(weights)
        s, hidden = self.settings, output.hidden_states
        late = self.done >= s.restart
        change_layer = s.late_change_layer if late else s.change_layer
        change = self._probe_loss("change", hidden[change_layer], batch.changes)
        loss = (each * weights).sum() / weights.sum() + s.change_weight * change
        parts = {"answer": each.detach()[weights >= 1].mean(), "change": change.detach()}
        if late:
            aim = self._probe_loss("aim", hidden[s.aim_layer], batch.aims)
            spread = self._probe_loss("spread", hidden[s.spread_layer], batch.spread)
            loss = loss + s.aim_weight * (aim + spread)
            parts |= {"aim": aim.detach(), "spread": spread.detach()}
        if self.done >= s.third:
            contrast = self._probe_loss("contrast", hidden[s.contrast_layer], batch.contrast)
            target = self._probe_loss("target", hidden[s.target_layer], batch.target)
            loss = loss + s.contrast_weight * (contrast + 0.5 * target)
            asked = weights[batch.contrast.amax(1) >= 0] >= 1
            told = each.detach()[batch.contrast.amax(1) >= 0][asked]
            parts |= {"contrast": contrast.detach(), "target": target.detach()}
            parts |= {"difference": told.sum() / max(1, len(told))}
        return loss, parts

    def _probe_loss(self, name: str, hidden: Tensor, labels: Tensor) -> Tensor:
        """Mean loss of a probe on normalised hidden states, where there are labels."""
        told = labels >= 0
        chosen = hidden[told]
        guess = self.probes[name](chosen * torch.rsqrt(chosen.pow(2).mean(-1, keepdim=True) + 1e-6))
        if labels.is_floating_point():
            total = F.binary_cross_entropy_with_logits(
                guess.squeeze(-1), labels[told], pos_weight=torch.tensor(4.0), reduction="sum"
            )
        else:
            total = F.cross_entropy(guess, labels[told], reduction="sum")
        return total / max(1, len(chosen))  # a batch may hold no label at all

    def step(self, batch: Batch) -> dict[str, float]:
        """Update the weights; returns the parts of the loss by name."""
        began = time.process_time()
        rate = self.settings.rate(self.done)
        loss, parts = self.losses(batch)
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for group in self.adam.param_groups:
            group["lr"] = rate
        self.adam.step()
        self.muon.step(rate, self.settings.weight_decay)
        self.model.zero_grad(set_to_none=True)
        self.probes.zero_grad(set_to_none=True)
        self.done += 1
        self.cpu_seconds += time.process_time() - began
        return {name: part.item() for name, part in parts.items()}

    # A checkpoint is one safetensors file: it appears whole or not at all.

    def save(self, path: Path) -> None:
        """Write weights, optimiser state and progress to one file."""
        weights = {k: v for k, v in self.model.state_dict().items() if k != "lm_head.weight"}
        tensors = {f"model.{k}": v for k, v in weights.items()}
        tensors |= {f"probes.{k}": v for k, v in self.probes.state_dict().items()}
        tensors |= {f"muon.{'x'.join(map(str, k))}": v for k, v in self.muon.buffers.items()}
        for i, state in self.adam.state_dict()["state"].items():
            tensors |= {f"adam.{i}.{k}": v for k, v in state.items()}
        progress = {"done": self.done, "cpu_seconds": self.cpu_seconds}
        about = {"settings": json.dumps(asdict(self.settings)), "progress": json.dumps(progress)}
        tensors = {k: v.detach().contiguous() for k, v in tensors.items()}
        temporary = path.with_suffix(".tmp")
        save_file(tensors, temporary, metadata=about)
        os.replace(temporary, path)

    def resume(self, path: Path) -> None:
        """Continue from a checkpoint of the same settings.

        Raises:
            ValueError: The checkpoint was written under other settings.
        """
        with safe_open(path, "pt") as file:
            about = file.metadata()
        theirs, ours = json.loads(about["settings"]), asdict(self.settings)
        if theirs != ours:
            other = {k: (theirs.get(k), v) for k, v in ours.items() if theirs.get(k) != v}
            raise ValueError(
                f"{path} has other settings (theirs, ours): {other}; use another --work"
            )
        progress = json.loads(about["progress"])
        tensors = load_file(path)
        self.model.load_state_dict(_under("model.", tensors), strict=False)
        self.probes.load_state_dict(_under("probes.", tensors))
        for shape in self.muon.buffers:
            self.muon.buffers[shape].copy_(tensors[f"muon.{'x'.join(map(str, shape))}"])
        state: dict[int, dict[str, Tensor]] = {}
        for name, tensor in _under("adam.", tensors).items():
            index, field = name.split(".", 1)
            state.setdefault(int(index), {})[field] = tensor
        self.adam.load_state_dict({**self.adam.state_dict(), "state": state})
        self.done, self.cpu_seconds = int(progress["done"]), float(progress["cpu_seconds"])


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
