"""How the reformulation network is trained: one named value for each choice.

The paper prints the optimiser, the weight decay and a batch of 32 on eight devices; most other
values are gaps of its text (tagged OPEN in the method specification, section 1.5) with the
default that the specification recommends.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, TypeAlias, get_args

Precision: TypeAlias = Literal["fp32", "bf16"]
Augmentation: TypeAlias = Literal["clip", "targetpad", "random_resized_crop"]
Branch: TypeAlias = Literal["online", "ema"]
Keep: TypeAlias = Literal["best", "last"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingSettings:
    """Everything about training that changes the weights.

    Attributes:
        batch_size: Triplets whose targets are each other's negatives, over all devices together.
            256 is the paper's 32 on each of 8 devices with gathered negatives; the paper does not
            say whether its 32 is per device. [P / R]
        accumulate: Batches whose gradients are added up for one optimiser step. It saves memory
            but does not make more negatives.
        epochs: Passes over the training triplets. OPEN -> 10 up to 95k triplets, 6 from 200k. [R]
        max_steps: Optimiser steps instead of epochs, if given.
        learning_rate: Of the pre-trained layers. OPEN -> 1e-5. [R]
        new_learning_rate: Of cross-attention, predictor and other new layers. OPEN -> 1e-4. [R]
        weight_decay: AdamW's; biases, norms, gates and embeddings have none. [P]
        warmup: Share of the steps in which the rates rise to their value; then they follow a
            cosine to zero. OPEN -> 0.05. [R]
        clip: Largest norm of the gradient; 0 leaves it alone. OPEN -> 1.0. [R]
        precision: `fp32`, or `bf16` autocast over fp32 weights. OPEN -> bf16 on GPUs. [R]
        augmentation: `clip` (resize and centre crop), `targetpad` (ratio 1.25) or
            `random_resized_crop` (0.8 to 1.0 of the picture). OPEN -> clip. [R]
        class_grouping: Pairs of one meta class that stand together in a batch, so that their
            targets are hard negatives; 0 shuffles freely, as the paper does.
        seed: Of new weights, order, crops and dropout.
        validation: Triplets held out to choose the best step: the first of the sample, so that
            nested samples are judged by the same ones; at most a tenth of what there is.
            Triplets that share an image with them are not trained on.
        validate_every: Steps between two validations; 0 is once an epoch.
        branch: Whose queries are validated: `online` weights or their moving average. OPEN ->
            online. [R]
        keep: Publish the step with the best validation, or the last one.
        gradient_checkpointing: Recompute activations instead of keeping them.
        compile: Run the network through `torch.compile`.
        combiner_learning_rate: Of stage two. OPEN -> 1e-2. [R]
        combiner_epochs: Passes of stage two. OPEN -> 1. [R]
        saved_as: Precision of the published weights.
    """

    batch_size: int = 256
    accumulate: int = 1
    epochs: int = 10
    max_steps: int | None = None
    learning_rate: float = 1e-5
    new_learning_rate: float = 1e-4
    weight_decay: float = 0.1
    warmup: float = 0.05
    clip: float = 1.0
    precision: Precision = "fp32"
    augmentation: Augmentation = "clip"
    class_grouping: int = 0
    seed: int = 0
    validation: int = 200
    validate_every: int = 0
    branch: Branch = "online"
    keep: Keep = "best"
    gradient_checkpointing: bool = False
    compile: bool = False
    combiner_learning_rate: float = 1e-2
    combiner_epochs: int = 1
    saved_as: Literal["fp32", "fp16"] = "fp32"

    def __post_init__(self) -> None:
        """Refuse values without a meaning."""
        if min(self.batch_size, self.accumulate, self.epochs) < 1:
            raise ValueError("batch_size, accumulate and epochs are at least 1")
        if self.batch_size < 2:
            raise ValueError("batch_size is at least 2: a batch of one has no negatives")
        if self.max_steps is not None and self.max_steps < 1:
            raise ValueError(f"max_steps is at least 1, not {self.max_steps}")
        rates = (self.learning_rate, self.new_learning_rate, self.combiner_learning_rate)
        if min(rates) <= 0:
            raise ValueError(
                "learning_rate, new_learning_rate and combiner_learning_rate are positive; freeze "
                "a tower by its network setting"
            )
        if min(self.weight_decay, self.clip, self.class_grouping, self.validation) < 0:
            raise ValueError("weight_decay, clip, class_grouping and validation are not negative")
        if self.validate_every < 0 or not 0 <= self.warmup < 1:
            raise ValueError("validate_every is not negative, and warmup a share below 1")
        for name, kind in _CHOICES.items():
            if getattr(self, name) not in get_args(kind):
                raise ValueError(
                    f"{name} is {getattr(self, name)!r}; one of {', '.join(get_args(kind))}"
                )

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


_CHOICES: Final = {
    "precision": Precision,
    "augmentation": Augmentation,
    "branch": Branch,
    "keep": Keep,
    "saved_as": Literal["fp32", "fp16"],
}
