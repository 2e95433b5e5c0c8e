"""Random checkpoints of real architectures, small enough to build in a second.

They are written with `save_pretrained` and therefore loaded by exactly the code that loads
large ones; only their words are meaningless.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

SPECIAL = ("<pad>", "<s>", "</s>", "<image>", "<unk>")
ENGLISH = (
    "Image Content Instruction Edited Description Objects most likely added : , . none red "
    "make it blue star a small large"
)
NUM_QUERIES = 8


def word_tokenizer() -> PreTrainedTokenizerFast:
    """A word-level tokenizer over `SPECIAL`, forty numbered words and `ENGLISH`."""
    from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = [*SPECIAL, *(f"w{index}" for index in range(40)), *ENGLISH.split()]
    tokenizer = Tokenizer(
        models.WordLevel({word: i for i, word in enumerate(vocabulary)}, unk_token="<unk>")
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.add_special_tokens([AddedToken(word, special=True) for word in SPECIAL])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
    )


def save_llama(folder: Path, *, seed: int = 0, context: int = 128) -> Path:
    """A two-layer LLaMA with its tokenizer; heads of 32, the least vLLM takes on a CPU."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = word_tokenizer()
    torch.manual_seed(seed)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=64,
            intermediate_size=96,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=2,
            max_position_embeddings=context,
            initializer_range=0.3,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
        )
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def save_blip2(
    folder: Path, *, seed: int = 0, placeholders: int | None = NUM_QUERIES, t5: bool = False
) -> Path:
    """A BLIP-2 whose captions depend visibly on the image.

    Args:
        folder: Where to save.
        seed: Seed of the weights.
        placeholders: `num_query_tokens` of the processor; None is the well-known broken one.
        t5: Whether its language model is T5, which has an encoder and a decoder, and not OPT.
    """
    import torch
    from transformers import (
        Blip2Config,
        Blip2ForConditionalGeneration,
        Blip2Processor,
        Blip2QFormerConfig,
        Blip2VisionConfig,
        BlipImageProcessor,
        OPTConfig,
        T5Config,
    )

    tokenizer = word_tokenizer()
    torch.manual_seed(seed)
    width = 32
    config = Blip2Config(
        vision_config=Blip2VisionConfig(
            hidden_size=width,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            image_size=32,
            patch_size=16,
            initializer_range=0.3,  # the library's default of 1e-10 sees nothing
        ),
        qformer_config=Blip2QFormerConfig(
            vocab_size=len(tokenizer),
            hidden_size=width,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            encoder_hidden_size=width,
            cross_attention_frequency=1,
            initializer_range=0.3,
        ),
        text_config=T5Config(
            vocab_size=len(tokenizer),
            d_model=width,
            d_kv=16,
            d_ff=64,
            num_layers=2,
            num_heads=2,
            initializer_factor=2.0,
            feed_forward_proj="gated-gelu",
            tie_word_embeddings=False,
            decoder_start_token_id=0,
            pad_token_id=0,
            eos_token_id=2,
        )
        if t5
        else OPTConfig(
            vocab_size=len(tokenizer),
            hidden_size=width,
            word_embed_proj_dim=width,
            ffn_dim=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=96,
            init_std=0.15,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
        ),
        num_query_tokens=NUM_QUERIES,
        image_token_index=SPECIAL.index("<image>"),
    )
    model = Blip2ForConditionalGeneration(config)
    torch.nn.init.normal_(model.query_tokens)
    torch.nn.init.normal_(model.language_projection.weight, std=0.5)
    model.save_pretrained(folder)
    Blip2Processor(
        BlipImageProcessor(size={"height": 32, "width": 32}),
        tokenizer,
        num_query_tokens=placeholders,
    ).save_pretrained(folder)
    return folder


LLAVA_CHAT = (
    "{% for message in messages %}{{ message['role'] | upper }}: "
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>\n{% else %}{{ part['text'] }} {% endif %}"
    "{% endfor %}{% endfor %}{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)


def save_llava(folder: Path, *, seed: int = 0, **processor: object) -> Path:
    """A LLaVA-1.5 of four patches whose captions depend visibly on the image.

    Args:
        folder: Where to save.
        seed: Seed of the weights.
        processor: Changes to the processor's options; what does not fit the model is broken.
    """
    import torch
    from transformers import (
        CLIPImageProcessor,
        CLIPVisionConfig,
        LlamaConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
        LlavaProcessor,
    )

    tokenizer = word_tokenizer()
    torch.manual_seed(seed)
    width = 32
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(
            hidden_size=width,
            intermediate_size=64,
            num_hidden_layers=3,
            num_attention_heads=2,
            image_size=32,
            patch_size=16,
            initializer_factor=10.0,
        ),
        text_config=LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=width,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=2,
            max_position_embeddings=128,
            initializer_range=0.3,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
        ),
        image_token_index=SPECIAL.index("<image>"),
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
    )
    model = LlavaForConditionalGeneration(config)
    for layer in (
        model.model.multi_modal_projector.linear_1,
        model.model.multi_modal_projector.linear_2,
    ):
        torch.nn.init.normal_(layer.weight, std=0.5)
    model.save_pretrained(folder)
    options = {
        "patch_size": 16,
        "vision_feature_select_strategy": "default",
        "num_additional_image_tokens": 1,
        "chat_template": LLAVA_CHAT,
    }
    images = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    LlavaProcessor(images, tokenizer, **options | processor).save_pretrained(folder)
    return folder
