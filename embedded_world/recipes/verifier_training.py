"""How the embedded verifier is trained: its vision alone, then its language model on queries.

Everything depends on (settings, step) only. The heads that read attributes out of hidden states
are thrown away; their labels come free from the scenes.
"""

from collections.abc import Mapping, Sequence
from random import Random
from typing import Final

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast, Qwen3VLForConditionalGeneration

from embedded_world.drawing import draw_batch
from embedded_world.recipes.language_learner import LanguageLearner
from embedded_world.recipes.measures import area_under_curve
from embedded_world.recipes.muon import take_step
from embedded_world.recipes.scene_tensors import (
    IGNORED,
    SLOTS,
    labels,
    slot_accuracy,
    slot_losses,
)
from embedded_world.recipes.training import Schedule, streams, unpacked
from embedded_world.recipes.verifier_model import WIDTH, patches
from embedded_world.recipes.verifier_packing import Seen, see
from embedded_world.recipes.verifier_queries import (
    BOTH_THINGS,
    CANDIDATES,
    RELATION,
    RIGHT,
    TWO_EDIT_SHARE,
    TWO_EDITS,
    VerifierQuery,
    draw_query,
)
from embedded_world.scenes import BACKGROUNDS, MAX_THINGS, NUM_CELLS, Scene, sample_scenes

READ_OUT: Final = sum(SLOTS.values()) + len(BACKGROUNDS)
PICTURE_SIZE: Final = 0.4
"""Root mean square of picture tokens when the language model begins; the vision stage's heads let
them grow to fifteen times that, in which its updates would drown."""
REFERENCE_LAYER, CANDIDATE_LAYER = 3, 4
"""Layers after which the wish is read from the reference, and the verdict from the candidate."""
EASY: Final = 600
"""First steps, with at most two things, fewer queries of two edits and none that point."""
POINTED_SHARE: Final = 0.25
"""Share of queries after them that point at a thing by another one, or at both things."""
DECAY: Final = 1600
"""Last steps, in which the rate falls. Before them a run does not depend on its length, so that a
checkpoint from there may be finished at another."""
RIGHT_WEIGHT: Final = 3.0
"""A quarter of the candidates is right."""


class VisionWarmUp(nn.Module):
    """The vision tower, and heads on its merged and its DeepStack tokens."""

    def __init__(self, visual: nn.Module) -> None:
        super().__init__()
        self.visual = visual
        self.contents = nn.ModuleList(nn.Linear(WIDTH, READ_OUT) for _ in range(2))
        self.places = nn.ModuleList(nn.Linear(WIDTH, NUM_CELLS) for _ in range(2))

    def tokens(self, scenes: Sequence[Scene], drawing: np.random.Generator) -> list[Tensor]:
        """Merged and DeepStack tokens of drawings, each (B, 9, d)."""
        pixels, grids = patches(draw_batch(scenes, drawing))
        found = self.visual(pixels, grid_thw=grids, return_dict=True)
        both = (found.pooler_output, *found.deepstack_features)
        return [tokens.unflatten(0, (len(scenes), NUM_CELLS)) for tokens in both]

    def losses(self, scenes: Sequence[Scene], drawing: np.random.Generator) -> dict[str, Tensor]:
        """What stands in a cell, the background, and which cell a token is."""
        cells, grounds = labels(scenes)
        where = torch.arange(NUM_CELLS).repeat(len(scenes))
        total: dict[str, Tensor] = {}
        for kind, tokens, content, place in zip(
            ("merged", "deepstack"),
            self.tokens(scenes, drawing),
            self.contents,
            self.places,
            strict=True,
        ):
            total[kind] = read_out_loss(content(tokens), cells, grounds)
            total[f"{kind} place"] = F.cross_entropy(place(tokens).flatten(0, 1), where)
        return total

    def accuracy(self, scenes: Sequence[Scene], drawing: np.random.Generator) -> dict[str, float]:
        """Share of right attributes, read from the merged tokens."""
        cells, _ = labels(scenes)
        read = self.contents[0](self.tokens(scenes, drawing)[0])
        return slot_accuracy(read[..., : sum(SLOTS.values())], cells)

    @torch.no_grad()
    def rescale(self) -> None:
        """Bring the picture tokens to PICTURE_SIZE by the mergers' last layers."""
        scenes = sample_scenes(Random("picture size"), 64, held_out=False)
        found = self.tokens(scenes, np.random.default_rng(0))
        mergers = (self.visual.merger, *self.visual.deepstack_merger_list)
        for tokens, merger in zip(found, mergers, strict=True):
            factor = PICTURE_SIZE / tokens.pow(2).mean().sqrt()
            merger.linear_fc2.weight.mul_(factor)
            merger.linear_fc2.bias.mul_(factor)


def read_out_loss(logits: Tensor, cells: Tensor, grounds: Tensor) -> Tensor:
    """Loss of all attributes of cells and the background (B, 9, READ_OUT); shape counts double."""
    slots, ground = logits.split([sum(SLOTS.values()), len(BACKGROUNDS)], dim=-1)
    parts = slot_losses(slots, cells)
    said = grounds[:, None].expand(-1, NUM_CELLS).flatten()
    background = F.cross_entropy(ground.flatten(0, 1), said, ignore_index=IGNORED)
    return torch.stack([*parts.values(), parts["shape"], background]).sum()


def fitting(queries: Sequence[VerifierQuery]) -> Tensor:
    """Per candidate and cell, whether the cell and the background are as wanted (B, K, 9, 2)."""
    return torch.tensor(
        [
            [
                [
                    (
                        theirs is None
                        if mine is None
                        else theirs is not None and mine.matches(theirs),
                        query.wanted.background in (None, scene.background),
                    )
                    for mine, theirs in zip(query.wanted.cells, scene.cells, strict=True)
                ]
                for scene in query.candidates
            ]
            for query in queries
        ]
    ).float()


