"""The embedded text generator as files and as a function: build, answer, ship."""

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from embedded_world.recipes.training import half_precision

MAX_NEW_TOKENS = 64


def build_model(tokenizer: PreTrainedTokenizerFast, seed: int) -> LlamaForCausalLM:
    """A fresh LLaMA: 128 wide, 5 layers, 4 heads, tied embeddings, 256 positions."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=5,
        num_attention_heads=4,
        num_key_value_heads=4,
        head_dim=32,
        max_position_embeddings=256,
        tie_word_embeddings=True,
        rope_parameters={"rope_type": "default", "rope_theta": 1000.0},
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        attention_dropout=0.0,
        dtype="float32",
    )
    return LlamaForCausalLM(config)


def answer(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    prompts: Sequence[str],
    batch: int = 100,
) -> list[str]:
    """Greedy answers, in the order of the prompts; prompts of a batch are of similar length."""
    return _answer(model, tokenizer, prompts, batch, sample=False)


def sampled_answers(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    prompts: Sequence[str],
    seed: int,
    batch: int = 100,
) -> list[str]:
    """Answers drawn at temperature 1.0 from the whole distribution, in the prompts' order."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return _answer(model, tokenizer, prompts, batch, sample=True)


@torch.inference_mode()
def _answer(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    prompts: Sequence[str],
    batch: int,
    *,
    sample: bool,
) -> list[str]:
    was_training = model.training
    model.eval()
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    answers = [""] * len(prompts)
    for start in range(0, len(order), batch):
        members = order[start : start + batch]
        inputs = tokenizer([prompts[i] for i in members], return_tensors="pt", padding=True)
        output = model.generate(
            input_ids=inputs["input_ids"],
            attention_mask=inputs["attention_mask"],
            **({"do_sample": True, "top_k": 0} if sample else {"do_sample": False}),
            max_new_tokens=MAX_NEW_TOKENS,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
        new = output[:, inputs["input_ids"].shape[1] :]
        for i, ids in zip(members, new, strict=True):
            answers[i] = tokenizer.decode(ids, skip_special_tokens=True)
    model.train(was_training)
    return answers


def ship(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, out: Path) -> None:
    """Write the model in transformers' layout: float16 weights that load as float32.

    The dtype in config.json decides the type that `from_pretrained` loads, not the type on disk.
    """
    out.mkdir(parents=True, exist_ok=True)
    model.config.dtype = torch.float32
    model.config.architectures = ["LlamaForCausalLM"]
    model.config.save_pretrained(out)
    GenerationConfig(
        do_sample=False,
        max_new_tokens=MAX_NEW_TOKENS,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    ).save_pretrained(out)
    tokenizer.save_pretrained(out)
    weights = half_precision(model.state_dict())
    del weights["lm_head.weight"]  # tied to the embeddings
    save_file(weights, out / "model.safetensors", metadata={"format": "pt"})


def load(path: Path) -> tuple[LlamaForCausalLM, PreTrainedTokenizerFast]:
    """Load a shipped model and its tokenizer."""
    config = json.loads((path / "config.json").read_text())
    if config.get("model_type") != "llama":
        raise ValueError(f"{path} holds a {config.get('model_type')!r} model, not a llama")
    model = LlamaForCausalLM.from_pretrained(path)
    return model.eval(), PreTrainedTokenizerFast.from_pretrained(path)
