"""The re-ranker of candidate re-ranking on its frozen filter.

Liu et al., TMLR 2024, stage two. A score reads the text, the states of text and reference image
that the filter makes (z_t), and all tokens of a candidate. Training matches every query of a batch
with every target, or each with images of the filter's ranking.
Shape legend: Q queries, C candidates, L text tokens, N image tokens.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

import torch
from torch.nn import functional

from models.blip.candidate_filter import STATE_NAME as FILTER_NAME
from models.blip.candidate_filter import FilterNetwork, published_filter
from models.blip.settings import EarlyFusionSettings
from models.blip.shape import HEAD_WIDTH
from models.checkpoints import UnusableCheckpoint
from models.composed.candidate_rerank import FILTER_SHARE, published_files
from models.composed.network import ComposedNetwork, Frozen, RankedNegatives, Texts
from models.published_state import fill, log_taken, read_state
from models.reranking.cross_encoder import CrossEncoder, choice_loss, matching_loss
from models.training.trainable import ParameterGroup, parameter_groups

if TYPE_CHECKING:
    from models.composed.candidate_rerank import RerankSettings
    from models.training.batches import Batch

STATE_NAME: Final = "BLIP_NLVR"
"""Name of the weights in a published file."""
VALIDATED: Final = 10
"""Candidates of a held-out query that are scored: the filter's nearest."""


