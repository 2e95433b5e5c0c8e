"""A real vLLM server on the CPU gives the answers that the in-process generator gives."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from models.generators.openai_server import OpenAIServerGenerator, OpenAIServerSettings
from models.generators.rewriting import RewriteInput, RewriteSettings, read_reply, to_request
from models.generators.transformers import TransformersGenerator, TransformersSettings
from models.prompts.library import load_prompt
from models.protocols import TextGenerator, TextReply, TextRequest
from tests.fakes.vllm_server import serving

pytestmark = [pytest.mark.vllm, pytest.mark.slow, pytest.mark.timeout(900)]

SERVED_NAME = "edit-model"
CONTEXT = 128
EMBEDDED_LLAMA = Path(__file__).parents[2] / "models" / "embedded" / "llama"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The text generator that ships with cirflow, or a random one of the same architecture."""
    from tests.fakes.checkpoints import save_llama

    if (EMBEDDED_LLAMA / "config.json").exists():
        return EMBEDDED_LLAMA
    return save_llama(tmp_path_factory.mktemp("llama"), context=CONTEXT)


@pytest.fixture(scope="module")
def base_url(
    vllm_python: str, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """A running server, stopped at the end of the module."""
    folder = tmp_path_factory.mktemp("vllm")
    with serving(vllm_python, checkpoint, SERVED_NAME, folder, context=CONTEXT) as url:
        yield url


@pytest.fixture(scope="module")
def local(checkpoint: Path) -> TransformersGenerator:
    return TransformersSettings(
        model=str(checkpoint), device="cpu", dtype="fp32", chat="never"
    ).load()


@pytest.fixture(scope="module")
def remote(base_url: str) -> OpenAIServerGenerator:
    return OpenAIServerSettings(
        base_url=base_url, model=SERVED_NAME, api="completions", health_wait_seconds=10.0
    ).load()


def edit_requests() -> list[TextRequest]:
    """Edits of the embedded world, as the edit step asks for them."""
    prompt, settings = load_prompt("edit_short"), RewriteSettings(max_new_tokens=48)
    colours = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "cyan")
    shapes = ("circle", "square", "triangle", "star", "cross", "heart")
    return [
        to_request(
            RewriteInput(
                f"at the top left a small striped {colour} {shape}, in the center a large solid "
                f"blue star, on a white background",
                f"make the {shape} at the top left {new}",
            ),
            prompt,
            settings,
        )
        for colour, new in zip(colours, colours[1:] + colours[:1], strict=True)
        for shape in shapes
    ]


def answers(generator: TextGenerator, requests: list[TextRequest]) -> dict[str, TextReply]:
    return {reply.key: reply for reply in generator.generate(requests)}


def test_greedy_edits_equal_those_in_process(
    remote: OpenAIServerGenerator, local: TransformersGenerator
) -> None:
    requests = edit_requests()
    served, expected = answers(remote, requests), answers(local, requests)
    assert len(served) == len(expected) == len(requests)
    for key, reply in expected.items():
        assert (served[key].status, served[key].text) == (reply.status, reply.text)
        assert served[key].finish_reason == reply.finish_reason
    settings = RewriteSettings()
    read = {k: read_reply(reply, "edit", settings) for k, reply in served.items()}
    assert read == {k: read_reply(reply, "edit", settings) for k, reply in expected.items()}


def test_the_shipped_model_edits_through_the_server(
    remote: OpenAIServerGenerator, checkpoint: Path
) -> None:
    if checkpoint != EMBEDDED_LLAMA:
        pytest.skip("the shipped text generator is not there; a random one edits nothing")
    served = answers(remote, edit_requests())
    assert {reply.status for reply in served.values()} == {"ok"}
    assert len({reply.text for reply in served.values()}) > len(served) // 2


def test_many_seeded_samples_neither_kill_the_server_nor_depend_on_load(
    remote: OpenAIServerGenerator,
) -> None:
    requests = [
        TextRequest(f"k{i}", "Image Content: red star", 12, temperature=1.0, top_p=0.9, seed=i)
        for i in range(48)
    ]
    together = answers(remote, requests)
    alone = answers(remote, requests[:6])
    assert {reply.status for reply in together.values()} <= {"ok", "rejected"}
    assert len({reply.text for reply in together.values()}) > 24
    for key, reply in alone.items():
        assert reply.text == together[key].text


def test_overlong_prompts_are_named(remote: OpenAIServerGenerator) -> None:
    (reply,) = remote.generate([TextRequest("k", "star " * 200, 16)])
    assert reply.status == "overlong"
    assert str(CONTEXT) in reply.reason
    assert reply.attempts == 1


def test_a_model_that_is_not_served_is_refused(base_url: str) -> None:
    from models.generators.openai_session import ServerUnusable

    settings = OpenAIServerSettings(base_url=base_url, model="vicuna")
    with pytest.raises(ServerUnusable, match=f"does not serve 'vicuna'; it serves '{SERVED_NAME}'"):
        settings.load().check()
