"""The embedded captioner: a BLIP-2 with an OPT decoder, on the frozen vision tower.

`python -m embedded_world.recipes.captioner --tower DIR/tower.safetensors --work DIR2 --out DIR3`

Canonical captions first, then a growing share of varied ones (synonyms, lead-ins, the background
first): the samples of one picture then differ in wording. The things keep their reading order;
shuffled captions broke the binding of attributes to things in trials.
"""

from collections.abc import Sequence
from pathlib import Path
from random import Random

import torch
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

from embedded_world.drawing import SIDE
from embedded_world.grammar import caption, leave_open, varied_caption
from embedded_world.recipes.captioner_tokenizer import LONGEST, build_tokenizer
from embedded_world.recipes.captioner_training import (
    Trainee,
    captioner_options,
    token_batch,
    train_captioner,
)
from embedded_world.recipes.pictures import MEAN, SLOTS, STD, labels, slot_losses
from embedded_world.recipes.shipped_captioners import ShippedBlip2
from embedded_world.recipes.tower_conversion import blip2_vision_state
from embedded_world.recipes.training import conclude, half_precision, one_thread
from embedded_world.recipes.vision_measures import as_json, captioner_measures
from embedded_world.recipes.vision_tower import VISION, WIDTH, load_tower
from embedded_world.scenes import BACKGROUNDS, NUM_CELLS, Scene, make_scene

COMMAND = (
    "OMP_NUM_THREADS=1 python -m embedded_world.recipes.captioner --tower TOWER/tower.safetensors "
    "--work DIR --out models/embedded/blip2"
)
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
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        initializer_range=0.08,
    )


def new_captioner(
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


class CaptionerTraining(Trainee):
    """The captioner and read-out heads on its queries, which are thrown away afterwards."""

    def __init__(self, model: Blip2ForConditionalGeneration, tokenizer: PreTrainedTokenizerFast):
        super().__init__()
        self.model = model
        self.cell_head = nn.Linear(WIDTH, sum(SLOTS.values()))
        self.ground_head = nn.Linear(WIDTH, len(BACKGROUNDS))
        self.tokenizer = tokenizer

    def batch(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """Queries, <s>, caption, </s>: what the language model is trained on."""
        tokenizer = self.tokenizer
        image = [self.model.config.image_token_index] * QUERIES
        return token_batch(
            [*image, tokenizer.bos_token_id],
            tokenizer(texts, add_special_tokens=False)["input_ids"],
            pad=tokenizer.pad_token_id,
            end=tokenizer.eos_token_id,
        )

    def losses(
        self, images: Tensor, texts: Sequence[str], scenes: Sequence[Scene]
    ) -> dict[str, Tensor]:
        """Caption loss, and what queries say of the cells and the background."""
        out = self.model(pixel_values=images, **self.batch(texts))
        queries = out.qformer_outputs.last_hidden_state
        cells, grounds = labels(scenes)
        read = sum(slot_losses(self.cell_head(queries[:, :NUM_CELLS]), cells).values())
        read = read + F.cross_entropy(self.ground_head(queries[:, NUM_CELLS]), grounds)
        return {"caption": out.loss, "queries": 0.3 * read}


@torch.no_grad()
def greedy_captions(
    model: Blip2ForConditionalGeneration,
    tokenizer: PreTrainedTokenizerFast,
    images: Tensor,
    batch: int = 100,
    **sampling: object,
) -> list[str]:
    """Captions of normalised images; greedy unless `sampling` says otherwise."""
    texts: list[str] = []
    for part in images.split(batch):
        tokens = model.generate(
            pixel_values=part, max_new_tokens=LONGEST, **{"do_sample": False, **sampling}
        )
        texts += tokenizer.batch_decode(tokens, skip_special_tokens=True)
    return texts


def varied_share(done: float) -> float:
    """Share of varied captions: none at first, then rising to nine in ten."""
    return min(0.9, max(0.0, (done - 0.35) / 0.2))


def mentioned(scene: Scene, rng: Random) -> Scene:
    """What one caption says of a scene.

    People who caption photographs leave things out, and so do captioners trained on them: an
    ensemble of captions knows more than any one of them. Greedy decoding still says everything,
    because each fact is said more often than not.
    """
    kept = [cell for cell in scene.occupied if rng.random() >= UNMENTIONED]
    kept = kept or [rng.choice(scene.occupied)]
    some = make_scene(scene.background, {cell: scene.thing(cell) for cell in kept})
    return leave_open(some, rng, LEFT_OPEN)


def training_texts(scenes: Sequence[Scene], rng: Random, share: float) -> list[str]:
    """One caption per scene, with probability `share` varied in wording and in what it says."""
    return [
        varied_caption(mentioned(s, rng), rng) if rng.random() < share else caption(s)
        for s in scenes
    ]


def save_captioner(
    model: Blip2ForConditionalGeneration, tokenizer: PreTrainedTokenizerFast, folder: Path
) -> None:
    """Write the model in fp16 and its processor, for plain `from_pretrained`."""
    images = BlipImageProcessor(
        size={"height": SIDE, "width": SIDE}, image_mean=list(MEAN), image_std=list(STD)
    )
    Blip2Processor(images, tokenizer, num_query_tokens=QUERIES).save_pretrained(folder)
    state = half_precision(model.state_dict())
    del state["language_model.lm_head.weight"]  # tied to the embedding
    # The configuration stays at float32, so that plain loading computes in float32.
    model.save_pretrained(folder, state_dict=state)


def main() -> None:
    """Train the captioner and write it."""
    args = captioner_options(__doc__, seed=23, steps=4000, batch=64)
    one_thread()
    torch.manual_seed(args.seed)
    tokenizer = build_tokenizer()
    model = new_captioner(tokenizer, load_tower(args.tower))

    def texts_of(scenes: Sequence[Scene], rng: Random, done: float) -> list[str]:
        return training_texts(scenes, rng, varied_share(done))

    training = train_captioner(
        CaptionerTraining(model, tokenizer),
        args,
        texts_of,
        lambda images: greedy_captions(model, tokenizer, images),
    )
    save_captioner(model, tokenizer, args.out)

    def measure() -> dict[str, object]:
        return as_json(captioner_measures(ShippedBlip2(args.out)))

    conclude(training, args.out, COMMAND, vars(args), measure)


if __name__ == "__main__":
    main()
