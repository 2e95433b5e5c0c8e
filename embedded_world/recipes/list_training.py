"""How the language model of a verifier of grids is trained, on lists of candidates.

The answer is one token, the mark of the candidate that fits. What a cell of the reference should
hold (`wish`), whether a cell of a candidate is as wanted (`verdict`) and whether a candidate is
(`whole`) are read from tokens on the way by heads that are thrown away.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, Final

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import Qwen3VLForConditionalGeneration, Qwen3VLProcessor

from embedded_world.recipes.language_learner import LanguageLearner
from embedded_world.recipes.list_pictures import grids_of, places_in, read_pictures
from embedded_world.recipes.list_queries import ListQuery, draw_list, draw_lists
from embedded_world.recipes.muon import take_step
from embedded_world.recipes.scene_tensors import labels
from embedded_world.recipes.training import Schedule, streams
from embedded_world.recipes.verifier_model import ASK, IMAGE, MERGE, VISION_END, VISION_START, WIDTH
from embedded_world.recipes.verifier_queries import TWO_EDIT_SHARE
from embedded_world.recipes.verifier_training import READ_OUT, read_out_loss
from embedded_world.scenes import MAX_THINGS, NUM_CELLS
from models.verifiers.grid import marks_of

REFERENCE_LAYER, CELL_LAYER, WHOLE_LAYER = 3, 4, 5
"""Layers after which the wish, the verdict on a cell and that on a candidate are read."""
EASY: Final = 250
"""First steps, with at most two things and fewer queries of two edits."""
CANDIDATES: Final = 60
"""Candidates of a step, about."""
RATE: Final = 3e-3
DECAY: Final = 0.5
"""Share of the run in which the rate falls."""


@dataclass(frozen=True)
class SeenLists:
    """What the language model makes of B lists of one length.

    Attributes:
        last: Final hidden states where the answer comes (B, d).
        reference: Hidden states of the references' cells (B, 9, d).
        cells: Of the candidates' cells (B, K, 9, d).
        ends: Of the candidates' last cells, which see all others (B, K, d).
    """

    last: Tensor
    reference: Tensor
    cells: Tensor
    ends: Tensor


def see_lists(
    model: Qwen3VLForConditionalGeneration,
    processor: Qwen3VLProcessor,
    lists: Sequence[ListQuery],
    drawing: np.random.Generator,
) -> SeenLists:
    """Draw lists of one length and read them; no gradient reaches the vision tower."""
    references, _, grids = grids_of(lists, drawing)
    images = [image for both in zip(references, grids, strict=True) for image in both]
    read = read_pictures(processor, images)
    with torch.no_grad():
        features = model.model.get_image_features(read.patches, read.grids, return_dict=True)
    ids, real = _rows(processor, lists, int(read.grids[1].prod()) // MERGE**2)
    is_image = (ids == model.config.image_token_id).int()
    positions, _ = model.model.get_rope_index(ids, is_image, read.grids, attention_mask=real)
    found = model.model(
        input_ids=ids,
        attention_mask=real,
        position_ids=positions,
        mm_encoder_outputs={"image": features},
        output_hidden_states=True,
        use_cache=False,
    )
    ask, end, own = 1, 1, int(read.grids[1].prod()) // MERGE**2
    grid = slice(-ask - end - own, -ask - end)
    first = -ask - end - own - 1 - 1 - NUM_CELLS  # before the grid's start and the reference's end
    places = places_in(len(lists[0].candidates), read.grids[1])
    states = found.hidden_states
    return SeenLists(
        last=found.last_hidden_state[:, -1],
        reference=states[REFERENCE_LAYER][:, first : first + NUM_CELLS],
        cells=states[CELL_LAYER][:, grid][:, places],
        ends=states[WHOLE_LAYER][:, grid][:, places[:, -1]],
    )


def _rows(
    processor: Qwen3VLProcessor, lists: Sequence[ListQuery], tokens: int
) -> tuple[Tensor, Tensor]:
    """Tokens of the prompts (B, L), padded on the left, and which of them are real."""
    tokenizer = processor.tokenizer
    reference = [VISION_START, *[IMAGE] * NUM_CELLS, VISION_END]
    grid = [VISION_START, *[IMAGE] * tokens, VISION_END, ASK]
    pictures = tokenizer.convert_tokens_to_ids([*reference, *grid])
    texts = [tokenizer(own.query.text, add_special_tokens=False)["input_ids"] for own in lists]
    rows = [[tokenizer.bos_token_id, *text, *pictures] for text in texts]
    longest = max(map(len, rows))
    pad = tokenizer.pad_token_id
    ids = torch.tensor([[pad] * (longest - len(row)) + row for row in rows])
    return ids, (ids != pad).int()


def fitting_cells(lists: Sequence[ListQuery]) -> Tensor:
    """Per candidate and cell, whether the cell and the background are as wanted (B, K, 9, 2)."""
    return torch.tensor(
        [
            [
                [
                    (
                        theirs is None
                        if mine is None
                        else theirs is not None and mine.matches(theirs),
                        own.query.wanted.background in (None, scene.background),
                    )
                    for mine, theirs in zip(own.query.wanted.cells, scene.cells, strict=True)
                ]
                for scene in own.candidates
            ]
            for own in lists
        ]
    ).float()


class ListLearner(LanguageLearner):
    """The verifier of grids in training."""

    def __init__(
        self,
        model: Qwen3VLForConditionalGeneration,
        processor: Qwen3VLProcessor,
        *,
        seed: int,
        steps: int,
        length: int,
        held_out: int = 80,
    ) -> None:
        """Prepare step 0.

        Args:
            model: Its vision tower is trained.
            processor: Its processor.
            seed: Of the lists and their drawings.
            steps: Length of the run.
            length: Candidates of a list.
            held_out: Lists of each kind to look at on the way.
        """
        heads = {
            "wish": nn.Linear(WIDTH, READ_OUT),
            "verdict": nn.Linear(WIDTH, 2),
            "whole": nn.Linear(WIDTH, 1),
        }
        schedule = Schedule(steps, RATE, warm_up=60, hold=1 - DECAY)
        super().__init__(model, nn.ModuleDict(heads), schedule)
        self.processor, self.seed, self.length = processor, seed, length
        rng = Random("lists, held out")
        self._held_out = {
            kind: draw_lists(rng, held_out, length, two_edits=share)
            for kind, share in (("one edit", 0.0), ("two edits", 1.0))
        }

    def _marks(self, count: int) -> list[int]:
        found: Any = self.processor.tokenizer.convert_tokens_to_ids(list(marks_of(count)))
        return list(found)

    def losses(self, lists: Sequence[ListQuery], drawing: np.random.Generator) -> dict[str, Tensor]:
        """Losses by name, already weighted."""
        seen = see_lists(self.model, self.processor, lists, drawing)
        fits = torch.tensor([own.fits for own in lists]).float()
        logits = self.model.lm_head(seen.last).log_softmax(-1)
        shares = fits / fits.sum(1, keepdim=True)
        cells, grounds = labels([own.query.wanted for own in lists])
        verdict = F.binary_cross_entropy_with_logits(
            self.heads["verdict"](seen.cells),
            fitting_cells(lists),
            pos_weight=torch.tensor([0.3, 0.5]),  # most cells of most candidates are right
        )
        whole = self.heads["whole"](seen.ends)[..., 0]
        balance = torch.tensor(float(fits.shape[1]) / 2)
        return {
            "answer": -(shares * logits[:, self._marks(fits.shape[1])]).sum(1).mean(),
            "whole": F.binary_cross_entropy_with_logits(whole, fits, pos_weight=balance),
            "wish": 0.5 * read_out_loss(self.heads["wish"](seen.reference), cells, grounds),
            "verdict": 3 * verdict,
        }

    def advance(self) -> Mapping[str, float]:
        """Take one step; its losses by name."""
        rng, drawing = streams(self.seed, self.step)
        begun = self.step >= EASY
        most, two = (MAX_THINGS, TWO_EDIT_SHARE) if begun else (2, TWO_EDIT_SHARE / 2)
        lists = [
            draw_list(rng, self.length, held_out=False, most=most, two_edits=two)
            for _ in range(max(4, round(CANDIDATES / self.length)))
        ]
        parts = self.losses(lists, drawing)
        take_step(parts, self._trained, self.adam, self.muon, self.schedule.at(self.step))
        self.step += 1
        return {name: float(loss.detach()) for name, loss in parts.items()}

    @torch.no_grad()
    def logits(self, lists: Sequence[ListQuery]) -> np.ndarray:
        """Logits of the marks of lists of one length (B, K)."""
        drawing = np.random.default_rng(99)
        parts = [
            self.model.lm_head(
                see_lists(self.model, self.processor, lists[i : i + 20], drawing).last
            )
            for i in range(0, len(lists), 20)
        ]
        return torch.cat(parts)[:, self._marks(len(lists[0].candidates))].numpy()

    def look(self) -> str:
        """How often the right one is first; a point of the curve."""
        point: dict[str, float] = {"step": self.step}
        for kind, lists in self._held_out.items():
            best = self.logits(lists).argmax(axis=1)
            won = [own.fits[place] for own, place in zip(lists, best.tolist(), strict=True)]
            point[kind] = round(float(np.mean(won)), 4)
        self.curve.append(point)
        return " ".join(f"{name}: {value:.3f}" for name, value in point.items() if name != "step")
