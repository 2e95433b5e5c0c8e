"""How the reformulation network is trained: one named value for each choice.

The paper prints the optimiser, the weight decay and a batch of 32 on eight devices. Its text leaves
most other values open; they have the defaults that the method specification recommends (section
1.5).
"""

from __future__ import annotations

from typing import Literal, TypeAlias

from pydantic import Field

from models.settings import Settings

Precision: TypeAlias = Literal["fp32", "bf16"]
Augmentation: TypeAlias = Literal["clip", "targetpad", "random_resized_crop"]
Branch: TypeAlias = Literal["online", "ema"]
Keep: TypeAlias = Literal["best", "last"]


class TrainingSettings(Settings):
    """Everything about training that changes the weights."""

    batch_size: int = Field(256, ge=2)
    """Triplets whose targets are each other's negatives, over all devices together. The paper has
    32 on each of 8 devices, and does not say whether negatives are gathered."""
    accumulate: int = Field(1, ge=1)
    """Batches whose gradients are added up for one optimiser step. It saves memory and does not
    make more negatives."""
    epochs: int = Field(10, ge=1)
    """Passes over the training triplets (not in the paper); 10 suit up to 95k triplets, 6 suit
    200k."""
    max_steps: int | None = Field(None, ge=1)
    """Optimiser steps instead of epochs, if given."""
    learning_rate: float = Field(1e-5, gt=0)
    """Highest rate of the pre-trained layers (not in the paper)."""
    new_learning_rate: float = Field(1e-4, gt=0)
    """Highest rate of cross-attention, predictor and other new layers (not in the paper)."""
    weight_decay: float = Field(0.1, ge=0)
    """AdamW's, as in the paper; biases, norms, gates and embeddings have none."""
    warmup: float = Field(0.05, ge=0, lt=1)
    """Share of the steps in which the rates rise; afterwards they follow a cosine to zero (not in
    the paper)."""
    clip: float = Field(1.0, ge=0)
    """Largest norm of the gradient (not in the paper); 0 leaves the gradient alone."""
    precision: Precision = "fp32"
    """`fp32`, or `bf16` autocast over fp32 weights, which suits GPUs (not in the paper)."""
    augmentation: Augmentation = "clip"
    """`clip` (resize and centre crop), `targetpad` (ratio 1.25) or `random_resized_crop` (0.8 to
    1.0 of the picture); not in the paper."""
    class_grouping: int = Field(0, ge=0)
    """Pairs of one meta class that stand together in a batch, so that their targets are hard
    negatives; 0 shuffles freely, as the paper does."""
    seed: int = 0
    """Of new weights, order, crops and dropout."""
    validation: int = Field(200, ge=0)
    """Triplets held out to choose the best step: the first of the sample, so that nested samples
    are judged by the same ones, and at most a tenth of all. Triplets that share an image with them
    are not trained on."""
    validate_every: int = Field(0, ge=0)
    """Steps between two validations; 0 validates once an epoch."""
    branch: Branch = "online"
    """Network whose queries are validated: the `online` weights or their moving average."""
    keep: Keep = "best"
    """Publish the step with the best validation, or the last one."""
    gradient_checkpointing: bool = False
    """Recompute activations instead of keeping them."""
    compile: bool = False
    """Run the network through `torch.compile`."""
    combiner_learning_rate: float = Field(1e-2, gt=0)
    """Of stage two (not in the paper)."""
    combiner_epochs: int = Field(1, ge=1)
    """Passes of stage two (not in the paper)."""
    saved_as: Literal["fp32", "fp16"] = "fp32"
    """Precision of the published weights."""

    def share(self, devices: int) -> int:
        """Triplets of a batch that each of so many devices takes.

        Raises:
            ValueError: They cannot take equally many.
        """
        each, rest = divmod(self.batch_size, devices)
        if rest:
            near = [str(size * devices) for size in (each, each + 1) if size]
            raise ValueError(
                f"batch_size is {self.batch_size}, which {devices} devices cannot share equally; "
                f"the nearest size is {' or '.join(near)}"
            )
        return each

    def steps_of(self, triplets: int) -> tuple[int, int]:
        """Batches in an epoch, and optimiser steps in all, for so many training triplets.

        Raises:
            ValueError: They do not fill one batch.
        """
        per_epoch = triplets // self.batch_size
        if per_epoch == 0:
            raise ValueError(
                f"{triplets} training triplets do not fill a batch of {self.batch_size}; "
                "generate more, hold fewer out (validation), or lower batch_size"
            )
        steps = self.max_steps or max(1, per_epoch * self.epochs // self.accumulate)
        return per_epoch, steps
