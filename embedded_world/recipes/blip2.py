"""The embedded BLIP-2, with an OPT decoder, on the frozen vision tower.

    OMP_NUM_THREADS=1 python -m embedded_world.recipes.blip2 \\
        --tower TOWER/tower.safetensors --work DIR --out models/embedded/blip2

It learns canonical captions first, then a growing share of varied ones (synonyms, lead-ins, the
background first), so that the samples of one picture differ in wording. The things keep their
reading order: shuffled captions broke the binding of attributes to things in trials.
"""

from collections.abc import Sequence
from pathlib import Path
from random import Random

import torch.nn.functional as F
from torch import Tensor, nn
from transformers import (
    Blip2Config,
    Blip2ForConditionalGeneration,
    Blip2Processor,
    Blip2QFormerConfig,
    Blip2VisionConfig,
    BlipImageProcessor,
    OPTConfig,
    PreTrainedTokenizerFast,
)

from embedded_world.captions import caption, leave_open, varied_caption
from embedded_world.drawing import SIDE
from embedded_world.recipes.captioner_tokenizer import IMAGE, build_captioner_tokenizer
from embedded_world.recipes.captioner_training import CaptionerRecipe, Trainee
from embedded_world.recipes.scene_tensors import MEAN, SLOTS, STD, labels, slot_losses
from embedded_world.recipes.tower_conversion import blip2_vision_state
from embedded_world.recipes.training import half_precision
from embedded_world.recipes.vision_measures import blip2_gates
from embedded_world.recipes.vision_tower import VISION, WIDTH
from embedded_world.scenes import BACKGROUNDS, NUM_CELLS, Scene, make_scene

UNMENTIONED = 0.15
"""Share of things that a varied caption does not mention (it mentions one at least)."""
LEFT_OPEN = 0.4
"""Share of sizes, fills and backgrounds that a varied caption leaves out."""
QUERIES = 12
"""Nine queries learn the cells, one the background; the others are free."""


def blip2_config(tokenizer: PreTrainedTokenizerFast) -> Blip2Config:
    """Architecture of the captioner; wider initialisation than the default, no dropout."""
    heads, layers = WIDTH // int(VISION["head_width"]), int(VISION["layers"])
    vision = Blip2VisionConfig(
        hidden_size=WIDTH,
        intermediate_size=int(WIDTH * VISION["mlp_ratio"]),
        num_hidden_layers=layers,
        num_attention_heads=heads,
        image_size=SIDE,
        patch_size=VISION["patch_size"],
        layer_norm_eps=1e-5,
        hidden_act="gelu",
    )
    qformer = Blip2QFormerConfig(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=4,
        encoder_hidden_size=WIDTH,
        cross_attention_frequency=1,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        initializer_range=0.08,
    )
    text = OPTConfig(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        word_embed_proj_dim=WIDTH,
        ffn_dim=320,
        num_hidden_layers=3,
        num_attention_heads=4,
        max_position_embeddings=160,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        dropout=0.0,
        attention_dropout=0.0,
        init_std=0.08,
    )
    return Blip2Config(
        vision_config=vision,
        qformer_config=qformer,
        text_config=text,
        num_query_tokens=QUERIES,
        image_text_hidden_size=WIDTH,
        image_token_index=tokenizer.convert_tokens_to_ids(IMAGE),
        initializer_range=0.08,
    )


def new_blip2(
    tokenizer: PreTrainedTokenizerFast, tower: dict[str, Tensor]
) -> Blip2ForConditionalGeneration:
    """An untrained captioner on a trained, frozen tower."""
    model = Blip2ForConditionalGeneration(blip2_config(tokenizer))
    # The library starts queries at zero; equal queries would stay equal.
    nn.init.normal_(model.query_tokens)
    nn.init.xavier_uniform_(model.language_projection.weight)
    for name, parameter in model.qformer.named_parameters():
        if parameter.ndim == 2 and "embeddings" not in name:
            nn.init.xavier_uniform_(parameter)
    model.vision_model.load_state_dict(blip2_vision_state(tower))
    model.vision_model.requires_grad_(False)
    return model


