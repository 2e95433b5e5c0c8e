"""LoRA tuning of the rewriter: what is learned from, the loss by hand, resuming, and loading."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from models.checkpoints import checkpoint_identity
from models.generators.adapter_card import CARD_FILE, AdapterCard, read_card, weights_hash
from models.generators.openai_server import OpenAIServerSettings
from models.generators.transformers import TransformersGenerator, TransformersSettings
from models.instructcir.rewriter_settings import ALL_PROJECTIONS, BaseLlm, Example, TuningConfig
from models.protocols import TextRequest

if TYPE_CHECKING:
    from models.instructcir.rewriter_tuning import RewriterTuning

PAIRS = [
    Example("make it red :", "w1 w2 w3"),
    Example("make a small star blue :", "w4 w5"),
    Example("w30 :", "w6"),
    Example("w31 w32 w33 :", "w7 w8 w9 w10 w11"),
    Example("a large star :", "w12 w13"),
]
QUICK = TuningConfig(rank=4, epochs=3, batch_size=2, micro_batch=1, learning_rate=1e-2, seed=5)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> BaseLlm:
    from tests.fakes.checkpoints import save_llama

    folder = save_llama(tmp_path_factory.mktemp("llama"))
    return BaseLlm(model=str(folder), device="cpu", dtype="fp32")


def card_of(base: BaseLlm, **changes: object) -> AdapterCard:
    card = AdapterCard(
        base="tiny",
        base_weights_sha256=weights_hash(checkpoint_identity(base.model)),
        form="raw",
        prompt_sha256="p",
        data_sha256="d",
    )
    return replace(card, **changes)


def write_adapter(folder: Path, training: RewriterTuning, card: AdapterCard) -> Path:
    folder.mkdir(exist_ok=True)
    for name, data in training.adapter_files(card.base).items():
        (folder / name).write_bytes(data)
    (folder / CARD_FILE).write_text(card.as_json())
    return folder


@pytest.fixture(scope="module")
def tuned(base: BaseLlm) -> RewriterTuning:
    """A run that learned the five answers by heart."""
    from models.instructcir.rewriter_tuning import RewriterTuning

    config = QUICK.changed(rank=8, epochs=80, batch_size=5, micro_batch=5, dropout=0.0)
    training = RewriterTuning(config, base, PAIRS)
    training.run()
    return training


@pytest.fixture(scope="module")
def adapter(base: BaseLlm, tuned: RewriterTuning, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_adapter(tmp_path_factory.mktemp("adapter"), tuned, card_of(base))


def test_the_prompt_is_put_as_in_use_and_the_answer_ends(base: BaseLlm) -> None:
    from transformers import AutoTokenizer

    from models.instructcir.rewriter_tuning import tokenise_pairs

    tokenizer = AutoTokenizer.from_pretrained(base.model)
    rows = tokenise_pairs(tokenizer, PAIRS, False, 128)
    for pair, row in zip(PAIRS, rows, strict=True):
        assert list(row.ids[: row.answer_at]) == tokenizer(pair.prompt)["input_ids"]
        assert tokenizer.decode(row.ids[row.answer_at :]) == f"{pair.answer} </s>"


def test_a_chat_prompt_carries_its_template_and_one_bos(base: BaseLlm) -> None:
    from transformers import AutoTokenizer

    from models.instructcir.rewriter_tuning import tokenise_pairs

    tokenizer = AutoTokenizer.from_pretrained(base.model)
    tokenizer.chat_template = (
        "{{ bos_token }}{% for m in messages %}w0 {{ m['content'] }} w1{% endfor %}"
    )
    (row,) = tokenise_pairs(tokenizer, [Example("red :", "blue")], True, 128)
    assert tokenizer.convert_ids_to_tokens(row.ids) == [
        "<s>",
        "w0",
        "red",
        ":",
        "w1",
        "blue",
        "</s>",
    ]
    assert row.answer_at == 5


def test_nothing_is_cut(base: BaseLlm) -> None:
    from transformers import AutoTokenizer

    from models.instructcir.rewriter_tuning import tokenise_pairs

    tokenizer = AutoTokenizer.from_pretrained(base.model)
    fits = Example(" ".join(["star"] * 10), "red")
    assert len(tokenise_pairs(tokenizer, [fits], False, 12)) == 1
    with pytest.raises(
        ValueError, match=r"1 of 2 pairs does not fit .* 11 tokens; the first has 12"
    ):
        tokenise_pairs(tokenizer, [PAIRS[0], fits], False, 11)


def test_an_answer_without_a_token_of_its_own_is_refused(base: BaseLlm) -> None:
    from transformers import AutoTokenizer

    from models.instructcir.rewriter_tuning import tokenise_pairs

    tokenizer = AutoTokenizer.from_pretrained(base.model)
    with pytest.raises(ValueError, match="does not begin with a token of its own"):
        tokenise_pairs(tokenizer, [Example("red :", " ")], False, None)


def test_the_loss_is_that_of_the_answers_alone(base: BaseLlm) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from models.instructcir.rewriter_tuning import answer_loss, tokenise_pairs

    model = AutoModelForCausalLM.from_pretrained(base.model).eval()
    rows = tokenise_pairs(AutoTokenizer.from_pretrained(base.model), PAIRS, False, None)
    expected = 0.0
    for row in rows:  # one by one, without padding
        with torch.no_grad():
            surprise = -model(torch.tensor([row.ids])).logits[0].double().log_softmax(-1)
        expected += sum(
            float(surprise[place - 1, row.ids[place]])
            for place in range(row.answer_at, len(row.ids))
        )
    assert answer_loss(model, rows, torch.device("cpu")).item() == pytest.approx(expected, rel=1e-5)


def test_a_batch_may_be_cut_for_memory(base: BaseLlm) -> None:
    from models.instructcir.rewriter_tuning import RewriterTuning

    whole = RewriterTuning(QUICK.changed(dropout=0.0, micro_batch=2), base, PAIRS)
    cut = RewriterTuning(QUICK.changed(dropout=0.0, micro_batch=1), base, PAIRS)
    whole.run(3)
    cut.run(3)
    assert whole.losses == pytest.approx(cut.losses, rel=1e-4)


def test_recomputed_activations_change_nothing(base: BaseLlm) -> None:
    from models.instructcir.rewriter_tuning import RewriterTuning

    plain = RewriterTuning(QUICK, base, PAIRS)
    frugal = RewriterTuning(QUICK.changed(gradient_checkpointing=True), base, PAIRS)
    plain.run(3)
    frugal.run(3)
    assert frugal.losses == pytest.approx(plain.losses, rel=1e-5)


def test_every_projection_is_adapted_and_nothing_else_learns(base: BaseLlm) -> None:
    from models.instructcir.rewriter_tuning import RewriterTuning

    training = RewriterTuning(QUICK, base, PAIRS)
    names = [name for name, p in training.model.named_parameters() if p.requires_grad]
    assert len(names) == 2 * 2 * len(ALL_PROJECTIONS)  # A and B in two blocks
    assert all("lora_" in name for name in names)


def test_learning_rates_by_hand(base: BaseLlm) -> None:
    """Nine steps, of which a third rises to the peak; then a cosine over six."""
    from models.instructcir.rewriter_tuning import RewriterTuning

    training = RewriterTuning(QUICK.changed(learning_rate=0.1, warmup=1 / 3), base, PAIRS)
    rates = []
    for step in range(9):
        training.run(step + 1)
        rates.append(training._optimizer.param_groups[0]["lr"])
    cosine = [0.05 * (1 + math.cos(math.pi * i / 6)) for i in range(6)]
    assert rates == pytest.approx([0.1 / 3, 0.2 / 3, 0.1, *cosine])


def test_every_epoch_takes_every_pair_once_in_another_order(base: BaseLlm) -> None:
    from models.instructcir.rewriter_tuning import RewriterTuning

    training = RewriterTuning(QUICK, base, PAIRS)
    assert training.steps == 9
    epochs = [
        [i for step in range(start, start + 3) for i in training._members(step)]
        for start in (0, 3, 6)
    ]
    assert [sorted(epoch) for epoch in epochs] == [list(range(5))] * 3
    assert len({tuple(epoch) for epoch in epochs}) > 1


@pytest.mark.parametrize("stops", [(1,), (3, 4, 8)])
def test_stopped_and_resumed_equals_undisturbed(base: BaseLlm, stops: tuple[int, ...]) -> None:
    import torch

    from models.instructcir.rewriter_tuning import RewriterTuning

    undisturbed = RewriterTuning(QUICK, base, PAIRS)
    undisturbed.run()
    resumed = RewriterTuning(QUICK, base, PAIRS)
    for stop in stops:
        resumed.run(stop)
        state = resumed.save()
        torch.rand(7)  # whatever else the process draws
        resumed = RewriterTuning(QUICK, base, PAIRS)
        resumed.load(state)
        assert resumed.step == stop
    resumed.run()
    assert resumed.losses == undisturbed.losses
    assert resumed.adapter_files("tiny") == undisturbed.adapter_files("tiny")
    start = RewriterTuning(QUICK, base, PAIRS).adapter_files("tiny")
    assert start != undisturbed.adapter_files("tiny")


def test_a_diverging_run_says_so(base: BaseLlm) -> None:
    import torch

    from models.instructcir.rewriter_tuning import RewriterTuning

    training = RewriterTuning(QUICK, base, PAIRS)
    with torch.no_grad():
        training.model.get_base_model().lm_head.weight.fill_(math.nan)
    with pytest.raises(FloatingPointError, match="lower the learning rate"):
        training.run()


def test_the_adapter_names_no_path(base: BaseLlm, adapter: Path) -> None:
    from safetensors.numpy import load as load_tensors

    config = json.loads((adapter / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "tiny"
    assert config["target_modules"] == sorted(ALL_PROJECTIONS)
    assert base.model not in (adapter / "adapter_config.json").read_text()
    tensors = load_tensors((adapter / "adapter_model.safetensors").read_bytes())
    assert all(np.isfinite(tensor).all() for tensor in tensors.values())


def ask(generator: TransformersGenerator, prompts: list[str]) -> list[str]:
    requests = [TextRequest(prompt, prompt, 8) for prompt in prompts]
    replies = {reply.key: reply.text for reply in generator.generate(requests)}
    return [replies[prompt] for prompt in prompts]


def local(model: str | Path, adapter: Path | str = "") -> TransformersSettings:
    return TransformersSettings(model=str(model), adapter=str(adapter), device="cpu")


def test_it_answers_as_it_was_taught_with_the_adapter_and_merged(
    base: BaseLlm, tuned: RewriterTuning, adapter: Path, tmp_path: Path
) -> None:
    from models.instructcir.rewriter_tuning import merge_adapter

    assert tuned.losses[-1] < 0.2 * tuned.losses[0]
    prompts = [pair.prompt for pair in PAIRS]
    wanted = [pair.answer for pair in PAIRS]
    assert ask(local(base.model).load(), prompts) != wanted
    assert ask(local(base.model, adapter).load(), prompts) == wanted
    merge_adapter(base, adapter, tmp_path / "merged")
    assert ask(local(tmp_path / "merged").load(), prompts) == wanted


def test_another_base_is_refused(adapter: Path, tmp_path: Path) -> None:
    from tests.fakes.checkpoints import save_llama

    other = local(save_llama(tmp_path / "other", seed=1), adapter)
    with pytest.raises(ValueError, match="tuned on tiny with weights"):
        _ = other.fingerprint
    with pytest.raises(ValueError, match="load the base that it was tuned on"):
        ask(other.load(), ["red"])


def test_another_form_of_prompts_is_refused(
    base: BaseLlm, tuned: RewriterTuning, tmp_path: Path
) -> None:
    folder = write_adapter(tmp_path / "chat", tuned, card_of(base, form="chat"))
    with pytest.raises(ValueError, match="tuned on chat prompts, but would be asked in raw form"):
        _ = local(base.model, folder).fingerprint
    with pytest.raises(ValueError, match="tuned on chat prompts"):
        served(folder, "completions").load()
    assert served(folder, "chat").fingerprint["adapter"]


def served(adapter: Path, api: str) -> OpenAIServerSettings:
    return OpenAIServerSettings(
        base_url="http://127.0.0.1:1/v1", model="edit", adapter=str(adapter), api=api
    )


def test_who_saw_texts_of_benchmarks_says_so_wherever_it_runs(
    base: BaseLlm, tuned: RewriterTuning, adapter: Path, tmp_path: Path
) -> None:
    from models.instructcir.rewriter_tuning import merge_adapter

    assert "saw_benchmark_texts" not in local(base.model, adapter).fingerprint
    card = card_of(base, saw_benchmark_texts=("cirr", "fashioniq"))
    folder = write_adapter(tmp_path / "gt", tuned, card)
    assert read_card(folder) == card
    merge_adapter(base, folder, tmp_path / "merged")
    (tmp_path / "merged" / CARD_FILE).write_text(replace(card, merged=True).as_json())
    for generator in (
        local(base.model, folder),
        local(tmp_path / "merged"),
        served(folder, "completions"),
    ):
        assert generator.fingerprint["saw_benchmark_texts"] == ["cirr", "fashioniq"]


def test_a_broken_card_is_no_card(tmp_path: Path) -> None:
    assert read_card(tmp_path) is None
    (tmp_path / CARD_FILE).write_text('{"base": "x"}')
    with pytest.raises(ValueError, match="is not the card of an adapter"):
        read_card(tmp_path)


@pytest.mark.parametrize(
    "wrong", [{"rank": 0}, {"learning_rate": 0.0}, {"dropout": 1.0}, {"micro_batch": 0}]
)
def test_values_without_a_meaning_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        TuningConfig(**wrong)


def test_no_pairs_no_run(base: BaseLlm) -> None:
    from models.instructcir.rewriter_tuning import RewriterTuning

    with pytest.raises(ValueError, match="there is no pair"):
        RewriterTuning(QUICK, base, [])
