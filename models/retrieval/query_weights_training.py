"""Train a gate: weights for each query that rank the targets of generated triplets high.

The listwise loss is the cross entropy of a query's target among the images that any part finds:

    -log exp(s_target / T) / sum_pool exp(s / T),    s = sum_a w_a(q) s_a,

plus a ridge penalty on B and on the way of b from the best fixed weights, so that a strong penalty
leaves these. The penalty is the one that ranks held-out triplets best.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from models.retrieval.gallery import Gallery
from models.retrieval.gate import Floats, Gate
from models.retrieval.gate_settings import GateTraining
from models.retrieval.query_weights import (
    Parts,
    same_for_all,
    search_parts,
    shuffled,
    signals,
    weight_grid,
)
from models.retrieval.search import Ints

LEAST_WEIGHT: Final = 0.01
"""A fixed weight of 0 starts here: a softmax cannot begin at 0."""
POOL: Final = 50
"""Images of each part's ranking that a target is ranked among."""


@dataclass(frozen=True)
class Examples:
    """Queries whose target is known: their signals, and what the parts think of a pool of images.

    Attributes:
        found: Signal -> (Q,).
        scores: (Q, P, A) cosines of each part with the pool; the target stands first.
        padding: (Q, P) where a place of the pool is empty.
    """

    found: Mapping[str, Floats]
    scores: npt.NDArray[np.float32]
    padding: npt.NDArray[np.bool_]

    def ranks(self, weights: Floats) -> npt.NDArray[np.int64]:
        """(Q,) 1-based rank of the target in its pool under (Q, A) weights; ties count against."""
        fused = np.einsum("qpa,qa->qp", self.scores, weights)
        above = (fused[:, 1:] >= fused[:, :1]) & ~self.padding[:, 1:]
        return np.asarray(1 + above.sum(axis=1))


def examples_of(
    parts: Parts,
    images: Gallery,
    references: Sequence[int] | Ints,
    targets: Sequence[int] | Ints,
    keep_reference: bool,
) -> Examples:
    """Examples from queries of a gallery.

    Args:
        parts: Of Q queries.
        images: The gallery.
        references: (Q,) gallery index of each reference.
        targets: (Q,) gallery index of each target.
        keep_reference: Whether the reference itself stays among the images that are ranked.
    """
    own, wanted = np.asarray(references, np.int64), np.asarray(targets, np.int64)
    searched = search_parts(parts, images, own, POOL)
    extra = own[:, None] if keep_reference else np.full((len(own), 1), -1)
    pool = np.concatenate([wanted[:, None], extra, *searched.indices], axis=1)
    padding = _repeated(pool) | (pool < 0)
    held = images[:]  # the pools of all queries together would not fit in memory
    rows = [held[np.maximum(row, 0)] @ parts.vectors[:, q].T for q, row in enumerate(pool)]
    scores = np.stack(rows).astype(np.float32)
    return Examples(signals(parts, searched), scores, padding)


def joined_examples(groups: Sequence[Examples]) -> Examples:
    """Examples of several galleries as one; narrower pools are padded."""
    width = max(each.padding.shape[1] for each in groups)

    def padded(values: npt.NDArray[Any], fill: float) -> npt.NDArray[Any]:
        room = [(0, 0)] * values.ndim
        room[1] = (0, width - values.shape[1])
        return np.pad(values, room, constant_values=fill)

    names = groups[0].found
    return Examples(
        {name: np.concatenate([each.found[name] for each in groups]) for name in names},
        np.concatenate([padded(each.scores, 0) for each in groups]),
        np.concatenate([padded(each.padding, True) for each in groups]),
    )


@dataclass(frozen=True)
class Trained:
    """A gate and what was measured on the held-out triplets.

    Attributes:
        gate: The gate.
        penalty: The ridge penalty that was chosen.
        measures: `fixed`, `gate`, `shuffled`, `oracle` -> measure -> percent.
    """

    gate: Gate
    penalty: float
    measures: Mapping[str, Mapping[str, float]]


