"""The shipped verifier, served by a real vLLM on the CPU, judges as it does in process."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from random import Random

import numpy as np
import pytest

from models.protocols import EngineUnavailable
from models.verifiers.openai_verifier import OpenAIVerifierSettings
from models.verifiers.prompt import SHORT_PROMPTS
from models.verifiers.protocol import VerificationRequest
from models.verifiers.qwen3_vl import VlmVerifierSettings
from tests.fakes.vllm_server import serving

pytestmark = [pytest.mark.vllm, pytest.mark.slow, pytest.mark.timeout(900)]

SERVED_NAME = "verifier"


@pytest.fixture(scope="module")
def folder(repository: Path) -> Path:
    """The verifier that ships with cirflow."""
    return repository / "models" / "embedded" / "verifier"


@pytest.fixture(scope="module")
def remote(
    vllm_python: str, folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[OpenAIVerifierSettings]:
    """Settings of a server whose answers are compared with the files it serves."""
    log = tmp_path_factory.mktemp("vllm")
    two_images = ("--limit-mm-per-prompt", '{"image": 2, "video": 0}')
    with serving(vllm_python, folder, SERVED_NAME, log, *two_images, context=256) as base_url:
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


def test_what_does_not_fit_is_a_row(remote: OpenAIVerifierSettings) -> None:
    good, long = drawn(1)[:2]
    long = replace(long, text="red " * 300)
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
