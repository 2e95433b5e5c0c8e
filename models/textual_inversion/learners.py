"""Mapping networks in training on image features: Pic2Word and SEARLE.

The text tower is frozen: it is neither trained nor kept with the state.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch.nn import functional

from models.protocols import SplicedText
from models.textual_inversion.concepts import spliced_phrase
from models.textual_inversion.losses import cosine_distances, simclr
from models.textual_inversion.mapping_files import MappingShape
from models.textual_inversion.network import MappingNetwork, new_module
from models.textual_inversion.oti import encoded
from models.textual_inversion.token_learner import TokenLearner
from models.training.contrastive import nce
from models.training.recall import recall
from models.training.trainable import ParameterGroup

if TYPE_CHECKING:
    from models.encoders.text_tokens import TokenRow
    from models.encoders.text_tower import TextTower
    from models.textual_inversion.learner_settings import Pic2WordSettings, SearleSettings
    from models.training.batches import Batch

SENTENCE = SplicedText("a photo of")
"""Pic2Word's sentence: the token follows the words, and the end-of-text token follows it."""


class MappingLearner(TokenLearner):
    """A mapping network and the frozen text tower that reads its tokens.

    Attributes:
        shape: Architecture of the network.
        module: What is trained.
    """

    def __init__(self, shape: MappingShape, tower: TextTower, seed: int) -> None:
        """An untrained network from a seed.

        Args:
            shape: Its architecture.
            tower: Text tower of the backbone, in fp32.
            seed: Of its weights.
        """
        super().__init__(tower)
        self.shape = shape
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.module = new_module(shape)

    def network(self) -> MappingNetwork:
        """The network as it is now, a copy in evaluation mode."""
        module = new_module(self.shape)
        module.load_state_dict({k: v.detach().cpu() for k, v in self.module.state_dict().items()})
        return MappingNetwork(self.shape, module.eval().requires_grad_(False))


class Pic2WordLearner(MappingLearner):
    """Symmetric InfoNCE between a sentence with an image's token and the image.

    L = (NCE(t, v, s) + NCE(v, t, s)) / 2 with t = f_t("a photo of" token), v the image feature that
    the token is mapped from and s the backbone's own scale.
    """

    def __init__(
        self,
        tower: TextTower,
        dim: int,
        scale: float,
        settings: Pic2WordSettings,
        seed: int,
    ) -> None:
        """A new network.

        Args:
            tower: Text tower of the backbone.
            dim: d, width of image features.
            scale: s, the backbone's logit scale.
            settings: Of the network.
            seed: Of its weights.
        """
        shape = MappingShape("img2text", dim, settings.hidden, tower.width, settings.dropout)
        super().__init__(shape, tower, seed)
        self._scale = scale

    def loss(self, batch: Batch) -> torch.Tensor:
        """Of `features` (B, d)."""
        images = batch["features"]
        texts = self.texts(images)
        return 0.5 * (nce(texts, images, self._scale) + nce(images, texts, self._scale))

    def texts(self, images: torch.Tensor) -> torch.Tensor:
        """Features (B, d) of the sentence with the images' tokens."""
        tower = self.tower(images)
        row = tower.tokens.spliced_row(SENTENCE)
        return encoded(tower, [row] * len(images), self.module(images))

    def held_out(self, batches: Iterable[Batch]) -> dict[str, float]:
        """How well sentences find their images among the held-out ones."""
        images = torch.cat([batch["features"] for batch in batches])
        return _found(self.texts(images), images)


class SearleLearner(MappingLearner):
    """SimCLR between optimised and mapped tokens, and phrases with a mapped token.

    L = w_d SimCLR(OTI token, phi token) + w_p (1 - cos(f_t(phrase with token), f_t(phrase))), the
    phrase about one of the image's nearest concepts.
    """

    def __init__(
        self,
        tower: TextTower,
        dim: int,
        concepts: Sequence[str],
        phrases: Mapping[str, Sequence[str]],
        settings: SearleSettings,
        seed: int,
    ) -> None:
        """A new network.

        Args:
            tower: Text tower of the backbone.
            dim: d, width of image features.
            concepts: Names, by the numbers that batches hold.
            phrases: Phrases of each; none may be empty.
            settings: Of the network and the loss.
            seed: Of its weights.
        """
        super().__init__(MappingShape.phi(dim, tower.width, settings.dropout), tower, seed)
        self.settings = settings
        self._concepts = concepts
        self._phrases = phrases

    def loss(self, batch: Batch) -> torch.Tensor:
        """Of `features` (B, d), optimised `tokens` (B, dt) and nearest `concepts` (B, K)."""
        mapped = self.module(batch["features"])
        settings = self.settings
        loss = settings.distil_weight * simclr(batch["tokens"], mapped, settings.temperature)
        if not settings.phrase_weight:
            return loss
        tower = self.tower(mapped)
        whole, spliced = self.drawn(batch["concepts"], tower)
        with torch.no_grad():
            wanted = encoded(tower, whole, mapped)
        distances = cosine_distances(encoded(tower, spliced, mapped), wanted)
        return loss + settings.phrase_weight * distances.mean()

    def drawn(
        self, concepts: torch.Tensor, tower: TextTower
    ) -> tuple[list[TokenRow], list[TokenRow]]:
        """For each row a phrase about one of its concepts (B, K), whole and with a hole."""
        places = torch.randint(concepts.shape[1], (len(concepts), 1))
        names = [self._concepts[i] for i in concepts.cpu().gather(1, places)[:, 0].tolist()]
        whole, spliced = [], []
        for name, share in zip(names, torch.rand(len(names)).tolist(), strict=True):
            own = self._phrases[name]
            phrase = own[int(share * len(own))]
            whole.append(tower.tokens.row(phrase))
            text = spliced_phrase(phrase, name, self.settings.replace)
            spliced.append(tower.tokens.spliced_row(text))
        return whole, spliced

    def held_out(self, batches: Iterable[Batch]) -> dict[str, float]:
        """How well mapped tokens find the optimised ones of their images."""
        held = list(batches)
        features = torch.cat([batch["features"] for batch in held])
        return _found(self.module(features), torch.cat([batch["tokens"] for batch in held]))

    def parameter_groups(self) -> tuple[ParameterGroup, ...]:
        """All weights decay, biases too."""
        return (ParameterGroup("new_decay", True, True, tuple(self.module.parameters())),)


def _found(queries: torch.Tensor, targets: torch.Tensor) -> dict[str, float]:
    queries, targets = queries.detach().float().cpu(), targets.float().cpu()
    found = recall(queries, targets, torch.arange(len(targets)))
    cosine = functional.cosine_similarity(queries, targets, dim=-1).mean()
    return {
        "score": found.score,
        "recall_1": found.recall_1,
        "recall_5": found.recall_5,
        "cosine": float(cosine),
    }
