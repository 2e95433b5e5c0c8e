"""Random networks in the layout of CLIP4CIR's published files."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import nn


def residual_clip() -> nn.Module:
    """A random ResNet CLIP of 64 wide heads, as RN50x4 is one of 640."""
    import open_clip
    import torch

    torch.manual_seed(3)
    return open_clip.CLIP(
        embed_dim=24,
        quick_gelu=True,
        vision_cfg={"image_size": 64, "layers": (1, 1, 2, 1), "width": 8, "patch_size": None},
        text_cfg={"width": 64, "heads": 1, "layers": 2},
    )


def published_combiner_state(dim: int, p: int, h: int) -> dict[str, torch.Tensor]:
    """Random weights under the published names, with the published shapes."""
    import torch

    shapes = {
        "text_projection_layer": (p, dim),
        "image_projection_layer": (p, dim),
        "combiner_layer": (h, 2 * p),
        "output_layer": (dim, h),
        "dynamic_scalar.0": (h, 2 * p),
        "dynamic_scalar.3": (1, h),
    }
    chance = torch.Generator().manual_seed(4)
    return {
        f"{name}.{kind}": torch.randn(size, generator=chance) * 0.3
        for name, shape in shapes.items()
        for kind, size in (("weight", shape), ("bias", shape[:1]))
    }
