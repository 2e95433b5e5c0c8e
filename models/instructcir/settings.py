"""Every choice of the reformulation network as a named value.

A choice that the paper leaves open is a setting with the recommended value as its default.
"""

from __future__ import annotations

from typing import Final, Literal, Self, TypeAlias

from pydantic import Field, model_validator

from models.settings import Settings

Gate: TypeAlias = Literal["none", "zero_init"]
TextMask: TypeAlias = Literal["eot", "full"]
NullText: TypeAlias = Literal["empty", "learned"]
PredictorInputs: TypeAlias = Literal["raw", "normalised"]
TextTraining: TypeAlias = Literal["trained", "frozen"]
WithoutEma: TypeAlias = Literal["shared", "stop_gradient"]
CombinerKind: TypeAlias = Literal[
    "scalar", "clip4cir_scalar", "clip4cir_mlp", "clip4cir_scalar_unit", "clip4cir_mlp_unit"
]

LARGEST_SCALE: Final = 100.0
"""Bound of a learned 1 / temperature, as in CLIP."""


class NetworkSettings(Settings):
    """Parts of the network."""

    cross_attended_blocks: int | None = Field(None, ge=0)
    """Number of image blocks, counted from the last, that attend to the text; None is every block
    (the paper), 0 none."""
    gate: Gate = "none"
    """`zero_init` multiplies the cross-attention by a scalar trained from 0, so that training
    starts at CLIP's own features; `none` is the paper."""
    text_mask: TextMask = "eot"
    """Text tokens that image tokens see: up to the end-of-text token (`eot`), or all positions of
    the context, padding included (`full`)."""
    null_text: NullText = "empty"
    """Stand-in for "no text": the empty string (`empty`), or a trained sequence that starts as the
    empty string's (`learned`)."""
    predictor: bool = True
    """Whether an MLP joins image and text; without it z = v. With neither predictor nor
    cross-attention z is the sum of both normalised embeddings: Table V's "original CLIP model"."""
    predictor_inputs: PredictorInputs = "raw"
    """Whether v and e_T are L2-normalised before the predictor."""
    predictor_ratio: int = Field(4, ge=1)
    """Width of the predictor's hidden layer in units of d."""
    target_predictor: bool = True
    """Whether the target path has the predictor too."""
    text_tower: TextTraining = "trained"
    """Whether the text tower is trained."""

    @property
    def sums(self) -> bool:
        """Whether image and text meet in a sum only."""
        return self.cross_attended_blocks == 0 and not self.predictor


class LossSettings(Settings):
    """The contrastive loss (equation 2)."""

    temperature: float = Field(0.01, gt=0)
    """tau; the start value where it is learned."""
    learnable_temperature: bool = False
    """Whether log(1 / tau) is trained, with 1 / tau at most 100."""
    gather: bool = True
    """Whether the targets of all processes serve as negatives."""
    mask_repeats: bool = True
    """Whether other targets that are the same image as a query's own are left out of its
    negatives."""
    symmetric: bool = False
    """Whether targets also choose among queries; the paper has one direction."""

    @model_validator(mode="after")
    def _starts_within_the_bound(self) -> Self:
        if self.learnable_temperature and self.temperature < 1 / LARGEST_SCALE:
            raise ValueError(
                f"a learned temperature stays at {1 / LARGEST_SCALE} or above, so it cannot "
                f"start at {self.temperature}"
            )
        return self


class EmaSettings(Settings):
    """The moving average that encodes targets, with I-JEPA's schedule."""

    enabled: bool = True
    """Whether there is a moving average; without it the online network encodes targets."""
    start: float = Field(0.996, ge=0, le=1)
    """Momentum of the first optimiser step; it grows linearly."""
    end: float = Field(1.0, ge=0, le=1)
    """Momentum reached at the last step."""
    without: WithoutEma = "shared"
    """Meaning of "no EMA", which the paper's ablation does not define. `shared`: one network on
    both sides with gradients through both, as in CLIP, so that only the averaging is taken away.
    `stop_gradient`: the online network without gradients on the target side, which is the moving
    average with momentum 0."""

    @model_validator(mode="after")
    def _momentum_grows(self) -> Self:
        if self.start > self.end:
            raise ValueError(f"momentum grows from start to end, not {self.start} to {self.end}")
        return self


class CombinerSettings(Settings):
    """The second stage's combination with the pure text embedding (equation 3)."""

    kind: CombinerKind = "scalar"
    """`scalar`, `clip4cir_scalar` or `clip4cir_mlp`; the last two with `_unit` read unit vectors
    where CLIP4CIR's code reads features at their own length. See `models.instructcir.combiner`."""
    start: float = 2.0
    """Start value of the trained number; its sigmoid is the weight lambda. Scalars only."""
    projection: int = Field(640, ge=1)
    """Width p of each side's projection; `clip4cir_mlp` only."""
    hidden: int = Field(2560, ge=1)
    """Width h of the joint hidden layer; `clip4cir_mlp` only."""
    dropout: float = Field(0.5, ge=0, lt=1)
    """Dropped share while training; `clip4cir_mlp` only."""

    @property
    def form(self) -> str:
        """The kind without `_unit`."""
        return self.kind.removesuffix("_unit")

    @property
    def reads_unit_vectors(self) -> bool:
        """Whether embeddings are scaled to length one before they are combined."""
        return self.kind.endswith("_unit")


def check_trainable(network: NetworkSettings, ema: EmaSettings) -> None:
    """Refuse combinations in which a trained part would never see a gradient.

    Raises:
        ValueError: A learned null text whose path is not trained.
    """
    if network.null_text == "learned" and (ema.enabled or ema.without == "stop_gradient"):
        raise ValueError(
            "null_text='learned' is trained through the target path, and neither a moving "
            "average nor a stopped gradient lets one through; use null_text='empty', or "
            "EmaSettings(enabled=False, without='shared')"
        )
