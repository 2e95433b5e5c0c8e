"""The common shape of composed query encoders: (reference image, text) -> vector, image -> vector.

Shape legend: B batch, d width of the vectors that are compared.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeAlias

import torch

from models.training.batches import Batch
from models.training.contrastive import nce
from models.training.recall import recall
from models.training.trainable import Trainable

if TYPE_CHECKING:
    from models.encoders.preprocess import ImagePreprocess

Texts: TypeAlias = Mapping[str, torch.Tensor]
"""What `ComposedNetwork.tokenised` makes of texts; other entries of a batch may be among it."""


@dataclass(frozen=True)
class Frozen:
    """What no step of a training changes, so that it is computed once.

    The network takes these states wherever it takes pictures, or token ids.

    Attributes:
        images: Pictures (B, 3, H, W), normalised -> states (B, ...); None: the tower is trained.
        texts: From `tokenised` -> states of the same names, each with B rows; None: likewise.
    """

    images: Callable[[torch.Tensor], torch.Tensor] | None = None
    texts: Callable[[Texts], dict[str, torch.Tensor]] | None = None


@dataclass(frozen=True)
class RankedNegatives:
    """Images of a network's own ranking that training puts beside each target.

    Attributes:
        count: Images that are drawn for a triplet, again in each epoch.
        among: First images of the ranking that they are drawn from.
    """

    count: int
    among: int


class ComposedNetwork(Trainable):
    """A network whose query vectors are compared with its gallery vectors by the cosine.

    Attributes:
        preprocess: From pictures to pixels.
        scale: 1 / temperature of the loss.
        base: Identity of the backbone, where the network knows it: it was built on one, or loaded
            from a published file that tells.
        negatives: Where batches hold more images than their targets; its query and gallery vectors
            are then frozen.
    """

    preprocess: ImagePreprocess
    scale: float = 100.0
    base: Mapping[str, Any] = MappingProxyType({})
    negatives: RankedNegatives | None = None

    @property
    @abstractmethod
    def dim(self) -> int:
        """d."""

    @abstractmethod
    def architecture(self) -> dict[str, Any]:
        """JSON values from which `ComposedSystem.rebuild` makes the network without weights."""

    def frozen(self) -> Frozen:
        """The towers that are not trained and have no dropout; none where nothing else is said."""
        return Frozen()

    def files(self) -> Mapping[str, bytes]:
        """Further files of a published network, such as a tokenizer's, by name."""
        return {}

    @abstractmethod
    def tokenised(self, texts: Sequence[str]) -> dict[str, torch.Tensor]:
        """Texts as `query` (and `loss`) reads them, on the CPU, each entry with B rows."""

    @abstractmethod
    def query(self, pixels: torch.Tensor, texts: Texts) -> torch.Tensor:
        """Query vectors (B, d), of any length.

        Args:
            pixels: (B, 3, H, W) reference images, normalised.
            texts: From `tokenised`.
        """

    @abstractmethod
    def target(self, pixels: torch.Tensor) -> torch.Tensor:
        """Gallery vectors (B, d) of images (B, 3, H, W), of any length."""

    def loss(self, batch: Batch) -> torch.Tensor:
        """Each query chooses its target among those of the batch."""
        queries = self.query(batch["references"], batch)
        targets = self.target(batch["targets"])
        return nce(queries, targets, self.scale, batch["target_ids"])

    def held_out(self, batches: Iterable[Batch]) -> dict[str, float]:
        """Recall among all held-out targets."""
        queries, targets, ids = [], [], []
        for batch in batches:
            queries.append(self.query(batch["references"], batch).float().cpu())
            targets.append(self.target(batch["targets"]).float().cpu())
            ids.append(batch["target_ids"].cpu())
        found = recall(torch.cat(queries), torch.cat(targets), torch.cat(ids))
        return asdict(found) | {"score": found.score}
