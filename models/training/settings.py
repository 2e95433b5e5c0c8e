"""How a network is trained: one named value for each choice, shared by all trainings."""

from __future__ import annotations

from typing import Literal, TypeAlias

from pydantic import Field

from models.settings import Settings
from models.spelling import agreed

Precision: TypeAlias = Literal["fp32", "tf32", "bf16"]
Augmentation: TypeAlias = Literal["clip", "targetpad", "random_resized_crop"]
Keep: TypeAlias = Literal["best", "last"]
Captions: TypeAlias = Literal["joined", "drawn"]
Schedule: TypeAlias = Literal["cosine", "constant"]


class CommonTraining(Settings):
    """The choices that every training has; the defaults suit a contrastive one on triplets.

    "Examples" are triplets, images or captions: the rows of what is trained on.
    """

    batch_size: int = Field(256, ge=2)
    """Examples of one batch over all devices together, whose targets are each other's negatives.
    InstructCIR has 32 on each of 8 devices, and does not say whether negatives are gathered."""
    accumulate: int = Field(1, ge=1)
    """Batches whose gradients are added up for one optimiser step. It saves memory and does not
    make more negatives."""
    epochs: int = Field(10, ge=1)
    """Passes over the training examples; for InstructCIR 10 suit up to 95k triplets, 6 suit 200k
    (not in its paper)."""
    max_steps: int | None = Field(None, ge=1)
    """Optimiser steps instead of epochs, if given."""
    learning_rate: float = Field(1e-5, gt=0)
    """Highest rate of the pre-trained layers."""
    new_learning_rate: float = Field(1e-4, gt=0)
    """Highest rate of the layers that the backbone does not have."""
    weight_decay: float = Field(0.1, ge=0)
    """AdamW's; biases, norms, gates and embeddings have none."""
    warmup: float = Field(0.05, ge=0, lt=1)
    """Share of the steps in which the rates rise; afterwards they follow a cosine to zero."""
    clip: float = Field(1.0, ge=0)
    """Largest norm of the gradient; 0 leaves the gradient alone."""
    precision: Precision = "fp32"
    """`fp32`; `tf32`, the same with products in TF32 on a GPU; or `bf16`, autocast over fp32
    weights, which suits GPUs."""
    seed: int = 0
    """Of new weights, order, crops and dropout."""
    validation: int = Field(200, ge=0)
    """Examples held out to choose the best step: the first of the sample, so that nested samples
    are judged by the same ones, and at most a tenth of all. Examples that share an image with them
    are not trained on."""
    validate_every: int = Field(0, ge=0)
    """Steps between two validations; 0 validates once an epoch."""
    keep: Keep = "best"
    """Publish the step with the best validation, or the last one."""
    gradient_checkpointing: bool = False
    """Recompute activations instead of keeping them."""
    compile: bool = False
    """Run the network through `torch.compile`."""
    saved_as: Literal["fp32", "fp16"] = "fp32"
    """Precision of the published weights."""

    def share(self, devices: int) -> int:
        """Examples of a batch that each of so many devices takes.

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

    def steps_of(self, examples: int) -> tuple[int, int]:
        """Batches in an epoch, and optimiser steps in all, for so many training examples.

        Raises:
            ValueError: They do not fill one batch.
        """
        per_epoch = examples // self.batch_size
        if per_epoch == 0:
            raise ValueError(
                f"{examples} {agreed(examples, 'training example does', 'training examples do')} "
                f"not fill a batch of {self.batch_size}; bring more, hold fewer out (validation), "
                "or lower batch_size"
            )
        steps = self.max_steps or max(1, per_epoch * self.epochs // self.accumulate)
        return per_epoch, steps


class TripletTraining(CommonTraining):
    """The choices of a training that reads the pictures of triplets."""

    augmentation: Augmentation = "clip"
    """`clip` (resize and centre crop), `targetpad` (ratio 1.25) or `random_resized_crop` (0.8 to
    1.0 of the picture)."""
    class_grouping: int = Field(0, ge=0)
    """Pairs of one meta class that stand together in a batch, so that their targets are hard
    negatives; 0 shuffles freely."""
    captions: Captions = "joined"
    """Text of a triplet that two people described (FashionIQ's train split): `joined`, as queries
    are asked, or `drawn` each time with equal chance from "c1 and c2", "c2 and c1", "c1", "c2"."""


class TrainingSettings(CommonTraining):
    """The choices of a training whose optimiser is set in full."""

    betas: tuple[float, float] = (0.9, 0.999)
    """AdamW's moments."""
    eps: float = Field(1e-8, gt=0)
    """AdamW's epsilon."""
    schedule: Schedule = "cosine"
    """Rates after the warm-up: `cosine` to zero, or `constant`."""


class ComposedTraining(TripletTraining, TrainingSettings):
    """Everything about the training of a composed query encoder that changes its weights."""
