"""What one Lightning module trains, for every system: a network that knows its own loss."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from models.training.batches import Batch


@dataclass(frozen=True, slots=True)
class ParameterGroup:
    """Parameters that are trained alike.

    Attributes:
        name: `pretrained_decay`, `pretrained_no_decay`, `new_decay` or `new_no_decay`.
        new: Whether they are new layers and not the backbone's.
        decay: Whether weight decay applies.
        parameters: The parameters, in the network's order.
    """

    name: str
    new: bool
    decay: bool
    parameters: tuple[nn.Parameter, ...]


def parameter_groups(
    module: nn.Module,
    new: Callable[[str], bool],
    undecayed: frozenset[str] = frozenset(),
) -> tuple[ParameterGroup, ...]:
    """Trained parameters by learning rate (pre-trained or new) and by weight decay.

    Args:
        module: Its parameters without gradient are left out.
        new: Whether the parameter of a name is new.
        undecayed: Last parts of names that weight decay leaves alone although they have more than
            one axis. Biases, norms and other vectors never decay.
    """
    found: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            decay = parameter.ndim > 1 and name.rpartition(".")[2] not in undecayed
            found.setdefault((new(name), decay), []).append(parameter)
    return tuple(
        ParameterGroup(
            f"{'new' if is_new else 'pretrained'}_{'decay' if decay else 'no_decay'}",
            is_new,
            decay,
            tuple(found[is_new, decay]),
        )
        for is_new in (False, True)
        for decay in (True, False)
        if (is_new, decay) in found
    )


class Trainable(nn.Module, ABC):
    """A network with its loss. `loss` draws random numbers from torch's own generator alone,
    which is seeded for every step, so that a resumed run repeats an undisturbed one."""

    @abstractmethod
    def loss(self, batch: Batch) -> torch.Tensor:
        """The loss of a batch: a scalar, the mean over this process's rows."""

    @abstractmethod
    def held_out(self, batches: Iterable[Batch]) -> dict[str, float]:
        """Measures of held-out examples; by the one named `score` the best step is chosen.

        Every process of a run is given all batches.
        """

    def parameter_groups(self) -> tuple[ParameterGroup, ...]:
        """The trained parameters; all are new where a network does not say otherwise."""
        return parameter_groups(self, lambda name: True)

    def set_gradient_checkpointing(self, enabled: bool) -> None:
        """Keep only the blocks' inputs for the backward pass.

        Raises:
            ValueError: The network has no such blocks.
        """
        if enabled:
            raise ValueError(
                f"{type(self).__name__} has no blocks whose activations could be recomputed; "
                "leave training.gradient_checkpointing false"
            )

    def after_step(self, step: int, total: int) -> None:
        """Called after optimiser step `step` (from 1) of `total`: averages, bounds."""

    def step_measures(self) -> dict[str, float]:
        """Further points of the curves, by name."""
        return {}
