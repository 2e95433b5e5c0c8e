"""An adapter tuned here and served by name by a real vLLM server answers as it does in process."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from flows.profiles import EMBEDDED
from models.generators.openai_server import OpenAIServerSettings
from models.generators.transformers import TransformersGenerator, TransformersSettings
from models.instructcir.rewriter_examples import ExampleSource, captioned_pairs
from models.instructcir.rewriter_settings import BaseLlm, TuningConfig
from models.prompts.library import load_prompt
from models.protocols import TextGenerator, TextReply, TextRequest
from tests.fakes.new_style import recoloured_pairs
from tests.fakes.vllm_server import serving

LLAMA = EMBEDDED / "llama"
PROMPT = load_prompt("instructcir_difference", ("caption_a", "caption_b"))
ADAPTER, BASE, CONTEXT = "rewriter-v1", "rewriter-base", 256
"""Name of the adapter on the server, of its base, and of tokens in a prompt and its answer."""


def pairs(seed: int, count: int, *, held_out: bool) -> ExampleSource:
    return captioned_pairs("drawn", recoloured_pairs(seed, count, held_out=held_out), PROMPT)


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[float]]:
    """The shipped text generator, tuned on a style of text that it never saw; and its losses."""
    from tasks.training.rewriter import RewriterJob, TuningData, tune_rewriter

    data = TuningData([pairs(0, 400, held_out=False)])
    job = RewriterJob(
        root=str(tmp_path_factory.mktemp("root")),
        base=BaseLlm(model=str(LLAMA), device="cpu", dtype="fp32"),
        config=TuningConfig(epochs=6, batch_size=32, micro_batch=32, learning_rate=5e-3),
        prompt_sha256=str(PROMPT.fingerprint["prompt_sha256"]),
        data_sha256=data.sha256,
        counts=data.counts,
        benchmarks=(),
    )
    started = time.process_time()
    result = tune_rewriter.fn(job, data)
    print(f"{result['steps']} steps in {time.process_time() - started:.0f} CPU seconds")
    return Path(result["adapter"]), [result["first_loss"], result["last_loss"]]


def local(adapter: Path | None) -> TransformersGenerator:
    return TransformersSettings(
        model=str(LLAMA), adapter=str(adapter or ""), device="cpu", dtype="fp32"
    ).load()


def answers(generator: TextGenerator, count: int = 100) -> list[TextReply]:
    """Greedy answers to pairs that were not trained on."""
    asked = pairs(1, count, held_out=True).pairs
    requests = [TextRequest(str(i), pair.prompt, 24) for i, pair in enumerate(asked)]
    return sorted(generator.generate(requests), key=lambda reply: int(reply.key))


def in_new_style(replies: list[TextReply]) -> float:
    return sum(reply.text.startswith("the ") and " into " in reply.text for reply in replies) / len(
        replies
    )


@pytest.mark.slow
def test_the_shipped_model_takes_up_a_new_style(tuned: tuple[Path, list[float]]) -> None:
    adapter, (first, last) = tuned
    assert last < 0.5 * first
    assert in_new_style(answers(local(None))) == 0.0
    assert in_new_style(answers(local(adapter))) > 0.8


@pytest.fixture(scope="module")
def base_url(
    vllm_python: str, tuned: tuple[Path, list[float]], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    options = ("--enable-lora", "--max-lora-rank", "16")
    with serving(
        *(vllm_python, LLAMA, BASE, tmp_path_factory.mktemp("vllm"), *options),
        *("--lora-modules", f"{ADAPTER}={tuned[0]}"),
        context=CONTEXT,
    ) as url:
        yield url


@pytest.mark.vllm
@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("api", ["chat", "completions"])
def test_greedy_answers_by_name_equal_those_in_process(
    base_url: str, tuned: tuple[Path, list[float]], api: str
) -> None:
    adapter, _ = tuned
    # The shipped chat template passes a message through, so both endpoints get the same tokens.
    served = OpenAIServerSettings(
        base_url=base_url, model=ADAPTER, adapter=str(adapter) if api == "chat" else "", api=api
    )
    bare = OpenAIServerSettings(base_url=base_url, model=BASE, api=api)
    from_server = answers(served.load())
    assert [r.text for r in from_server] == [r.text for r in answers(local(adapter))]
    assert [r.text for r in answers(bare.load())] == [r.text for r in answers(local(None))]
    assert in_new_style(from_server) > 0.8