class Blip2Training(Trainee):
    """The captioner and read-out heads on its queries, which are thrown away afterwards."""

    def __init__(self, model: Blip2ForConditionalGeneration, tokenizer: PreTrainedTokenizerFast):
        placeholders = [model.config.image_token_index] * QUERIES
        super().__init__(model, tokenizer, [*placeholders, tokenizer.bos_token_id])
        self.cell_head = nn.Linear(WIDTH, sum(SLOTS.values()))
        self.ground_head = nn.Linear(WIDTH, len(BACKGROUNDS))

    def texts(self, scenes: Sequence[Scene], rng: Random, done: float) -> list[str]:
        """One caption per scene; a growing share varies in wording and leaves facts out."""
        share = varied_share(done)
        return [
            varied_caption(mentioned(scene, rng), rng) if rng.random() < share else caption(scene)
            for scene in scenes
        ]

    def losses(
        self, images: Tensor, texts: Sequence[str], scenes: Sequence[Scene]
    ) -> dict[str, Tensor]:
        """Loss of the caption, and of cells and background as read from the queries."""
        out = self.model(pixel_values=images, **self.batch(texts))
        queries = out.qformer_outputs.last_hidden_state
        cells, grounds = labels(scenes)
        read = sum(slot_losses(self.cell_head(queries[:, :NUM_CELLS]), cells).values())
        read = read + F.cross_entropy(self.ground_head(queries[:, NUM_CELLS]), grounds)
        return {"caption": out.loss, "queries": 0.3 * read}

    def generate(self, images: Tensor, **options: object) -> Tensor:
        """Tokens of one caption of each normalised picture."""
        return self.model.generate(pixel_values=images, **options)

    def save(self, folder: Path) -> None:
        """Write the captioner in fp16 and its processor, for plain `from_pretrained`."""
        blip2_processor(self.tokenizer).save_pretrained(folder)
        state = half_precision(self.model.state_dict())
        del state["language_model.lm_head.weight"]  # tied to the embedding
        # The configuration stays at float32, so that plain loading computes in float32.
        self.model.save_pretrained(folder, state_dict=state)


def blip2_processor(tokenizer: PreTrainedTokenizerFast) -> Blip2Processor:
    """Pictures and texts as the model reads them."""
    images = BlipImageProcessor(
        size={"height": SIDE, "width": SIDE}, image_mean=list(MEAN), image_std=list(STD)
    )
    return Blip2Processor(images, tokenizer, num_query_tokens=QUERIES)


def varied_share(done: float) -> float:
    """Share of varied captions: none at first, then rising to nine in ten."""
    return min(0.9, max(0.0, (done - 0.35) / 0.2))


def mentioned(scene: Scene, rng: Random) -> Scene:
    """The part of a scene that one caption says.

    People who caption photographs leave things out, and so do captioners trained on them: an
    ensemble of captions knows more than any one of them. Greedy decoding still says everything,
    because each fact is said more often than not.
    """
    kept = [cell for cell in scene.occupied if rng.random() >= UNMENTIONED]
    kept = kept or [rng.choice(scene.occupied)]
    some = make_scene(scene.background, {cell: scene.thing(cell) for cell in kept})
    return leave_open(some, rng, LEFT_OPEN)


def build(tower: dict[str, Tensor]) -> Blip2Training:
    """An untrained captioner with its tokenizer."""
    tokenizer = build_captioner_tokenizer()
    return Blip2Training(new_blip2(tokenizer, tower), tokenizer)


RECIPE = CaptionerRecipe("blip2", build, blip2_gates, seed=23, steps=4000, batch=64)

if __name__ == "__main__":
    RECIPE.main(__doc__)
