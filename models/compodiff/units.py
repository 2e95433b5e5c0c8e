"""The units in which CompoDiff's denoiser reads image features."""

from __future__ import annotations

import torch
from torch.nn import functional

from models.compodiff.settings import FeatureUnits


def in_units(features: torch.Tensor, units: FeatureUnits) -> torch.Tensor:
    """Features (B, d) as the denoiser reads them.

    Args:
        features: As the backbone encodes them.
        units: `unit`: of length sqrt(d), so that each number has a variance near that of the
            noise. `as_encoded`: as they are.
    """
    if units == "as_encoded":
        return features
    return functional.normalize(features, dim=-1) * features.shape[-1] ** 0.5
