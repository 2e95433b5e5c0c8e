"""PALAVRA-style set-encoder inversion (Cohen et al., ECCV 2022), from its description.

A set of S images (or of texts, brought into the space of images) becomes one token:

    h_0 = unit rows,   h = ELU(G h - L mean_S(h)) three times, G with a bias and L without,
    token = W_2 ELU(W_1 drop(mean_S(h_3)))

An alignment A(x) = W x + b + x maps text features into image-feature space. In use the token is
then refined on its own; see `refined`.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from models.protocols import SplicedText
from models.textual_inversion.losses import simclr
from models.textual_inversion.oti import encoded
from models.textual_inversion.templates import TEMPLATES, filled
from models.textual_inversion.token_learner import TokenLearner
from models.training.recall import recall
from models.training.trainable import ParameterGroup

if TYPE_CHECKING:
    from models.encoders.text_tower import TextTower
    from models.protocols import FloatArray
    from models.textual_inversion.learner_settings import PalavraSettings
    from models.textual_inversion.refining import RefiningSettings
    from models.training.batches import Batch

LAYERS = 3


class SetLayer(nn.Module):
    """ELU(G x - L mean_S(x)): the order of a set's members permutes its output alike."""

    def __init__(self, width_in: int, width: int) -> None:
        super().__init__()
        self.own = nn.Linear(width_in, width)
        self.mean = nn.Linear(width_in, width, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, S, width_in) -> (B, S, width)."""
        return functional.elu(self.own(x) - self.mean(x.mean(dim=1, keepdim=True)))


class SetEncoder(nn.Module):
    """From sets of features to tokens."""

    def __init__(self, dim: int, hidden: int, width: int, dropout: float) -> None:
        """Take the widths of features d, hidden layers D and tokens dt."""
        super().__init__()
        widths = (dim, *[hidden] * LAYERS)
        self.layers = nn.Sequential(*(SetLayer(a, b) for a, b in itertools.pairwise(widths)))
        self.head = nn.Sequential(
            nn.Dropout(dropout), nn.Linear(hidden, hidden), nn.ELU(),
            nn.Dropout(dropout), nn.Linear(hidden, width),
        )  # fmt: skip

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Sets of features (B, S, d), normalised here -> tokens (B, dt)."""
        rows = functional.normalize(features, dim=-1)
        return self.head(self.layers(rows).mean(dim=1))


class Alignment(nn.Module):
    """A(x) = W x + b + x, from text features (B, d) into the space of image features."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.shift = nn.Linear(dim, dim)
        nn.init.zeros_(self.shift.weight)
        nn.init.zeros_(self.shift.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(..., d) -> (..., d)."""
        return self.shift(x) + x


class PalavraNetwork(nn.Module):
    """Set encoder and alignment.

    Attributes:
        dim: d, width of features.
        hidden: D, width of the hidden layers.
        width: dt, width of tokens.
    """

    def __init__(self, dim: int, hidden: int, width: int, dropout: float = 0.25) -> None:
        super().__init__()
        self.dim, self.hidden, self.width = dim, hidden, width
        self.encoder = SetEncoder(dim, hidden, width, dropout)
        self.alignment = Alignment(dim)


