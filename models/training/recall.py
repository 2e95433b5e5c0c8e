"""How well queries find their targets among all targets of a held-out set."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn import functional


@dataclass(frozen=True, slots=True)
class Recall:
    """Shares of queries, between 0 and 1.

    Attributes:
        recall_1: Of queries that rank their target first.
        recall_5: Of queries that rank it among the first five.
    """

    recall_1: float
    recall_5: float

    @property
    def score(self) -> float:
        """The mean of both, by which the steps of a training are compared."""
        return (self.recall_1 + self.recall_5) / 2


def recall(queries: torch.Tensor, targets: torch.Tensor, target_ids: torch.Tensor) -> Recall:
    """Recall among distinct targets; equally similar images rank before the target.

    Args:
        queries: (N, d).
        targets: (N, d) the target of each query; equal images have equal embeddings.
        target_ids: (N,) equal where targets are the same image.
    """
    distinct, place = torch.unique(target_ids, return_inverse=True)
    first = torch.full((len(distinct),), len(target_ids), dtype=torch.long)
    first.scatter_reduce_(0, place, torch.arange(len(place)), reduce="amin")
    gallery = functional.normalize(targets.float()[first], dim=-1)
    similarity = functional.normalize(queries.float(), dim=-1) @ gallery.T
    own = similarity.gather(1, place[:, None])
    better = (similarity >= own).sum(dim=1) - 1
    return Recall(
        recall_1=float((better < 1).float().mean()), recall_5=float((better < 5).float().mean())
    )
