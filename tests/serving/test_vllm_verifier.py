"""The shipped verifier, served by a real vLLM on the CPU, judges as it does in process.

It is served with a token for each mark of a grid, so that one server answers about pairs and grids.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from random import Random

import numpy as np
import pytest

from models.metering import measuring
from models.protocols import EngineUnavailable
from models.verifiers.openai_verifier import OpenAIVerifierSettings
from models.verifiers.prompt import SHORT_PROMPTS
from models.verifiers.protocol import GridRequest, VerificationRequest, sigmoid
from models.verifiers.qwen3_vl import VlmVerifierSettings
from tests.fakes.vllm_server import serving

pytestmark = [pytest.mark.vllm, pytest.mark.slow, pytest.mark.timeout(900)]

SERVED_NAME = "verifier"
CONTEXT = 512
CELL = 94


@pytest.fixture(scope="module")
def folder(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The verifier that ships with cirflow, which knows marks and leaves a grid as large as it is.

    The rows of the numbers are near those of the answers, so that they are among the tokens that a
    server lists; which of them is likelier depends on what the model sees.
    """
    import torch

    from embedded_world.recipes.list_model import grid_processor, marked_tokenizer, with_marks
    from embedded_world.recipes.verifier_model import ship
    from models.verifiers.grid import NUMBERS

    made = tmp_path_factory.mktemp("served") / "verifier"
    tokenizer = marked_tokenizer()
    token = tokenizer.convert_tokens_to_ids
    model = with_marks(repository / "models" / "embedded" / "verifier", tokenizer, seed=0)
    rows = model.get_input_embeddings().weight
    with torch.no_grad():
        rows[token(list(NUMBERS))] += (rows[token(" yes")] + rows[token(" no")]) / 2
    ship(model, grid_processor(tokenizer, CELL), made)
    return made


@pytest.fixture(scope="module")
def remote(
    vllm_python: str, folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[OpenAIVerifierSettings]:
    """Settings of a server whose answers are compared with the files it serves."""
    log = tmp_path_factory.mktemp("vllm")
    two_images = ("--limit-mm-per-prompt", '{"image": 2, "video": 0}')
    with serving(vllm_python, folder, SERVED_NAME, log, *two_images, context=CONTEXT) as base_url:
        yield OpenAIVerifierSettings(
            model=SERVED_NAME, base_url=base_url, prompts=SHORT_PROMPTS, same_as=str(folder)
        )


def drawn(count: int = 12) -> list[VerificationRequest]:
    """Requests about held-out queries."""
    from embedded_world.recipes.verifier_measures import pictures, request
    from embedded_world.recipes.verifier_queries import draw_query

    rng, requests = Random("served"), []
    for number in range(count):
        query = draw_query(rng, held_out=True)
        reference, *candidates = pictures(query, number)
        requests += [
            request(f"{number}", reference, query.text, f"{number}/{i}", candidate)
            for i, candidate in enumerate(candidates)
        ]
    return requests


def test_margins_are_those_of_this_process(remote: OpenAIVerifierSettings, folder: Path) -> None:
    local = VlmVerifierSettings(
        model=str(folder), device="cpu", dtype="fp32", prompts=SHORT_PROMPTS
    )
    requests = drawn()
    here = {answer.key: answer for answer in local.load().verify(requests)}
    there = {answer.key: answer for answer in remote.load().verify(requests)}
    assert {answer.status for answer in there.values()} == {"ok"}
    pairs = [(there[r.key].margin, here[r.key].margin) for r in requests]
    served, own = np.array(pairs, np.float64).T
    assert np.abs(served - own).max() < 1e-3
    ranks = [values.argsort().argsort() for values in (served, own)]
    assert np.corrcoef(ranks)[0, 1] > 0.9999
    assert np.ptp(own) > 5, "two that see nothing would also be equal"
    assert {r.key: there[r.key].answer for r in requests} == {k: a.answer for k, a in here.items()}


def drawn_grids(numbers: Sequence[int] = (3, 5, 9)) -> list[GridRequest]:
    """Requests about lists of held-out candidates, eight of each length."""
    from embedded_world.recipes.list_measures import grid_requests, list_pictures
    from embedded_world.recipes.list_queries import draw_lists

    rng, requests = Random("served grids"), []
    for count in numbers:
        lists = draw_lists(rng, 8, count, two_edits=0.5)
        drawn = [list_pictures(own, number) for number, own in enumerate(lists)]
        requests += [replace(r, key=f"{count}/{r.key}") for r in grid_requests(lists, drawn)]
    return requests


def test_choices_are_those_of_this_process(remote: OpenAIVerifierSettings, folder: Path) -> None:
    local = VlmVerifierSettings(
        model=str(folder), device="cpu", dtype="fp32", prompts=SHORT_PROMPTS
    )
    requests = drawn_grids()
    with measuring() as here_meter:
        here = {choice.key: choice for choice in local.load().choose(requests)}
    served = remote.changed(skip_self_test=True).load()
    with measuring() as there_meter:
        there = {choice.key: choice for choice in served.choose(requests)}
    assert {choice.status for choice in there.values()} == {"ok"}
    assert there_meter.spent.prompt_tokens == here_meter.spent.prompt_tokens
    pairs = [
        (sigmoid(a), sigmoid(b))
        for r in requests
        for a, b in zip(there[r.key].margins, here[r.key].margins, strict=True)
    ]
    far, own = np.array(pairs, np.float64).T
    ranks = [values.argsort().argsort() for values in (far, own)]
    assert np.abs(far - own).max() < 1e-4
    assert np.corrcoef(ranks)[0, 1] > 0.9999
    assert np.ptp(own) > 0.3, "marks that are all alike would also be equal"
    masses = [(there[r.key].mass, here[r.key].mass) for r in requests]
    assert np.allclose(*zip(*masses, strict=True), atol=1e-3)


def test_a_served_reader_of_grids_passes_the_test_at_the_start(
    remote: OpenAIVerifierSettings,
) -> None:
    (request,) = drawn_grids()[:1]
    (choice,) = remote.load().choose([request])
    assert choice.status == "ok"
    assert len(choice.margins) == len(request.marks)


def test_what_does_not_fit_is_a_row(remote: OpenAIVerifierSettings) -> None:
    good, long = drawn(1)[:2]
    long = replace(long, text="red " * 2 * CONTEXT)
    found = {a.key: a for a in remote.changed(skip_self_test=True).load().verify([good, long])}
    assert found[good.key].status == "ok"
    assert (found[long.key].status, found[long.key].margin) == ("overlong", None)


def test_another_prompt_than_in_process_is_refused(
    remote: OpenAIVerifierSettings, tmp_path: Path
) -> None:
    """The files on this machine are others: their chat template asks nothing at the end."""
    import shutil

    other = shutil.copytree(remote.same_as, tmp_path / "other")
    template = other / "chat_template.jinja"
    template.write_text(template.read_text().replace("<ask>", "<ask><ask>"))
    with pytest.raises(EngineUnavailable, match="tokens, in process they have"):
        list(remote.changed(same_as=str(other)).load().verify(drawn(1)))