class VerifierLearner(LanguageLearner):
    """The verifier of pairs in training."""

    def __init__(
        self,
        model: Qwen3VLForConditionalGeneration,
        tokenizer: PreTrainedTokenizerFast,
        *,
        seed: int,
        steps: int,
        batch: int,
        held_out: int = 160,
    ) -> None:
        """Prepare step 0.

        Args:
            model: Its vision tower is trained.
            tokenizer: Its tokenizer.
            seed: Of the queries and their drawings.
            steps: Length of the run.
            batch: Queries a step.
            held_out: Queries to look at on the way.
        """
        heads = {"wish": nn.Linear(WIDTH, READ_OUT), "verdict": nn.Linear(WIDTH, 2)}
        hold = max(0.0, 1 - DECAY / steps)
        schedule = Schedule(steps, 4e-3, warm_up=100, hold=hold)
        super().__init__(model, nn.ModuleDict(heads), schedule)
        self.tokenizer, self.seed, self.batch = tokenizer, seed, batch
        self.yes, self.no = tokenizer.convert_tokens_to_ids([" yes", " no"])
        rng = Random("verifier, held out")
        self._held_out = [
            draw_query(rng, held_out=True, pointed=POINTED_SHARE) for _ in range(held_out)
        ]

    def _see(self, queries: Sequence[VerifierQuery], drawing: np.random.Generator) -> Seen:
        return see(
            self.model,
            self.tokenizer,
            queries,
            drawing,
            reference_layer=REFERENCE_LAYER,
            candidate_layer=CANDIDATE_LAYER,
        )

    def losses(
        self, queries: Sequence[VerifierQuery], drawing: np.random.Generator
    ) -> dict[str, Tensor]:
        """Losses by name, already weighted."""
        seen = self._see(queries, drawing)
        logits = self.model.lm_head(seen.last)
        is_right = torch.arange(CANDIDATES).expand(len(queries), -1) < RIGHT
        answers = torch.where(is_right, self.yes, self.no)
        each = F.cross_entropy(logits.flatten(0, 1), answers.flatten(), reduction="none")
        weight = torch.where(is_right, RIGHT_WEIGHT, 1.0).flatten()
        margins = logits[..., self.yes] - logits[..., self.no]
        order = torch.logsumexp(margins, 1) - torch.logsumexp(margins[:, :RIGHT], 1)
        cells, grounds = labels([query.wanted for query in queries])
        verdict = F.binary_cross_entropy_with_logits(
            self.heads["verdict"](seen.candidates),
            fitting(queries),
            pos_weight=torch.tensor([0.3, 0.5]),  # most cells of most candidates are right
        )
        return {
            "answer": (each * weight).mean(),
            "order": 0.5 * order.mean(),
            "wish": read_out_loss(self.heads["wish"](seen.reference), cells, grounds),
            "verdict": 2 * verdict,
        }

    def advance(self) -> Mapping[str, float]:
        """Take one step; its losses by name."""
        rng, drawing = streams(self.seed, self.step)
        begun = self.step >= EASY
        most, two = (MAX_THINGS, TWO_EDIT_SHARE) if begun else (2, TWO_EDIT_SHARE / 2)
        pointed = POINTED_SHARE if begun else 0.0
        queries = [
            draw_query(rng, held_out=False, most=most, two_edits=two, pointed=pointed)
            for _ in range(self.batch)
        ]
        parts = self.losses(queries, drawing)
        take_step(parts, self._trained, self.adam, self.muon, self.schedule.at(self.step))
        self.step += 1
        return {name: float(loss.detach()) for name, loss in parts.items()}

    @torch.no_grad()
    def margins(self) -> np.ndarray:
        """Margins of the held-out queries (B, CANDIDATES)."""
        drawing = np.random.default_rng(99)
        parts = [
            self.model.lm_head(self._see(self._held_out[i : i + 20], drawing).last)
            for i in range(0, len(self._held_out), 20)
        ]
        logits = torch.cat(parts)
        return (logits[..., self.yes] - logits[..., self.no]).numpy()

    def look(self) -> str:
        """How well held-out queries are judged; a point of the curve."""
        margins = self.margins()
        kinds = np.array([query.kind for query in self._held_out])
        point = {
            "step": self.step,
            "AUC": pooled_area(margins),
            "AUC two edits": pooled_area(margins[kinds == TWO_EDITS]),
            "AUC pointed": pooled_area(margins[np.isin(kinds, (RELATION, BOTH_THINGS))]),
            "right one first": float((margins.argmax(axis=1) < RIGHT).mean()),
        }
        self.curve.append({name: round(value, 4) for name, value in point.items()})
        return " ".join(f"{name} {value:.3f}" for name, value in point.items() if name != "step")

    def load(self, data: bytes) -> None:
        """Continue from saved data.

        Raises:
            ValueError: They were saved while the rate fell in a run of another length.
        """
        state = unpacked(data)
        if state["steps"] != self.steps and state["step"] > min(state["steps"], self.steps) - DECAY:
            raise ValueError(
                f"the checkpoint is at step {state['step']} of {state['steps']}, where the rate "
                f"falls already; give --steps {state['steps']}, or another folder"
            )
        self._continue_from(state)


def pooled_area(margins: np.ndarray) -> float:
    """Area under the curve of all pairs of queries (B, CANDIDATES)."""
    is_right = np.broadcast_to(np.arange(CANDIDATES) < RIGHT, margins.shape)
    return area_under_curve(margins[is_right], margins[~is_right])
