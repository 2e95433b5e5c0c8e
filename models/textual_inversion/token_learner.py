"""What all trainings of pseudo tokens share: the frozen text tower that reads them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from models.training.trainable import Trainable

if TYPE_CHECKING:
    import torch

    from models.encoders.text_tower import TextTower


class TokenLearner(Trainable):
    """A network whose tokens a frozen text tower reads; it is neither trained nor saved."""

    def __init__(self, tower: TextTower) -> None:
        """Freeze the text tower of a backbone, in fp32."""
        super().__init__()
        # In a tuple: a submodule would be moved, counted and saved as a part of the network.
        self._frozen = (tower.eval().requires_grad_(False),)

    def tower(self, near: torch.Tensor) -> TextTower:
        """The text tower, on the device of a tensor."""
        (tower,) = self._frozen
        if tower.positional.device != near.device:
            tower.to(near.device)
        return tower
