"""The in-process text generator against the library's own generate, one prompt at a time."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from models.generators.answers import EMPTY_ANSWER
from models.generators.transformers import TransformersGenerator, TransformersSettings
from models.protocols import TextGenerator, TextReply, TextRequest

PROMPTS = tuple(
    " ".join(f"w{(7 * i + 3 * j) % 40}" for j in range(1 + (5 * i) % 17)) for i in range(24)
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.fakes.checkpoints import save_llama

    return save_llama(tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="module")
def generator(folder: Path) -> TransformersGenerator:
    return load(folder)


def load(folder: Path, **changes: object) -> TransformersGenerator:
    return settings(folder, **changes).load()


def settings(folder: Path, **changes: object) -> TransformersSettings:
    return TransformersSettings(model=str(folder), device="cpu", dtype="fp32", **changes)


def requests_for(prompts: tuple[str, ...] = PROMPTS, **fields: object) -> list[TextRequest]:
    return [
        TextRequest(f"r{i}", prompt, max_new_tokens=20, **fields)
        for i, prompt in enumerate(prompts)
    ]


def by_key(replies: object) -> dict[str, TextReply]:
    listed = list(replies)
    keyed = {reply.key: reply for reply in listed}
    assert len(keyed) == len(listed), "a request was answered twice"
    return keyed


def library_answer(folder: Path, prompt: str, *, adapter: Path | None = None) -> str:
    """One prompt alone, no padding, through `generate`."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    if adapter is not None:
        model.load_adapter(str(adapter))
    encoded = tokenizer(prompt, return_tensors="pt")
    out = model.eval().generate(**encoded, do_sample=False, max_new_tokens=20)
    return tokenizer.decode(out[0, encoded["input_ids"].shape[1] :], skip_special_tokens=True)


def test_fulfils_the_protocol(generator: TransformersGenerator) -> None:
    assert isinstance(generator, TextGenerator)


def test_greedy_batches_equal_the_library_alone(
    generator: TransformersGenerator, folder: Path
) -> None:
    replies = by_key(generator.generate(requests_for()))
    assert {replies[f"r{i}"].text for i in range(24)} != {""}
    for i, prompt in enumerate(PROMPTS):
        expected = library_answer(folder, prompt)
        assert (replies[f"r{i}"].text or EMPTY_ANSWER) == (expected or EMPTY_ANSWER)
        assert replies[f"r{i}"].finish_reason in ("stop", "length")


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_answers_do_not_depend_on_the_batch(
    generator: TransformersGenerator, folder: Path, temperature: float
) -> None:
    wanted = [
        replace(request, seed=i, temperature=temperature, top_p=0.9)
        for i, request in enumerate(requests_for())
    ]
    together = by_key(generator.generate(wanted))
    alone = by_key(load(folder, batch_size=1).generate(wanted[::-1]))
    assert together == alone
    assert len({reply.text for reply in together.values()}) > 12


def test_sampling_follows_the_seed(generator: TransformersGenerator) -> None:
    wanted = [
        TextRequest(f"s{seed}", "w1 w2", max_new_tokens=12, temperature=1.0, seed=seed)
        for seed in range(30)
    ]
    first, again = by_key(generator.generate(wanted)), by_key(generator.generate(wanted))
    assert first == again
    assert len({reply.text for reply in first.values()}) > 20


def test_equal_requests_run_once_and_all_are_answered(
    generator: TransformersGenerator, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    real = TransformersGenerator._answer_batch
    monkeypatch.setattr(
        TransformersGenerator,
        "_answer_batch",
        lambda self, batch: (sizes.append(len(batch)), real(self, batch))[1],
    )
    prompts = ("w1 w2", "w3", "w1 w2", "w1 w2")
    replies = by_key(generator.generate(requests_for(prompts)))
    assert sizes == [2]
    assert sorted(replies) == ["r0", "r1", "r2", "r3"]
    assert replies["r0"].text == replies["r2"].text == replies["r3"].text


def test_stop_strings_end_the_answer(generator: TransformersGenerator) -> None:
    (free,) = generator.generate(requests_for(PROMPTS[:1]))
    words = free.text.split()
    stop = next(word for word in words if word != words[0])
    (stopped,) = generator.generate(requests_for(PROMPTS[:1], stop=(stop, "never said")))
    assert stopped.text == free.text[: free.text.index(stop)].rstrip()
    assert stopped.finish_reason == "stop"


def test_overlong_prompts_are_refused_without_running(generator: TransformersGenerator) -> None:
    long, short = " ".join(["w1"] * 109), " ".join(["w1"] * 108)
    replies = by_key(generator.generate(requests_for((long, short))))  # the context is 128
    assert replies["r0"].status == "overlong"
    assert "109 tokens" in replies["r0"].reason
    assert "128" in replies["r0"].reason
    assert replies["r1"].status != "overlong"


def test_a_failing_prompt_does_not_harm_the_others(
    generator: TransformersGenerator, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = by_key(generator.generate(requests_for()))
    real = TransformersGenerator._answer_batch

    def poisoned(self, batch):
        if any(prompt.request.prompt == PROMPTS[5] for prompt in batch):
            raise RuntimeError("device-side assert")
        return real(self, batch)

    monkeypatch.setattr(TransformersGenerator, "_answer_batch", poisoned)
    replies = by_key(generator.generate(requests_for()))
    assert replies.pop("r5") == TextReply(
        "r5", "", "engine_error", "RuntimeError: device-side assert"
    )
    expected.pop("r5")
    assert replies == expected


def test_the_chat_template_of_the_tokenizer_is_used(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    from tests.fakes.checkpoints import save_llama

    folder = save_llama(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = (
        "{{ bos_token }}make {{ messages[0]['content'] }}"
        "{% if add_generation_prompt %} :{% endif %}"
    )
    tokenizer.save_pretrained(folder)
    plain, chatting = load(folder, chat="never"), load(folder)
    (wrapped,) = chatting.generate([TextRequest("k", "w1 w2")])
    (by_hand,) = plain.generate([TextRequest("k", "<s>make w1 w2 :")])
    (bare,) = plain.generate([TextRequest("k", "w1 w2")])
    assert wrapped.text == by_hand.text != bare.text
    assert settings(folder).fingerprint != settings(folder, chat="never").fingerprint


def test_an_adapter_changes_answers_as_peft_does(folder: Path, tmp_path: Path) -> None:
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(folder)
    torch.manual_seed(1)
    adapted = get_peft_model(base, LoraConfig(r=4, target_modules=["q_proj", "v_proj"]))
    for name, parameter in adapted.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    adapted.save_pretrained(tmp_path)
    replies = by_key(load(folder, adapter=str(tmp_path)).generate(requests_for(PROMPTS[:6])))
    texts = [replies[f"r{i}"].text for i in range(6)]
    assert texts == [library_answer(folder, p, adapter=tmp_path) for p in PROMPTS[:6]]
    assert texts != [library_answer(folder, p) for p in PROMPTS[:6]]


def test_bad_requests_are_refused_with_their_key(generator: TransformersGenerator) -> None:
    with pytest.raises(ValueError, match=r"'k'.*max_new_tokens.*top_p"):
        list(generator.generate([TextRequest("k", "w1", max_new_tokens=0, top_p=0.0)]))
