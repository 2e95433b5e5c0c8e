"""How the reformulation network is trained: one named value for each choice.

The paper prints the optimiser, the weight decay and a batch of 32 on eight devices; most other
values are gaps of its text (tagged OPEN in the method specification, section 1.5) with the
default that the specification recommends.
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
    """Triplets whose targets are each other's negatives, over all devices together. 256 is the
    paper's 32 on each of 8 devices with gathered negatives; the paper does not say whether its 32
    is per device. [P / R]"""
    accumulate: int = Field(1, ge=1)
    """Batches whose gradients are added up for one optimiser step. It saves memory but does not
    make more negatives."""
    epochs: int = Field(10, ge=1)
    """Passes over the training triplets. OPEN -> 10 up to 95k triplets, 6 from 200k. [R]"""
    max_steps: int | None = Field(None, ge=1)
    """Optimiser steps instead of epochs, if given."""
    learning_rate: float = Field(1e-5, gt=0)
    """Of the pre-trained layers. OPEN -> 1e-5. [R]"""
    new_learning_rate: float = Field(1e-4, gt=0)
    """Of cross-attention, predictor and other new layers. OPEN -> 1e-4. [R]"""
    weight_decay: float = Field(0.1, ge=0)
    """AdamW's; biases, norms, gates and embeddings have none. [P]"""
    warmup: float = Field(0.05, ge=0, lt=1)
    """Share of the steps in which the rates rise to their value; then they follow a cosine to zero.
    OPEN -> 0.05. [R]"""
    clip: float = Field(1.0, ge=0)
    """Largest norm of the gradient; 0 leaves it alone. OPEN -> 1.0. [R]"""
    precision: Precision = "fp32"
    """`fp32`, or `bf16` autocast over fp32 weights. OPEN -> bf16 on GPUs. [R]"""
    augmentation: Augmentation = "clip"
    """`clip` (resize and centre crop), `targetpad` (ratio 1.25) or `random_resized_crop` (0.8 to
    1.0 of the picture). OPEN -> clip. [R]"""
    class_grouping: int = Field(0, ge=0)
    """Pairs of one meta class that stand together in a batch, so that their targets are hard
    negatives; 0 shuffles freely, as the paper does."""
    seed: int = 0
    """Of new weights, order, crops and dropout."""
    validation: int = Field(200, ge=0)
    """Triplets held out to choose the best step: the first of the sample, so that nested samples
    are judged by the same ones; at most a tenth of what there is. Triplets that share an image with
    them are not trained on."""
    validate_every: int = Field(0, ge=0)
    """Steps between two validations; 0 is once an epoch."""
    branch: Branch = "online"
    """Whose queries are validated: `online` weights or their moving average. OPEN -> online. [R]"""
    keep: Keep = "best"
    """Publish the step with the best validation, or the last one."""
    gradient_checkpointing: bool = False
    """Recompute activations instead of keeping them."""
    compile: bool = False
    """Run the network through `torch.compile`."""
    combiner_learning_rate: float = Field(1e-2, gt=0)
    """Of stage two. OPEN -> 1e-2. [R]"""
    combiner_epochs: int = 1
    """Passes of stage two. OPEN -> 1. [R]"""
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
