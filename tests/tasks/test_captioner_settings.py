"""A run chooses its captioner by value: BLIP-2 or LLaVA in process, or a server for images."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from flows.profiles import EMBEDDED, production, resolve_profile, tiny
from models.captioners.blip2 import Blip2Captioner
from models.captioners.llava import LlavaCaptioner, LlavaSettings
from models.captioners.openai_images import OpenAIImageCaptioner, OpenAIImagesSettings
from models.protocols import CaptionSampling
from tasks.engines import captioner_fingerprint, load_captioner
from tasks.settings import CaptionerSettings
from tasks.stages.captions import CaptionStage
from tasks.stages.image_sets import ImageSet
from tests.fakes.checkpoints import save_llava
from tests.fakes.openai_server import FakeOpenAIServer
from tests.fakes.pictures import broken_files, encoded, pixels

SERVER = {
    "instructcir.captioner.engine": "openai",
    "instructcir.captioner.model": "edit-model",
}


def test_each_engine_is_chosen_by_value() -> None:
    blip2, llava = tiny().captioner, tiny().instructcir.captioner
    served = resolve_profile(
        "tiny", SERVER | {"instructcir.captioner.base_url": "http://127.0.0.1:1/v1"}
    ).instructcir.captioner
    kinds = [Blip2Captioner, LlavaCaptioner, OpenAIImageCaptioner]
    for settings, kind in zip((blip2, llava, served), kinds, strict=True):
        assert type(load_captioner(settings)) is kind


def test_profiles_caption_for_triplets_once_and_greedily_with_llava() -> None:
    small, large = tiny().instructcir, production().instructcir
    assert Path(small.captioner.model) == EMBEDDED / "llava"
    assert large.captioner.model == "llava-hf/llava-1.5-13b-hf"
    for settings in (small, large):
        assert settings.captioner.engine == "llava"
        sampling = settings.captioning
        assert (sampling.n, sampling.mode, sampling.max_new_tokens) == (1, "greedy", 128)


def test_a_server_without_an_address_is_refused_in_words() -> None:
    settings = resolve_profile("tiny", SERVER).instructcir.captioner
    with pytest.raises(ValueError, match="base_url must start with http"):
        load_captioner(settings)


def test_where_a_captioner_runs_is_no_part_of_its_identity() -> None:
    base = OpenAIImagesSettings(model="llava", base_url="http://a/v1")
    elsewhere = base.changed(
        base_url="http://b/v1", concurrency=2, timeout=9.0, attempts=1, health_wait_seconds=7.0
    )
    revised = base.changed(identity="llava-hf/llava-1.5-13b-hf@1 bfloat16")
    assert captioner_fingerprint(base) == captioner_fingerprint(elsewhere)
    assert captioner_fingerprint(base) != captioner_fingerprint(revised)


@pytest.fixture(params=["llava", "openai"])
def captioner(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[CaptionerSettings]:
    """A random LLaVA in process, and a server that says anything."""
    if request.param == "llava":
        folder = save_llava(tmp_path / "llava")
        yield LlavaSettings(model=str(folder), device="cpu", batch_size=4)
        return
    with FakeOpenAIServer() as server:
        yield OpenAIImagesSettings(model="edit-model", base_url=server.base_url)


def test_corrupt_and_odd_images_are_rows_that_say_why(
    captioner: CaptionerSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    odd = {
        "line": (encoded(Image.new("RGB", (1, 800)), "PNG"), "engine_error"),
        "dot": (encoded(Image.new("RGB", (1, 1)), "PNG"), "ok"),
        "strip": (encoded(Image.new("RGB", (90, 1)), "PNG"), "ok"),
        "grey": (encoded(pixels().convert("L"), "PNG"), "ok"),
        "clear": (encoded(pixels().convert("RGBA"), "PNG"), "ok"),
        "palette": (encoded(pixels().convert("P"), "GIF"), "ok"),
        "cmyk": (encoded(pixels().convert("CMYK"), "JPEG"), "ok"),
    }
    files = odd | broken_files()
    monkeypatch.setattr(
        ImageSet, "read", lambda self, root, ids: ((name, files[name][0]) for name in ids)
    )
    stage = CaptionStage(
        root=str(tmp_path / "tables"),
        images=ImageSet(collection="odd"),
        captioner=captioner,
        sampling=CaptionSampling(n=1, mode="greedy", max_new_tokens=8),
        shard_size=64,
    )
    seen: list[int] = []
    rows = stage.rows(list(files), seen.append).to_pylist()
    assert {row["image_id"]: row["status"] for row in rows} == {
        name: status for name, (_, status) in files.items()
    }
    for row in rows:
        usable = row["status"] == "ok"
        assert (row["captions"] is not None and len(row["captions"]) == 1) == usable
        assert bool(row["reason"]) != usable
