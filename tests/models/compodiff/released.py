"""Random weights under the names and shapes of the released CompoDiff checkpoint."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

SCHEDULE = (
    *("betas", "alphas_cumprod", "alphas_cumprod_prev", "sqrt_alphas_cumprod"),
    *("sqrt_one_minus_alphas_cumprod", "log_one_minus_alphas_cumprod"),
    *("sqrt_recip_alphas_cumprod", "sqrt_recipm1_alphas_cumprod", "posterior_variance"),
    *("posterior_log_variance_clipped", "posterior_mean_coef1", "posterior_mean_coef2"),
    "p2_loss_weight",
)


def shapes(
    *, dim: int, text: int, depth: int, heads: int, width: int, side: int
) -> dict[str, tuple[int, ...]]:
    """The network's names without `model.net.`, as the released file is described."""
    found: dict[str, tuple[int, ...]] = {
        "to_text_embeds.0.weight": (dim, text),
        "to_text_embeds.0.bias": (dim,),
        "transformer.rel_pos_bias.relative_attention_bias.weight": (32, heads),
        "transformer.norm.g": (dim,),
        "transformer.project_out.weight": (dim, dim),
    }
    for name, inputs in (("to_time_embeds.0.1", dim), ("to_mask_embeds.1", side * side)):
        for layer, sizes in (
            ("0.0", (2 * dim, inputs)),
            ("1.0", (2 * dim, 2 * dim)),
            ("2", (dim, 2 * dim)),
        ):
            found[f"{name}.net.{layer}.weight"] = sizes
            found[f"{name}.net.{layer}.bias"] = sizes[:1]
    for number in range(depth):
        layer = f"transformer.layers.{number}"
        found |= {
            f"{layer}.0.norm.g": (dim,),
            f"{layer}.0.null_kv": (2, width),
            f"{layer}.0.to_q.weight": (heads * width, dim),
            f"{layer}.0.to_kv.weight": (2 * width, dim),
            f"{layer}.0.rotary_emb.freqs": (min(32, width) // 2,),
            f"{layer}.0.to_out.0.weight": (dim, heads * width),
            f"{layer}.0.to_out.1.g": (dim,),
            f"{layer}.1.norm.g": (dim,),
            f"{layer}.1.null_kv": (2, width),
            f"{layer}.1.to_q.weight": (8 * width, dim),
            f"{layer}.1.to_kv.weight": (16 * width, dim),
            f"{layer}.1.to_out.0.weight": (dim, 8 * width),
            f"{layer}.1.to_out.1.g": (dim,),
            f"{layer}.2.0.g": (dim,),
            f"{layer}.2.1.weight": (8 * dim, dim),
            f"{layer}.2.5.weight": (dim, 4 * dim),
        }
    return found


SMALL = {"dim": 24, "text": 20, "depth": 2, "heads": 3, "width": 8, "side": 4}


def random_state() -> dict[str, torch.Tensor]:
    """A small file's tensors, schedule and prefixes included."""
    import torch

    torch.manual_seed(5)
    table = 1.0 / 10_000 ** (torch.arange(0, 8, 2) / 8)
    state = {
        f"model.net.{name}": table.clone() if name.endswith("freqs") else torch.randn(*shape) / 4
        for name, shape in shapes(**SMALL).items()
    }
    return state | {f"model.noise_scheduler.{name}": torch.rand(100) for name in SCHEDULE}


def write(folder: Path, state: dict[str, torch.Tensor], file: str = "pytorch_model.bin") -> Path:
    """A folder of the released form."""
    import torch
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "architectures": ["CompoDiffModel"],
        "embed_dim": SMALL["dim"],
        "model_depth": SMALL["depth"],
        "model_dim": SMALL["width"],
        "model_heads": SMALL["heads"],
        "model_type": "CompoDiff",
        "timesteps": 100,
    }
    (folder / "config.json").write_text(json.dumps(config))
    if file.endswith(".bin"):
        torch.save(state, folder / file)
    else:
        save_file(state, folder / file)
    return folder
