"""CompoDiff's training: a denoiser learns to find a target image's feature.

    x_t = sqrt(abar_t) x0 + sqrt(1 - abar_t) noise,   t uniform
    loss = mean squared error of f(x_t, t, text, reference) and x0

The reference and the text are each left out in some of the rows, independently, so that sampling
can be guided by both. Features and the text tower are frozen; a moving average of the weights
answers queries.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Final

import torch
from torch.nn import functional

from models.compodiff.network import Denoiser, DenoiserShape
from models.compodiff.sampling import TextStates, sampled
from models.compodiff.schedule import NoiseSchedule
from models.compodiff.settings import DenoiserSettings, SamplingSettings
from models.compodiff.token_states import BackboneStates
from models.compodiff.units import in_units
from models.random_streams import random_stream
from models.training.batches import Batch
from models.training.recall import recall
from models.training.trainable import Trainable

if TYPE_CHECKING:
    from models.encoders.open_clip import OpenClipEncoder
    from models.protocols import FloatArray


UNGUIDED: Final = SamplingSettings(draws=1, image_guidance=1, text_guidance=1)
"""What the denoiser itself predicts with both conditions."""


class CompoDiffTraining(Trainable):
    """The denoiser, its moving average and their loss.

    A batch holds `references` and `targets` (B, d) as encoded, `target_ids` (B,), equal where
    targets are, and the texts as `text_ids` (B, L) padded with `text_lengths` (B,);
    likewise the captions of the targets.
    """

    def __init__(
        self, denoiser: Denoiser, settings: DenoiserSettings, texts: BackboneStates
    ) -> None:
        """Take a new denoiser.

        Args:
            denoiser: As built.
            settings: Units, noise, dropped conditions, average.
            texts: The frozen text tower; it is not a part of the state.
        """
        super().__init__()
        self.denoiser = denoiser
        self.average = copy.deepcopy(denoiser).requires_grad_(False) if settings.ema else None
        self.schedule = NoiseSchedule(settings.timesteps)
        self.settings = settings
        self._texts = texts
        self._none, length = texts.ids([""])
        self._none_length = int(length)

    @property
    def answering(self) -> Denoiser:
        """The denoiser whose weights answer queries."""
        return self.denoiser if self.average is None else self.average

    def rows(
        self,
        features: FloatArray,
        references: Sequence[int],
        targets: Sequence[int],
        texts: Sequence[str],
        captions: Sequence[str],
    ) -> Batch:
        """N triplets as a batch has them.

        Args:
            features: (M, d) of the distinct images, as encoded.
            references: Row of each triplet's reference.
            targets: Row of its target.
            texts: Its text.
            captions: The caption of its target.
        """
        known = torch.from_numpy(features)
        from_rows, to_rows = torch.tensor(references).long(), torch.tensor(targets).long()
        # One more, for there may be none.
        ids, lengths = self._texts.ids(["", *texts, *captions])
        own, target = slice(1, 1 + len(texts)), slice(1 + len(texts), None)
        return {
            "references": known[from_rows],
            "targets": known[to_rows],
            "target_ids": to_rows,
            "text_ids": ids[own],
            "text_lengths": lengths[own],
            "caption_ids": ids[target],
            "caption_lengths": lengths[target],
        }

    def loss(self, batch: Batch) -> torch.Tensor:
        """Mean squared error of the predicted and the target's feature, at random times."""
        x0 = in_units(batch["targets"], self.settings.features)
        references = in_units(batch["references"], self.settings.features)
        rows, device = len(x0), x0.device
        times = torch.randint(self.schedule.steps, (rows,), device=device)
        noise = torch.randn_like(x0)
        without_image = torch.rand(rows, device=device) < self.settings.drop_image
        without_text = torch.rand(rows, device=device) < self.settings.drop_text
        by_caption = torch.rand(rows, device=device) < self.settings.captions
        text = self._read(
            torch.where(by_caption[:, None], batch["caption_ids"], batch["text_ids"]),
            torch.where(by_caption, batch["caption_lengths"], batch["text_lengths"]),
            without_text,
        )
        found = self.denoiser(
            self.schedule.noised(x0, times, noise),
            times,
            text.states,
            references.masked_fill((without_image | by_caption)[:, None], 0.0),
            text.mask,
        )
        return functional.mse_loss(found.float(), x0)

    @torch.no_grad()
    def after_step(self, step: int, total: int) -> None:
        """The average follows, fast in the first steps: its momentum is (1 + n) / (10 + n)."""
        if self.average is None:
            return
        momentum = min(self.settings.ema, (1 + step) / (10 + step))
        torch._foreach_lerp_(
            list(self.average.parameters()),
            [parameter.detach() for parameter in self.denoiser.parameters()],
            1.0 - momentum,
        )

    @torch.no_grad()
    def held_out(self, batches: Iterable[Batch]) -> dict[str, float]:
        """Recall of sampled features among the held-out targets: one draw, no guidance, since the
        best weights of guidance are another choice."""
        found, targets, ids = [], [], []
        for batch in batches:
            references = in_units(batch["references"], self.settings.features)
            rows, device = len(references), references.device
            # Together, so that texts and empty texts have one length.
            texts = self._read(
                torch.cat((batch["text_ids"],) * 2),
                torch.cat((batch["text_lengths"],) * 2),
                torch.arange(2 * rows, device=device) >= rows,
            )
            made = sampled(
                self.answering,
                self.schedule,
                references,
                texts.part(slice(rows)),
                texts.part(slice(rows, None)),
                UNGUIDED,
            )
            found.append(made.float().cpu())
            targets.append(batch["targets"].float().cpu())
            ids.append(batch["target_ids"].cpu())
        measured = recall(torch.cat(found), torch.cat(targets), torch.cat(ids))
        return {
            "score": measured.score,
            "recall_1": measured.recall_1,
            "recall_5": measured.recall_5,
        }

    def _read(self, ids: torch.Tensor, lengths: torch.Tensor, without: torch.Tensor) -> TextStates:
        """Token states of padded ids (B, L), of the empty text where `without` (B,) is true."""
        none = functional.pad(self._none, (0, ids.shape[1] - self._none.shape[1]))
        return self._texts.of_ids(
            torch.where(without[:, None], none.to(ids.device), ids),
            lengths.masked_fill(without, self._none_length),
        )


def build_training(
    encoder: OpenClipEncoder, settings: DenoiserSettings, seed: int
) -> CompoDiffTraining:
    """A new denoiser over a backbone's features, from a seed.

    Raises:
        SpliceUnsupported: The backbone's text tower is not one whose token states are known.
    """
    shape = DenoiserShape(
        dim=encoder.dim,
        text_width=encoder.tower.width,
        depth=settings.depth,
        heads=settings.heads,
        head_width=settings.head_width,
        region_side=0,
    )
    with random_stream(seed, 0, torch.device("cpu")):
        denoiser = Denoiser(shape)
    return CompoDiffTraining(denoiser, settings, BackboneStates(encoder.tower))
