"""Every choice of the reformulation network as a named value.

Each field whose value the paper leaves open is a setting here, with the recommended value as its
default. The records hold plain values only: `dataclasses.asdict` gives JSON.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias, get_args

Gate: TypeAlias = Literal["none", "zero_init"]
TextMask: TypeAlias = Literal["eot", "full"]
NullText: TypeAlias = Literal["empty", "learned"]
PredictorInputs: TypeAlias = Literal["raw", "normalised"]
TextTraining: TypeAlias = Literal["trained", "frozen"]
WithoutEma: TypeAlias = Literal["shared", "stop_gradient"]
CombinerKind: TypeAlias = Literal["scalar", "clip4cir_scalar", "clip4cir_mlp"]

LARGEST_SCALE: Final = 100.0
"""Bound of a learned 1 / temperature, as in CLIP."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkSettings:
    """What the network is made of.

    Attributes:
        cross_attended_blocks: How many image blocks, counted from the last, attend to the text;
            None is every block (the paper), 0 none.
        gate: `zero_init` multiplies the cross-attention by a scalar trained from 0, so that
            training starts at CLIP's own features; `none` is the paper.
        text_mask: Which text tokens image tokens see: up to the end-of-text token (`eot`), or
            all positions of the context, padding included (`full`).
        null_text: What stands for "no text": the empty string (`empty`), or a trained sequence
            that starts as the empty string's (`learned`).
        predictor: Whether an MLP joins image and text; without it z = v. With neither predictor
            nor cross-attention z is the sum of both normalised embeddings: Table V's "original
            CLIP model".
        predictor_inputs: Whether v and e_T are L2-normalised before the predictor.
        predictor_ratio: Width of the predictor's hidden layer in units of d.
        target_predictor: Whether the target path has the predictor too.
        text_tower: Whether the text tower is trained.
    """

    cross_attended_blocks: int | None = None
    gate: Gate = "none"
    text_mask: TextMask = "eot"
    null_text: NullText = "empty"
    predictor: bool = True
    predictor_inputs: PredictorInputs = "raw"
    predictor_ratio: int = 4
    target_predictor: bool = True
    text_tower: TextTraining = "trained"

    def __post_init__(self) -> None:
        """Refuse values without a meaning."""
        _one_of("gate", self.gate, Gate)
        _one_of("text_mask", self.text_mask, TextMask)
        _one_of("null_text", self.null_text, NullText)
        _one_of("predictor_inputs", self.predictor_inputs, PredictorInputs)
        _one_of("text_tower", self.text_tower, TextTraining)
        if self.cross_attended_blocks is not None and self.cross_attended_blocks < 0:
            raise ValueError(
                f"cross_attended_blocks is {self.cross_attended_blocks}; give None for every "
                "block, or how many of the last blocks, 0 or more"
            )
        if self.predictor_ratio < 1:
            raise ValueError(f"predictor_ratio is at least 1, not {self.predictor_ratio}")

    @property
    def sums(self) -> bool:
        """Whether image and text meet in a sum only."""
        return self.cross_attended_blocks == 0 and not self.predictor


@dataclass(frozen=True, slots=True, kw_only=True)
class LossSettings:
    """The contrastive loss (equation 2).

    Attributes:
        temperature: tau; the start value where it is learned.
        learnable_temperature: Whether log(1 / tau) is trained, with 1 / tau at most 100.
        gather: Whether the targets of all processes serve as negatives.
        mask_repeats: Whether other targets that are the same image as a query's own are left
            out of its negatives.
        symmetric: Whether targets also choose among queries; the paper has one direction.
    """

    temperature: float = 0.01
    learnable_temperature: bool = False
    gather: bool = True
    mask_repeats: bool = True
    symmetric: bool = False

    def __post_init__(self) -> None:
        """Refuse temperatures that divide by nothing or start beyond the bound."""
        if self.temperature <= 0:
            raise ValueError(f"temperature is positive, not {self.temperature}")
        if self.learnable_temperature and self.temperature < 1 / LARGEST_SCALE:
            raise ValueError(
                f"a learned temperature stays at {1 / LARGEST_SCALE} or above, so it cannot "
                f"start at {self.temperature}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class EmaSettings:
    """The moving average that encodes targets, with I-JEPA's schedule.

    Attributes:
        enabled: Whether there is one; without it the online network encodes targets.
        start: Momentum of the first optimiser step; it grows linearly.
        end: Momentum reached at the last step.
        without: What "no EMA" means, which the paper's ablation does not say. `shared`
            (default): one network on both sides with gradients through both, which is what a
            plain dual encoder such as CLIP does, so that exactly the averaging is taken away.
            `stop_gradient`: the online network without gradients on the target side, the
            moving average with momentum 0.
    """

    enabled: bool = True
    start: float = 0.996
    end: float = 1.0
    without: WithoutEma = "shared"

    def __post_init__(self) -> None:
        """Refuse momenta that are none."""
        _one_of("without", self.without, WithoutEma)
        if not 0.0 <= self.start <= self.end <= 1.0:
            raise ValueError(
                f"momentum grows from start to end inside [0, 1], not {self.start} to {self.end}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class CombinerSettings:
    """The second stage's combination with the pure text embedding (equation 3).

    Attributes:
        kind: `scalar`, `clip4cir_scalar` or `clip4cir_mlp`; see `models.instructcir.combiner`.
        start: Trained number whose sigmoid is the weight lambda, at the start; scalars only.
        projection: Width p of each side's projection; `clip4cir_mlp` only.
        hidden: Width h of the joint hidden layer; `clip4cir_mlp` only.
        dropout: Dropped share while training; `clip4cir_mlp` only.
    """

    kind: CombinerKind = "scalar"
    start: float = 2.0
    projection: int = 640
    hidden: int = 2560
    dropout: float = 0.5

    def __post_init__(self) -> None:
        """Refuse values without a meaning."""
        _one_of("kind", self.kind, CombinerKind)
        if min(self.projection, self.hidden) < 1 or not 0.0 <= self.dropout < 1.0:
            raise ValueError(
                f"projection and hidden are at least 1, dropout lies in [0, 1), not {self!r}"
            )


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


def _one_of(name: str, value: str, allowed: Any) -> None:
    if value not in get_args(allowed):
        raise ValueError(f"{name} is {value!r}; one of {', '.join(get_args(allowed))}")
