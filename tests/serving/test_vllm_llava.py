"""The shipped LLaVA, served by a real vLLM on the CPU, captions as it does in process.

The files are served as they are shipped: what vLLM makes of the checkpoint's key names, processor
and chat template is tested here and nowhere else.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random

import pytest
from PIL import Image

from embedded_world.drawing import draw
from embedded_world.recipes.caption_scores import attribute_accuracy
from embedded_world.scenes import sample_scenes
from models.captioners.llava import LlavaSettings
from models.captioners.openai_images import OpenAIImagesSettings
from models.protocols import Captioner, CaptionReply, CaptionSampling
from tasks.engines import load_captioner
from tests.fakes.pictures import encoded
from tests.fakes.vllm_server import serving

pytestmark = [pytest.mark.vllm, pytest.mark.slow, pytest.mark.timeout(900)]

SERVED_NAME = "llava"
GREEDY = CaptionSampling(n=1, mode="greedy", max_new_tokens=128)
SCENES = sample_scenes(Random("served"), 48, held_out=True)


@pytest.fixture(scope="module")
def folder(repository: Path) -> Path:
    """The LLaVA that ships with cirflow."""
    return repository / "models" / "embedded" / "llava"


@pytest.fixture(scope="module")
def local(folder: Path) -> Captioner:
    """The captioner that a run in process takes."""
    return load_captioner(LlavaSettings(model=str(folder), device="cpu", dtype="fp32"))


@pytest.fixture(scope="module")
def remote(
    vllm_python: str, folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Captioner]:
    """The captioner that a run takes when it is told of a server."""
    log = tmp_path_factory.mktemp("vllm")
    one_image = ("--limit-mm-per-prompt", '{"image": 1}')
    with serving(vllm_python, folder, SERVED_NAME, log, *one_image, context=256) as base_url:
        yield load_captioner(OpenAIImagesSettings(model=SERVED_NAME, base_url=base_url))


def drawn() -> list[tuple[str, Image.Image]]:
    """Pictures as they come out of PNG files."""
    files = [encoded(draw(scene, i), "PNG") for i, scene in enumerate(SCENES)]
    return [(f"scene{i}", Image.open(io.BytesIO(data))) for i, data in enumerate(files)]


def captions(
    captioner: Captioner, images: Sequence[tuple[str, Image.Image]], sampling: CaptionSampling
) -> dict[str, CaptionReply]:
    """Replies by key."""
    return {reply.key: reply for reply in captioner.caption(images, sampling)}


def test_drawn_pictures_get_the_captions_of_this_process(
    remote: Captioner, local: Captioner
) -> None:
    served = captions(remote, drawn(), GREEDY)
    assert served == captions(local, drawn(), GREEDY)
    accuracy = attribute_accuracy([served[f"scene{i}"].captions[0] for i in range(48)], SCENES)
    assert min(accuracy.values()) > 0.8, "two that are wrong alike would also be equal"


def test_photographs_get_the_captions_of_this_process(
    remote: Captioner, local: Captioner, shared_data: Path
) -> None:
    """Scaled and cut by either side's image processor; the words mean nothing."""
    files = sorted((shared_data / "clothing" / "images").glob("*/*.jpg"))[::26]
    assert len(files) >= 60
    photographs = [(file.stem, Image.open(file)) for file in files]
    assert any(photo.size != (96, 96) for _, photo in photographs)
    served = captions(remote, photographs, GREEDY)
    assert served == captions(local, photographs, GREEDY)
    assert {reply.status for reply in served.values()} == {"ok"}


def test_samples_come_by_the_number_asked_for(remote: Captioner) -> None:
    nucleus = CaptionSampling(n=5, temperature=2.0, max_new_tokens=40, seed=1)
    replies = captions(remote, drawn()[:3], nucleus)
    assert [len(reply.captions) for reply in replies.values()] == [5, 5, 5]
    assert len({text for reply in replies.values() for text in reply.captions}) > 3
    assert replies == captions(remote, drawn()[:3], nucleus)


def test_a_question_too_long_for_the_context_is_a_row(remote: Captioner) -> None:
    endless = CaptionSampling(n=1, mode="greedy", prompt="star " * 300)
    (reply,) = captions(remote, drawn()[:1], endless).values()
    assert (reply.status, reply.captions) == ("overlong", ())
    assert "256" in reply.reason
