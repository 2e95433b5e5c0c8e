"""The shipped text generator: it loads by the libraries' own means and answers shipped prompts."""

from pathlib import Path

import pytest

from embedded_world.instruction_reader import apply_instruction
from embedded_world.recipes.text_prompts import edit_prompt
from embedded_world.scenes import Thing, make_scene
from models.generators.transformers import TransformersSettings
from models.prompts.library import load_prompt
from models.protocols import TextRequest

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def shipped(repository: Path) -> Path:
    return repository / "models" / "embedded" / "llama"


def test_it_loads_as_float32_from_float16_files(shipped: Path) -> None:
    import torch
    from safetensors import safe_open
    from transformers import AutoModelForCausalLM, LlamaForCausalLM

    model = AutoModelForCausalLM.from_pretrained(shipped)
    assert type(model) is LlamaForCausalLM
    assert model.dtype == torch.float32
    assert model.lm_head.weight is model.model.embed_tokens.weight
    with safe_open(shipped / "model.safetensors", "pt") as file:
        assert {file.get_tensor(name).dtype for name in file.keys()} == {torch.float16}  # noqa: SIM118


def test_its_tokenizer_is_the_recipe_s(shipped: Path) -> None:
    from transformers import AutoTokenizer

    from embedded_world.recipes.text_tokenizer import build_text_tokenizer

    tokenizer = AutoTokenizer.from_pretrained(shipped)
    made = build_text_tokenizer()
    assert tokenizer.get_vocab() == made.get_vocab()
    assert tokenizer.chat_template == made.chat_template
    assert tokenizer.padding_side == "left"
    prompt = edit_prompt("on the left a small solid red star", "make the star blue")
    assert tokenizer(prompt)["input_ids"] == made(prompt)["input_ids"]


def test_plain_generate_answers_greedily_and_stops(shipped: Path) -> None:
    from transformers import AutoModelForCausalLM

    from embedded_world.recipes.text_tokenizer import build_text_tokenizer

    model, tokenizer = AutoModelForCausalLM.from_pretrained(shipped), build_text_tokenizer()
    prompt = edit_prompt(
        "at the top a small solid red star, on a white background", "make the star blue"
    )
    output = model.generate(**tokenizer(prompt, return_tensors="pt"))
    text = tokenizer.decode(output[0], skip_special_tokens=True)
    assert text.endswith("at the top a small solid blue star, on a white background")
    assert output[0, -1] == tokenizer.eos_token_id


def test_the_generator_tells_a_difference_from_the_prompt_that_ships(shipped: Path) -> None:
    generator = TransformersSettings(model=str(shipped), device="cpu").load()
    prompt = load_prompt("instructcir_difference", ("caption_a", "caption_b")).render(
        caption_a="at the top a small solid red star, on a white background",
        caption_b="at the top a small solid blue star, on a white background",
    )
    [reply] = generator.generate([TextRequest(key="one", prompt=prompt)])
    before = make_scene("white", {1: Thing("small", "solid", "red", "star")})
    after = make_scene("white", {1: Thing("small", "solid", "blue", "star")})
    assert apply_instruction(reply.text, before) == after


def test_shipping_again_changes_no_answer(shipped: Path, tmp_path: Path) -> None:
    import torch

    from embedded_world.recipes.text_model import answer, load, ship

    model, tokenizer = load(shipped)
    ship(model, tokenizer, tmp_path)
    again, _ = load(tmp_path)
    prompts = [edit_prompt("on the left a large striped pink heart", "make the heart small")] * 2
    assert answer(model, tokenizer, prompts) == answer(again, tokenizer, prompts)
    theirs = again.state_dict()
    assert all(torch.equal(value, theirs[name]) for name, value in model.state_dict().items())
