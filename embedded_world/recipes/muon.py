"""The optimiser of the matrices of language models, next to AdamW for all else."""

from collections.abc import Mapping, Sequence
from typing import Final

import torch
from torch import nn

MOST_NORM: Final = 1.0
WEIGHT_DECAY: Final = 0.02


class Muon:
    """Momentum orthogonalised by a Newton-Schulz iteration, for matrices (Jordan et al. 2024).

    A float32 re-implementation: torch's own iterates in bfloat16, which is slow on CPUs without
    it. Matrices of one shape (up to transposition) are stacked.
    """

    def __init__(self, matrices: Sequence[nn.Parameter], momentum: float = 0.95) -> None:
        self.momentum = momentum
        self.groups: dict[tuple[int, ...], list[nn.Parameter]] = {}
        for matrix in matrices:
            self.groups.setdefault(tuple(sorted(matrix.shape)), []).append(matrix)
        self.buffers = {s: torch.zeros(len(group), *s) for s, group in self.groups.items()}

    @torch.no_grad()
    def step(self, lr: float, weight_decay: float) -> None:
        """Update the matrices from their gradients."""
        for shape, group in self.groups.items():
            flips = [tuple(p.shape) != shape for p in group]
            gradients = [p.grad for p in group if p.grad is not None]
            g = torch.stack([x.T if f else x for x, f in zip(gradients, flips, strict=True)])
            buffer = self.buffers[shape].lerp_(g, 1 - self.momentum)
            x = torch.lerp(g, buffer, self.momentum)
            x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
            for _ in range(5):
                a = x @ x.mT
                x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
            size = lr * 0.2 * max(shape) ** 0.5
            for p, update, flip in zip(group, x, flips, strict=True):
                p.mul_(1 - lr * weight_decay).add_(update.T if flip else update, alpha=-size)


def take_step(
    losses: Mapping[str, torch.Tensor],
    trained: Sequence[nn.Parameter],
    adam: torch.optim.Optimizer,
    muon: Muon,
    rate: float,
) -> None:
    """One step of a verifier on the sum of its losses, gradients clipped to a norm of one.

    Args:
        losses: Scalars, already weighted.
        trained: All parameters; their gradients are dropped afterwards.
        adam: Of those that are not matrices.
        muon: Of the matrices.
        rate: Learning rate of both.
    """
    torch.stack(list(losses.values())).sum().backward()
    nn.utils.clip_grad_norm_(trained, MOST_NORM)
    for group in adam.param_groups:
        group["lr"] = rate
    adam.step()
    muon.step(rate, WEIGHT_DECAY)
    for parameter in trained:
        parameter.grad = None
