"""Named ways of drawing captions: those of LAVIS, with which the papers' BLIP-2 captions were made.

LAVIS asks transformers for `top_p` 0.9 and temperature 1 and leaves its `top_k` of 50 on. Since
transformers 4.27 it draws N captions as one search with N beams that samples (CVSI's code); before,
as N independent samples (LDRE's code, which pins LAVIS 1.0.2). Without sampling it searches with
five beams (CIReVL's code). BLIP-2's prompt is "a photo of".
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final, Literal, TypeAlias

from models.protocols import CaptionSampling

Ensemble: TypeAlias = Literal[
    "captioner", "nucleus", "beam_sample", "lavis-nucleus", "lavis-1.0-nucleus"
]
"""How N captions are drawn: a mode, a preset, or as the captioner's papers did it."""
Single: TypeAlias = Literal["captioner", "greedy", "lavis-beam5"]
"""How one caption is made."""

_LAVIS: Final = {"top_p": 0.9, "temperature": 1.0}

PRESETS: Final[Mapping[str, Mapping[str, Any]]] = MappingProxyType(
    {
        "lavis-nucleus": {**_LAVIS, "mode": "beam_sample", "top_k": 50},
        "lavis-1.0-nucleus": {**_LAVIS, "mode": "nucleus", "top_k": 50},
        "lavis-beam5": {**_LAVIS, "mode": "beam", "top_k": 0, "beams": 5},
    }
)
"""Name -> values of `CaptionSampling`."""

PROMPTS: Final[Mapping[str, str]] = MappingProxyType({"blip2": "a photo of"})
"""Engine -> its prompt under a preset; the others have a question of their own."""

OWN: Final[Mapping[str, tuple[Ensemble, Single]]] = MappingProxyType(
    {"blip2": ("lavis-nucleus", "lavis-beam5")}
)
"""Engine -> how its papers drew N captions and one."""


def ensemble_sampling(
    how: Ensemble, engine: str, n: int, options: Mapping[str, Any]
) -> CaptionSampling:
    """How N captions are drawn by an engine; see `sampling_of`."""
    own = OWN.get(engine, ("nucleus", "greedy"))[0]
    return sampling_of(own if how == "captioner" else how, engine, n, options)


def single_sampling(how: Single, engine: str, options: Mapping[str, Any]) -> CaptionSampling:
    """How one caption is made by an engine; see `sampling_of`."""
    own = OWN.get(engine, ("nucleus", "greedy"))[1]
    return sampling_of(own if how == "captioner" else how, engine, 1, options)


def sampling_of(how: str, engine: str, n: int, options: Mapping[str, Any]) -> CaptionSampling:
    """How captions are drawn by an engine.

    Args:
        how: A mode or a preset.
        engine: Name of the captioner's engine.
        n: Captions of an image.
        options: The other values of `CaptionSampling`. A preset has its own, except for the most
            tokens, the seed and a prompt that is not empty.
    """
    if how not in PRESETS:
        return CaptionSampling(**{**options, "n": n, "mode": how})
    prompt = options["prompt"] or PROMPTS.get(engine, "")
    return CaptionSampling(**{**options, **PRESETS[how], "n": n, "prompt": prompt})