class RerankNetwork(ComposedNetwork):
    """A cross-encoder on a frozen filter, whose query and gallery vectors are the filter's.

    Attributes:
        filter: Stage one.
        cross: What is trained.
    """

    def __init__(self, stage_one: FilterNetwork, settings: RerankSettings) -> None:
        """Build an untrained cross-encoder of the filter's sizes; the filter is frozen."""
        super().__init__()
        self.filter = stage_one.requires_grad_(False)
        shape = stage_one.towers.shape
        if settings.dropout is not None:
            shape = replace(shape, dropout=settings.dropout)
        self.cross = CrossEncoder(shape.config)
        self.settings = settings
        if settings.negatives:
            self.negatives = RankedNegatives(settings.negatives, settings.among)

    @classmethod
    def on_filter(cls, stage_one: FilterNetwork, settings: RerankSettings, seed: int) -> Self:
        """A new cross-encoder whose two branches start as the filter's text tower."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = cls(stage_one, settings)
        network.preprocess = stage_one.preprocess
        network.cross.text_encoder.start_from(stage_one.towers.text_encoder)
        return network

    @classmethod
    def continuing(cls, start: RerankNetwork, settings: RerankSettings) -> Self:
        """Training on another cross-encoder and its filter, which are taken over."""
        network = cls(start.filter, settings)
        network.preprocess = start.preprocess
        network.cross.load_state_dict(start.cross.state_dict())
        return network

    @property
    def dim(self) -> int:
        """d of the filter."""
        return self.filter.dim

    def other_weight(self, stage_one: FilterNetwork) -> str:
        """The first weight in which another filter differs from this one's; empty: it is the same.

        Weights are compared in half precision, in which either folder may have been saved.
        """
        own, others = self.filter.state_dict(), stage_one.state_dict()
        wrong = (
            name
            for name in sorted(own.keys() | others.keys())
            if name not in own
            or name not in others
            or own[name].shape != others[name].shape
            or not torch.equal(own[name].half(), others[name].half())
        )
        return next(wrong, "")

    def architecture(self) -> dict[str, Any]:
        """The filter's, and the share of its score where there is one."""
        share = self.settings.filter_share
        return self.filter.architecture() | ({FILTER_SHARE: share} if share else {})

    def files(self) -> Mapping[str, bytes]:
        """The filter's."""
        return self.filter.files()

    def frozen(self) -> Frozen:
        """The filter's; its texts are read with dropout, again in every step."""
        return self.filter.frozen()

    def tokenised(self, texts: Sequence[str]) -> dict[str, torch.Tensor]:
        """`texts`: ids (B, L)."""
        return self.filter.tokenised(texts)

    def query(self, pixels: torch.Tensor, texts: Texts) -> torch.Tensor:
        """The filter's query vectors (B, d)."""
        return self.filter.query(pixels, texts)

    def target(self, pixels: torch.Tensor) -> torch.Tensor:
        """The filter's gallery vectors (B, d)."""
        return self.filter.target(pixels)

    def image_tokens(self, pixels: torch.Tensor) -> torch.Tensor:
        """All tokens (B, N, W) of pictures, as filter and cross-encoder read them."""
        return self.filter.towers.image_tokens(pixels)

    def fused(self, references: torch.Tensor, texts: Texts) -> torch.Tensor:
        """z_t (Q, L, T): the filter's states of texts over tokens of their references."""
        return self.filter.states(references, texts["texts"])

    def scores(self, fused: torch.Tensor, texts: Texts, images: torch.Tensor) -> torch.Tensor:
        """Scores (Q, C) of candidates by their tokens (C, N, W) or (Q, C, N, W).

        See `CrossEncoder`.
        """
        return self._scores(fused, texts, images, self.settings.filter_share)

    def _scores(
        self, fused: torch.Tensor, texts: Texts, images: torch.Tensor, share: float
    ) -> torch.Tensor:
        ids = texts["texts"]
        scores: torch.Tensor = self.cross(fused, ids, ids != self.filter.pad, images)
        return scores + share * self.filter_scores(fused, images) if share else scores

    def filter_scores(self, fused: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
        """The filter's own scores (Q, C) of the same: cosines over its temperature, in fp32."""
        towers = self.filter.towers
        queries = functional.normalize(towers.text_proj(fused[:, 0]).float(), dim=-1)
        gallery = functional.normalize(towers.vision_proj(images[..., 0, :]).float(), dim=-1)
        cosines = (queries[:, None] * gallery).sum(-1)
        return cosines * self.filter.log_scale.exp()

    def loss(self, batch: Batch) -> torch.Tensor:
        """Each query chooses its target, among all of this process or its own negatives.

        The filter's dropout is on, as in the published training, where `filter_dropout` is.
        """
        share = self.settings.filter_share if self.settings.filter_in_loss else 0.0
        with torch.no_grad():
            fused = self.fused(self.image_tokens(batch["references"]), batch)
            targets = self.image_tokens(batch["targets"])
            others = batch.get("negatives")
            if others is not None:
                beside = self.image_tokens(others).unflatten(0, (len(targets), -1))
        if others is not None:
            lists = torch.cat([targets[:, None], beside], dim=1)
            return choice_loss(self._scores(fused, batch, lists, share))
        scores = self._scores(fused, batch, targets, share)
        return matching_loss(scores, batch["target_ids"] if self.settings.mask_repeats else None)

    def held_out(self, batches: Iterable[Batch]) -> dict[str, float]:
        """Recall among held-out targets: the filter's, and with its nearest ordered again.

        `score` is recall at 1 after re-ranking. A query whose target the filter does not find
        among its nearest counts as a miss.
        """
        queries, targets, ids, read = [], [], [], []
        for batch in batches:
            references = self.image_tokens(batch["references"])
            tokens = self.image_tokens(batch["targets"])
            queries.append(self.filter.fused(references, batch["texts"]).float())
            targets.append(self.filter.towers.image_vector(tokens).float())
            ids += batch["target_ids"].tolist()
            fused = self.fused(references, batch)
            read += [
                (fused[row : row + 1], batch["texts"][row : row + 1], tokens[row])
                for row in range(len(tokens))
            ]
        first = {target: row for row, target in reversed(list(enumerate(ids)))}
        rows = torch.tensor(list(first.values()), device=queries[0].device)
        gallery = functional.normalize(torch.cat(targets)[rows], dim=-1)
        similarity = functional.normalize(torch.cat(queries), dim=-1) @ gallery.T
        nearest = rows[similarity.topk(min(VALIDATED, len(rows))).indices].tolist()
        own = [first[target] for target in ids]
        best = []
        for (fused, texts, _), found in zip(read, nearest, strict=True):
            images = torch.stack([read[row][2] for row in found])
            best.append(found[int(self.scores(fused, {"texts": texts}, images).argmax())])

        def share(right: Iterable[bool]) -> float:
            return sum(right) / len(ids)

        recall = share(row == each for row, each in zip(own, best, strict=True))
        return {
            "recall_1": recall,
            "filter_recall_1": share(
                row == each[0] for row, each in zip(own, nearest, strict=True)
            ),
            "filter_recall_10": share(row in each for row, each in zip(own, nearest, strict=True)),
            "score": recall,
        }

    def train(self, mode: bool = True) -> Self:
        """The filter's dropout follows, unless the settings leave it off."""
        super().train(mode)
        if not self.settings.filter_dropout:
            self.filter.eval()
        return self

    def parameter_groups(self) -> tuple[ParameterGroup, ...]:
        """Head and merge layers are new; the branches are copies of the filter's text tower."""
        return parameter_groups(
            self, lambda name: name.startswith("cross.cls_head.") or ".merge_layer." in name
        )


def published_rerank(
    folder: Path, settings: RerankSettings, head_width: int = HEAD_WIDTH
) -> RerankNetwork:
    """Both stages of published files in one folder.

    Args:
        folder: Holds `stage1*.pt` (a dict with `BLIP_Retrieval`), `stage2*.pt` (a dict with
            `BLIP_NLVR`) and `vocab.txt`.
        settings: Of the training alone.
        head_width: Width of a head, which no shape tells; 64 in every published file.

    Raises:
        UnusableCheckpoint: A file or a tensor is missing, unknown or of another shape, or the two
            stages look at images with different towers.
    """
    first, second = published_files(folder)
    stage_one = published_filter(first, EarlyFusionSettings(), head_width)
    network = RerankNetwork(stage_one, settings)
    network.preprocess = stage_one.preprocess
    state = read_state(second, STATE_NAME)
    own = {name: each for name, each in state.items() if not name.startswith("visual_encoder.")}
    unused = "text_encoder.embeddings.position_ids"
    fill(network.cross, {n: each for n, each in own.items() if n != unused}, second)
    _same_tower(read_state(first, FILTER_NAME), state, second)
    log_taken(second, own.keys() - {unused}, state.keys() - own.keys() | {unused} & state.keys())
    return network


def _same_tower(
    first: Mapping[str, torch.Tensor], second: Mapping[str, torch.Tensor], where: Path
) -> None:
    """Both stages freeze one image tower; another one in the second file is refused."""
    towers = [
        {name: each for name, each in state.items() if name.startswith("visual_encoder.")}
        for state in (first, second)
    ]
    wrong = sorted(
        name
        for name in towers[0].keys() | towers[1].keys()
        if name not in towers[0]
        or name not in towers[1]
        or not torch.allclose(towers[0][name].float(), towers[1][name].float(), atol=1e-5)
    )
    if wrong:
        raise UnusableCheckpoint(
            f"{where} has another image tower than its filter, first {wrong[0]}; give the two "
            "files of one training"
        )
