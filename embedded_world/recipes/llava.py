"""The embedded LLaVA: LLaVA-1.5's architecture on a frozen CLIP vision tower.

    OMP_NUM_THREADS=1 python -m embedded_world.recipes.llava \\
        --tower TOWER/tower.safetensors --work DIR --out models/embedded/llava

The tower comes from `embedded_world.recipes.vision_tower --kind llava`. The patch tokens of its
last block but one go through a projector of two layers into a LLaMA, in the place of `<image>` in
"USER: <image>\\n{prompt} ASSISTANT:". Captions are complete and in one wording: InstructCIR asks
for one greedy caption of an image, and its language model can only compare facts that are said.
"""

from collections.abc import Sequence
from pathlib import Path
from random import Random

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import (
    CLIPImageProcessor,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)

from embedded_world.captions import caption
from embedded_world.drawing import SIDE
from embedded_world.recipes.captioner_tokenizer import IMAGE, build_captioner_tokenizer
from embedded_world.recipes.captioner_training import CaptionerRecipe, Trainee
from embedded_world.recipes.scene_tensors import MEAN, PATCH, PATCHES, STD
from embedded_world.recipes.tower_conversion import clip_vision_state
from embedded_world.recipes.training import half_precision
from embedded_world.recipes.vision_measures import llava_gates
from embedded_world.recipes.vision_tower import EMBED, KINDS, WIDTH
from embedded_world.scenes import Scene
from models.prompts.library import load_prompt

TOWER = KINDS["llava"]
CONTEXT = 256
CHAT_TEMPLATE = (
    "{{ bos_token }}"
    "{% for message in messages %}"
    "{{ message['role'] | upper }}: "
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>\n{% endif %}{% endfor %}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'text' %}{{ part['text'] }}{% endif %}{% endfor %}"
    "{% endif %}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% else %} {% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)
"""Vicuna's turns without its system message. `<s>` stands in the text, because servers put none
before a chat; the placeholder eats the line end after it."""


def caption_prompt() -> str:
    """The user's request to LLaVA."""
    return load_prompt("llava_caption", ()).template


def build_llava_tokenizer() -> PreTrainedTokenizerFast:
    """The captioners' tokenizer with the words of the prompt."""
    return build_captioner_tokenizer(f"USER: {caption_prompt()} ASSISTANT:", longest=CONTEXT)


def llava_processor(tokenizer: PreTrainedTokenizerFast) -> LlavaProcessor:
    """Pictures and chats as the model reads them."""
    images = CLIPImageProcessor(
        size={"shortest_edge": SIDE},
        crop_size={"height": SIDE, "width": SIDE},
        image_mean=list(MEAN),
        image_std=list(STD),
    )
    return LlavaProcessor(
        images,
        tokenizer,
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=CHAT_TEMPLATE,
    )


def llava_config(tokenizer: PreTrainedTokenizerFast) -> LlavaConfig:
    """Architecture; wider initialisation than the default. Heads of 32, vLLM's least on a CPU."""
    vision = CLIPVisionConfig(
        hidden_size=WIDTH,
        intermediate_size=int(WIDTH * TOWER.vision["mlp_ratio"]),
        projection_dim=EMBED,
        num_hidden_layers=int(TOWER.vision["layers"]),
        num_attention_heads=WIDTH // int(TOWER.vision["head_width"]),
        image_size=SIDE,
        patch_size=PATCH,
        hidden_act="gelu",
    )
    text = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        intermediate_size=320,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        initializer_range=0.08,
    )
    return LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=tokenizer.convert_tokens_to_ids(IMAGE),
        image_seq_length=PATCHES**2,
        projector_hidden_act="gelu",
        vision_feature_select_strategy="default",
        vision_feature_layer=TOWER.tokens_of,
        tie_word_embeddings=True,
    )


def new_llava(
    tokenizer: PreTrainedTokenizerFast, tower: dict[str, Tensor]
) -> LlavaForConditionalGeneration:
    """An untrained projector and language model on a trained, frozen tower."""
    model = LlavaForConditionalGeneration(llava_config(tokenizer))
    for layer in (
        model.model.multi_modal_projector.linear_1,
        model.model.multi_modal_projector.linear_2,
    ):
        nn.init.xavier_uniform_(layer.weight)
    vision = model.model.vision_tower
    vision.load_state_dict(clip_vision_state(tower))
    vision.requires_grad_(False)
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    return model


def prompt_tokens(processor: LlavaProcessor) -> list[int]:
    """The tokens before every caption: the chat with the image's placeholders in it."""
    content = [{"type": "image"}, {"type": "text", "text": caption_prompt()}]
    chat = processor.apply_chat_template(
        [{"role": "user", "content": content}], add_generation_prompt=True
    )
    text = chat.replace(IMAGE, IMAGE * PATCHES**2)
    return processor.tokenizer(text, add_special_tokens=False)["input_ids"]


class LlavaTraining(Trainee):
    """The model and its processor."""

    def __init__(self, model: LlavaForConditionalGeneration, processor: LlavaProcessor):
        super().__init__(model, processor.tokenizer, prompt_tokens(processor))
        self.processor = processor

    def texts(self, scenes: Sequence[Scene], rng: Random, done: float) -> list[str]:
        """The canonical caption of each scene."""
        return [caption(scene) for scene in scenes]

    def losses(
        self, images: Tensor, texts: Sequence[str], scenes: Sequence[Scene]
    ) -> dict[str, Tensor]:
        """Loss of the caption, given picture and prompt."""
        return {"caption": self.model(pixel_values=images, **self.batch(texts)).loss}

    def generate(self, images: Tensor, **options: object) -> Tensor:
        """Tokens of one caption of each normalised picture, without the prompt."""
        ids = torch.tensor([self.prompt] * len(images))
        tokens = self.model.generate(
            pixel_values=images, input_ids=ids, attention_mask=torch.ones_like(ids), **options
        )
        return tokens[:, ids.shape[1] :]

    def save(self, folder: Path) -> None:
        """Write the captioner in fp16 and its processor, for `from_pretrained` and for vLLM."""
        folder.mkdir(parents=True, exist_ok=True)
        self.processor.save_pretrained(folder)
        self.model.config.dtype = torch.float32  # the type in which plain loading computes
        self.model.config.architectures = [type(self.model).__name__]
        self.model.config.save_pretrained(folder)
        self.model.generation_config.save_pretrained(folder)
        state = half_precision(hub_layout(self.model.state_dict()))
        save_file(state, folder / "model.safetensors", metadata={"format": "pt"})


HUB_LAYOUT = {
    "model.vision_tower.": "vision_tower.vision_model.",
    "model.multi_modal_projector.": "multi_modal_projector.",
    "model.language_model.": "language_model.model.",
}
"""Prefixes of the published LLaVA checkpoints, which vLLM insists on and transformers reads."""


def hub_layout(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights under the names of the published checkpoints, without the tied head."""
    renamed = {}
    for name, weight in state.items():
        for ours, theirs in HUB_LAYOUT.items():
            if name.startswith(ours):
                renamed[theirs + name.removeprefix(ours)] = weight
    return renamed


def build(tower: dict[str, Tensor]) -> LlavaTraining:
    """An untrained captioner with its processor."""
    processor = llava_processor(build_llava_tokenizer())
    return LlavaTraining(new_llava(processor.tokenizer, tower), processor)


RECIPE = CaptionerRecipe("llava", build, llava_gates, seed=29, steps=3600, batch=32)

if __name__ == "__main__":
    RECIPE.main(__doc__)