def train_gate(
    names: tuple[str, ...], training: Examples, held_out: Examples, settings: GateTraining
) -> Trained:
    """Train with each penalty; keep the gate that ranks the held-out targets best.

    Args:
        names: The parts.
        training: What is learned from.
        held_out: Chooses the penalty.
        settings: See `GateTraining`.
    """
    grid = weight_grid(len(names), settings.step)
    fixed = best_fixed(training, grid)
    keys = tuple(training.found)
    values = np.stack([training.found[key] for key in keys], axis=1)
    spread = values.std(axis=0)
    scale = np.where(spread > 1e-9, spread, 1.0)
    start = np.log(np.maximum(fixed, LEAST_WEIGHT))
    zero = np.zeros((len(names), len(keys)))
    plain = Gate(names, keys, values.mean(axis=0), scale, start, zero, fixed)
    best: tuple[float, float, Gate] | None = None
    for penalty in settings.penalties:
        gate = _fitted(plain, training, penalty, settings)
        value = reciprocal_rank(held_out.ranks(gate.weights(held_out.found)))
        if best is None or value > best[0]:
            best = value, penalty, gate
    assert best is not None
    _, penalty, gate = best
    return Trained(gate, penalty, _measured(gate, held_out, grid))


def best_fixed(examples: Examples, grid: Floats) -> Floats:
    """(A,) the weights of a (W, A) grid under which targets rank best on the whole."""
    values = [reciprocal_rank(examples.ranks(same_for_all(row, examples.scores))) for row in grid]
    return np.asarray(grid[int(np.argmax(values))])


def reciprocal_rank(ranks: npt.NDArray[np.int64]) -> float:
    """Mean of 1 / rank."""
    return float((1.0 / ranks).mean())


def _fitted(plain: Gate, examples: Examples, penalty: float, settings: GateTraining) -> Gate:
    import torch

    signal = torch.from_numpy(plain.standardised(examples.found))
    scores = torch.from_numpy(examples.scores).double() / settings.temperature
    padding = torch.from_numpy(examples.padding)
    bias = torch.from_numpy(plain.bias.copy()).requires_grad_()
    matrix = torch.from_numpy(plain.matrix.copy()).requires_grad_()
    start = torch.from_numpy(plain.bias)
    # PyTorch types L-BFGS's constructor only.
    search: Any = torch.optim.LBFGS(
        [bias, matrix], max_iter=settings.iterations, line_search_fn="strong_wolfe"
    )

    def loss() -> torch.Tensor:
        search.zero_grad()
        weights = torch.softmax(bias + signal @ matrix.T, dim=1)
        fused = torch.einsum("qpa,qa->qp", scores, weights)
        fused = fused.masked_fill(padding, -torch.inf)
        moved = matrix.square().sum() + (bias - start).square().sum()
        value = (fused.logsumexp(1) - fused[:, 0]).mean() + penalty * moved
        value.backward()
        return value

    search.step(loss)
    return Gate(
        plain.parts,
        plain.signals,
        plain.mean,
        plain.scale,
        bias.detach().numpy(),
        matrix.detach().numpy(),
        plain.fixed,
    )


def _measured(gate: Gate, held_out: Examples, grid: Floats) -> dict[str, dict[str, float]]:
    weights = gate.weights(held_out.found)
    tried = np.stack([held_out.ranks(same_for_all(row, held_out.scores)) for row in grid])
    ranks = {
        "fixed": held_out.ranks(same_for_all(gate.fixed, held_out.scores)),
        "gate": held_out.ranks(weights),
        "shuffled": held_out.ranks(shuffled(weights)),
        "oracle": tried.min(axis=0),
    }
    return {
        name: {
            "recall@1": round(100 * float((own == 1).mean()), 2),
            "recall@10": round(100 * float((own <= 10).mean()), 2),
            "mean reciprocal rank": round(100 * reciprocal_rank(own), 2),
        }
        for name, own in ranks.items()
    }


def _repeated(pool: Ints) -> npt.NDArray[np.bool_]:
    """(Q, P) where an image stood before in its row."""
    order = np.argsort(pool, axis=1, kind="stable")
    ordered = np.take_along_axis(pool, order, axis=1)
    again = np.zeros(pool.shape, bool)
    again[:, 1:] = ordered[:, 1:] == ordered[:, :-1]
    found = np.empty_like(again)
    np.put_along_axis(found, order, again, axis=1)
    return found
