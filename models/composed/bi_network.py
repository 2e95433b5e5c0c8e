"""Late fusion with reversed queries: BLIP4CIR+Bi on any two towers, and on a CLIP's.

    forward     q = c(v, e)    with v of the reference and e of the text marked "forward"
    reversed    q = c(v', e')  with v' of the target and e' of the text marked "backward"

c is a sum (stage one) or CLIP4CIR's combiner on frozen towers (stage two). The loss is the forward
InfoNCE plus a weight times that of `reversed_queries`; at test queries are forward ones.
Shape legend: B batch, L tokens, d joint space.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional

from models.composed.bi_settings import BiCombinerSettings, BiSumSettings
from models.composed.clip4cir_network import new_combiner
from models.composed.clip_network import ClipNetwork, bare_towers, load_towers
from models.composed.clip_towers import ClipTowers, check_towers
from models.composed.directions import marked
from models.composed.network import ComposedNetwork, Texts
from models.composed.reversed_queries import reversed_nce
from models.encoders.spec import EncoderSpec
from models.instructcir.combiner import MlpCombiner
from models.instructcir.parts import NetworkParts
from models.training.batches import Batch
from models.training.contrastive import nce
from models.training.recall import recall


class BiNetwork(ComposedNetwork):
    """Queries in both directions, by two towers that know nothing of each other."""

    settings: BiSumSettings | BiCombinerSettings
    combiner: MlpCombiner | None

    @abstractmethod
    def image_vector(self, pixels: torch.Tensor) -> torch.Tensor:
        """Pictures (B, 3, H, W) -> (B, d), not normalised."""

    @abstractmethod
    def text_vector(self, ids: torch.Tensor) -> torch.Tensor:
        """Token ids (B, L) of `ids` -> (B, d), not normalised."""

    @abstractmethod
    def ids(self, texts: Sequence[str]) -> torch.Tensor:
        """Token ids (B, L) of marked texts."""

    def tokenised(self, texts: Sequence[str]) -> dict[str, torch.Tensor]:
        """`texts` and `reversed_texts`: token ids (B, L) with their direction's marks."""
        splitting = self.settings.splitting
        return {
            "texts": self.ids([marked(text, "forward", splitting) for text in texts]),
            "reversed_texts": self.ids([marked(text, "backward", splitting) for text in texts]),
        }

    def combined(self, image: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
        """Query vectors (B, d) from vectors (B, d) of images and texts."""
        return image + text if self.combiner is None else self.combiner.combine(image, text)

    def query(self, pixels: torch.Tensor, texts: Texts) -> torch.Tensor:
        """Forward queries (B, d)."""
        return self.combined(self.image_vector(pixels), self.text_vector(texts["texts"]))

    def target(self, pixels: torch.Tensor) -> torch.Tensor:
        """The image tower's vectors (B, d)."""
        return self.image_vector(pixels)

    def loss(self, batch: Batch) -> torch.Tensor:
        """Forward queries, and reversed ones by their weight."""
        references = self.image_vector(batch["references"])
        targets = self.image_vector(batch["targets"])
        queries = self.combined(references, self.text_vector(batch["texts"]))
        loss = nce(queries, targets, self.scale, batch["target_ids"])
        weight = self.settings.reversed_weight
        if not weight:
            return loss
        read = functional.normalize(targets, dim=-1) if self.settings.unit_targets else targets
        texts = self.text_vector(batch["reversed_texts"])
        return loss + weight * reversed_nce(
            self.combined, read, texts, references, self.scale, batch["target_ids"]
        )

    def held_out(self, batches: Iterable[Batch]) -> dict[str, float]:
        """Recall of forward queries, and at 1 of reversed ones among the references."""
        kept = list(batches)
        answers = [self.target(batch["references"]).float().cpu() for batch in kept]
        queries = [
            self.combined(
                self.image_vector(batch["targets"]), self.text_vector(batch["reversed_texts"])
            )
            .float()
            .cpu()
            for batch in kept
        ]
        ids = torch.cat([batch["reference_ids"].cpu() for batch in kept])
        back = recall(torch.cat(queries), torch.cat(answers), ids)
        return {**super().held_out(kept), "reversed_recall_1": back.recall_1}


class BiOnClip(BiNetwork, ClipNetwork):
    """Both directions on the towers of a CLIP: "Bi on CLIP4CIR"."""

    def __init__(
        self,
        towers: ClipTowers,
        parts: NetworkParts,
        settings: BiSumSettings | BiCombinerSettings,
    ) -> None:
        """Build on towers; with a combiner these are frozen."""
        ClipNetwork.__init__(self, towers, parts)
        self.settings = settings
        self.scale = settings.scale
        if isinstance(settings, BiSumSettings):
            self.train_towers(image=settings.trained == "both", text=True)
            self.combiner = None
        else:
            self.train_towers(image=False, text=False)
            self.combiner = new_combiner(self.dim, settings)

    def image_vector(self, pixels: torch.Tensor) -> torch.Tensor:
        """See `BiNetwork`."""
        return self.towers.image_vector(pixels)

    def text_vector(self, ids: torch.Tensor) -> torch.Tensor:
        """See `BiNetwork`."""
        return self.towers.text_vector(ids)

    def ids(self, texts: Sequence[str]) -> torch.Tensor:
        """See `BiNetwork`."""
        return self.text_ids(texts)

    def architecture(self) -> dict[str, Any]:
        """With the settings, whose names say which stage it is."""
        return super().architecture() | {"bi": self.settings.model_dump()}


def build_sum(spec: EncoderSpec, settings: BiSumSettings, seed: int) -> BiOnClip:
    """Stage one on a backbone, fp32, on the CPU; nothing in it is random."""
    return BiOnClip(*load_towers(spec, check_towers), settings)


def build_combiner(start: BiOnClip, settings: BiCombinerSettings, seed: int) -> BiOnClip:
    """Stage two on a trained network of stage one, whose towers it takes over."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return BiOnClip(start.towers, start.parts, settings)


def rebuild_on_clip(
    architecture: Mapping[str, Any],
    folder: Path,
    settings: type[BiSumSettings] | type[BiCombinerSettings],
) -> BiOnClip:
    """A network of a trained folder, without weights."""
    return BiOnClip(*bare_towers(architecture, folder), settings(**architecture["bi"]))