class PalavraLearner(TokenLearner):
    """Set encoder and alignment in training; rows are concepts.

        L = SimCLR(f_t(sentence with name), f_t(sentence with token), tau)
            + w dt MSE(n(token), n(embedding of the name's first word piece))
            + MSE(n(A(f_t(caption))), n(f_v(image)))

    The last term alone trains the alignment. One half of a batch are sets of images, the other sets
    of phrases through the alignment.

    Attributes:
        network: What is trained.
    """

    def __init__(
        self,
        tower: TextTower,
        dim: int,
        concepts: Sequence[str],
        settings: PalavraSettings,
        seed: int,
    ) -> None:
        """A new network.

        Args:
            tower: Text tower of the backbone, in fp32.
            dim: d, width of features.
            concepts: Names, by the numbers that batches hold.
            settings: Of the network and the loss.
            seed: Of its weights.
        """
        super().__init__(tower)
        self.settings = settings
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.network = PalavraNetwork(dim, settings.hidden, tower.width, settings.dropout)
        self._names = concepts

    def loss(self, batch: Batch) -> torch.Tensor:
        """Of `images`, `captions` (B, M, d), `texts` (B, P, d) and the numbers `concepts` (B,)."""
        images, captions = drawn_alike(self.settings.set_size, batch["images"], batch["captions"])
        (texts,) = drawn_alike(self.settings.set_size, batch["texts"])
        aligned = self.network.alignment(captions)
        of_texts = torch.arange(len(images), device=images.device) >= (len(images) + 1) // 2
        with torch.no_grad():
            texts = self.network.alignment(texts)
        sets = torch.where(of_texts[:, None, None], texts, images)
        tokens = self.network.encoder(sets)
        names = [self._names[number] for number in batch["concepts"].tolist()]
        templates = torch.randint(len(TEMPLATES), (len(names),)).tolist()
        sentences = [TEMPLATES[number] for number in templates]
        distance = functional.mse_loss(
            functional.normalize(aligned, dim=-1), functional.normalize(images, dim=-1)
        )
        return self.of_tokens(tokens, names, sentences) + distance

    def of_tokens(
        self, tokens: torch.Tensor, names: Sequence[str], sentences: Sequence[SplicedText]
    ) -> torch.Tensor:
        """The loss of tokens (B, dt) that stand for names, each in a sentence."""
        tower, settings = self.tower(tokens), self.settings
        both = list(zip(sentences, names, strict=True))
        with torch.no_grad():
            rows = [tower.tokens.row(filled(sentence, name)) for sentence, name in both]
            named = encoded(tower, rows, tokens)
            # A name that the tokenizer takes for nothing is read as the end of the text.
            first = torch.tensor([(tower.tokens.ids(n) or [tower.tokens.end])[0] for n in names])
            pieces = tower.embedding(first.to(tokens.device)).float()
        spliced = encoded(tower, [tower.tokens.spliced_row(each) for each in sentences], tokens)
        distance = functional.mse_loss(
            functional.normalize(tokens, dim=-1), functional.normalize(pieces, dim=-1)
        )
        contrast = simclr(named, spliced, settings.temperature)
        return contrast + settings.name_weight * tokens.shape[1] * distance

    def held_out(self, batches: Iterable[Batch]) -> dict[str, float]:
        """How well tokens of held-out concepts' images find the concepts' names."""
        tokens, named = [], []
        for batch in batches:
            sets = batch["images"][:, : self.settings.set_size]
            own = self.network.encoder(sets)
            tower = self.tower(own)
            names = [self._names[number] for number in batch["concepts"].tolist()]
            rows = [tower.tokens.row(filled(TEMPLATES[0], name)) for name in names]
            named.append(encoded(tower, rows, own).float().cpu())
            alone = [tower.tokens.spliced_row(TEMPLATES[0])] * len(names)
            tokens.append(encoded(tower, alone, own).float().cpu())
        queries, targets = torch.cat(tokens), torch.cat(named)
        found = recall(queries, targets, torch.arange(len(targets)))
        return {"score": found.score, "recall_1": found.recall_1, "recall_5": found.recall_5}

    def parameter_groups(self) -> tuple[ParameterGroup, ...]:
        """All weights alike; the published rate has no decay."""
        return (ParameterGroup("new_decay", True, True, tuple(self.network.parameters())),)


def drawn_alike(count: int, *members: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """The same `count` members of each row, drawn with replacement: (B, M, d) -> (B, count, d)."""
    rows, size = members[0].shape[:2]
    places = torch.randint(size, (rows, count, 1)).to(members[0].device)
    return tuple(own.gather(1, places.expand(-1, -1, own.shape[2])) for own in members)


def image_tokens(
    network: PalavraNetwork, tower: TextTower, features: FloatArray, settings: RefiningSettings
) -> FloatArray:
    """Refined tokens (B, dt) of images (B, d), each a set of its own."""
    if not len(features):
        return np.zeros((0, network.width), np.float32)
    tower = tower.eval().requires_grad_(False)
    device = tower.positional.device
    network = network.to(device).eval()
    images = torch.from_numpy(np.ascontiguousarray(features, np.float32)).to(device)
    with torch.no_grad():
        tokens = network.encoder(images[:, None])
    return refined(network, tower, tokens, images, settings).cpu().numpy()


def refined(
    network: PalavraNetwork,
    tower: TextTower,
    tokens: torch.Tensor,
    images: torch.Tensor,
    settings: RefiningSettings,
) -> torch.Tensor:
    """Tokens after Adam steps on themselves, each towards its images and away from a coarse name.

    For each concept, over the four vectors of two pairs, a positive pair being one column:

        L = SimCLR([ mean image feature, A(f_t(coarse)) ], [ f_t(token alone), f_t(coarse) ])

    Args:
        network: Trained.
        tower: Frozen text tower.
        tokens: (B, dt).
        images: (B, d) mean image feature of each concept's set.
        settings: Steps, rate, temperature and the coarse name.
    """
    alone = [tower.tokens.spliced_row(SplicedText(""))] * len(tokens)
    device = tokens.device
    with torch.no_grad():
        row = tower.tokens.row(settings.coarse)
        name = torch.from_numpy(tower.encode_rows([row])).to(device)
        aligned = network.alignment(name)
    own = tokens.detach().clone().requires_grad_(True)
    optimizer = torch.optim.Adam([own], lr=settings.learning_rate)
    for _ in range(settings.steps):
        sentences = encoded(tower, alone, own)
        losses = [
            simclr(
                torch.cat([image[None], aligned]),
                torch.cat([sentence[None], name]),
                settings.temperature,
            )
            for image, sentence in zip(images, sentences, strict=True)
        ]
        optimizer.zero_grad(set_to_none=True)
        torch.stack(losses).sum().backward()
        optimizer.step()
    return own.detach()
