"""A verifier of grids, grown from the shipped verifier of pairs.

    <s> text <vision of the reference> <vision of the grid> <ask>  ->  1 ... 9 | A ... Z

It has a token for each mark, a finer table of positions of patches, and one more layer, which at
first adds nothing: verdicts about cells become verdicts about candidates before one is named.
"""

from pathlib import Path
from typing import Any, Final

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor
from transformers import PreTrainedTokenizerFast, Qwen3VLForConditionalGeneration

from embedded_world.recipes.scene_tensors import PATCHES
from embedded_world.recipes.verifier_model import (
    WEIGHTS,
    WIDTH,
    build_verifier_tokenizer,
    verifier_config,
    verifier_processor,
)
from models.verifiers.grid import MOST, GridPlan, all_marks

POSITIONS: Final = 24
"""Rows and columns of the table of positions; the shipped verifier has 6."""
CONTEXT: Final = 512
MARK_SIZE: Final = 0.08
"""Root mean square of an embedding."""


def marked_tokenizer() -> PreTrainedTokenizerFast:
    """The verifier's tokenizer with a token for each mark of a grid."""
    tokenizer = build_verifier_tokenizer()
    tokenizer.add_tokens(list(all_marks()))
    return tokenizer


def grid_processor(tokenizer: PreTrainedTokenizerFast, cell: int) -> Any:
    """The verifier's processor, which leaves the largest grid as large as it is."""
    processor = verifier_processor(tokenizer)
    across, down = GridPlan(MOST, cell).size
    size = processor.image_processor.size
    processor.image_processor.size = {**dict(size), "longest_edge": 2 * across * down}
    return processor


def with_marks(
    folder: Path, tokenizer: PreTrainedTokenizerFast, seed: int
) -> Qwen3VLForConditionalGeneration:
    """The verifier in a folder with new rows for the marks, and nothing else changed."""
    config = verifier_config(tokenizer)
    config.text_config.max_position_embeddings = CONTEXT
    model = Qwen3VLForConditionalGeneration(config)
    model.load_state_dict(_widened(folder, config, seed), strict=False)  # the head is tied
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    return model.float()


def grown(
    folder: Path, tokenizer: PreTrainedTokenizerFast, seed: int
) -> Qwen3VLForConditionalGeneration:
    """The verifier in a folder as a verifier of grids at step 0."""
    config = verifier_config(tokenizer)
    config.text_config.max_position_embeddings = CONTEXT
    config.text_config.num_hidden_layers += 1
    config.vision_config.num_position_embeddings = POSITIONS**2
    torch.manual_seed(seed)
    model = Qwen3VLForConditionalGeneration(config)
    state = _widened(folder, config, seed)
    table = "model.visual.pos_embed.weight"
    state[table] = _finer(state[table])
    model.load_state_dict(state, strict=False)
    last = model.model.language_model.layers[-1]
    with torch.no_grad():
        last.self_attn.o_proj.weight.zero_()
        last.mlp.down_proj.weight.zero_()
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    return model.float()


def _widened(folder: Path, config: Any, seed: int) -> dict[str, Tensor]:
    """Weights with rows for the marks behind all others."""
    state = {name: tensor.float() for name, tensor in load_file(folder / WEIGHTS).items()}
    name = "model.language_model.embed_tokens.weight"
    rows = config.text_config.vocab_size - len(state[name])
    new = torch.randn(rows, WIDTH, generator=torch.Generator().manual_seed(seed))
    new = MARK_SIZE * new / new.pow(2).mean(dim=1, keepdim=True).sqrt()
    state[name] = torch.cat([state[name], new])
    return state


def _finer(positions: Tensor) -> Tensor:
    """A table of positions between whose rows and columns others are set (N, d)."""
    table = positions.T.reshape(1, -1, PATCHES, PATCHES)
    finer = F.interpolate(table, size=(POSITIONS, POSITIONS), mode="bilinear", align_corners=True)
    return finer[0].flatten(1).T.contiguous()
