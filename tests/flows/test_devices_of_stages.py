"""A GPU that is not there is refused before Prefect starts, and only where rows are to be made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from embedded_world.benchmarks import WorldSize, write_world
from models import devices
from storage.collections.collection import ingest
from storage.locations.location import Location
from tests.fakes.drawn import draw_folder, small_profile, small_settings
from tests.fakes.filled_tables import fill

EMBEDDING = ("image features of drawn", "encoder.device")
CAPTIONING = ("captions of drawn", "captioner.device")


def given(root: Path, setting: str) -> dict[str, Any]:
    """A collection of two pictures, and parameters of a flow over it on a GPU."""
    draw_folder(root / "pictures", 2, seed=5)
    ingest(Location(str(root)), root / "pictures", "drawn")
    return {"collection": "drawn", "settings": {**small_settings(root), setting: "cuda"}}


@pytest.mark.parametrize(("title", "setting"), [EMBEDDING, CAPTIONING])
def test_a_gpu_that_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, title: str, setting: str
) -> None:
    from flows.backfill_captions import backfill_captions
    from flows.embed_gallery import embed_gallery
    from tasks.unrecorded import WorkToDo, run_unrecorded

    parameters = given(tmp_path, setting)
    flow = backfill_captions if setting == "captioner.device" else embed_gallery
    if flow is embed_gallery:
        parameters["methods"] = ["image-only"]
    monkeypatch.setattr(devices, "gpu_is_available", lambda: True)
    with pytest.raises(WorkToDo):
        run_unrecorded(flow, parameters)
    monkeypatch.setattr(devices, "gpu_is_available", lambda: False)
    with pytest.raises(ValueError, match=f"{title}: device 'cuda' was asked for, but torch sees"):
        run_unrecorded(flow, parameters)


@pytest.mark.parametrize("device", ["cuda", "cuda:3", "xpu"])
def test_a_request_is_refused_only_where_rows_are_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, device: str
) -> None:
    from flows.requests.embed_gallery import embed_gallery
    from tasks.planner import gallery_stages

    parameters = {**given(tmp_path, "encoder.device"), "methods": ("image-only",)}
    parameters["settings"]["encoder.device"] = device
    monkeypatch.setattr(devices, "gpu_is_available", lambda: False)
    with pytest.raises(ValueError, match=f"image features of drawn: device '{device}'"):
        embed_gallery(**parameters)
    fill(gallery_stages(small_profile(tmp_path), "drawn", "image-only")["image"])
    embed_gallery(**parameters)


def test_a_server_is_asked_for_only_where_rows_are_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from models.captioners.openai_images import OpenAIImagesSettings
    from models.protocols import CaptionReply, EngineUnavailable
    from tasks.at_hand import require_hosts_of_missing
    from tasks.profile_stages import caption_stage
    from tasks.stages import captions

    class Answering:
        """Captions at once what a server would."""

        def caption(self, images: Any, sampling: Any) -> Any:
            return (CaptionReply(key, ("a dog",) * sampling.n) for key, _ in images)

    given(tmp_path, "captioner.device")
    server = OpenAIImagesSettings(model="q", base_url="http://127.0.0.1:9/v1")
    profile = small_profile(tmp_path).changed(captioner=server)
    with pytest.raises(EngineUnavailable, match=r"captions of drawn: the LLM server at .*start"):
        require_hosts_of_missing([caption_stage(profile, "drawn")])
    monkeypatch.setattr(captions, "load_captioner", lambda settings: Answering())
    fill(caption_stage(profile, "drawn"))
    require_hosts_of_missing([caption_stage(profile, "drawn")])


def test_a_server_of_several_stages_is_asked_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flows.requests.checks import require_evaluation
    from models.generators.openai_server import OpenAIServerSettings
    from tasks.query_sets import BenchmarkRef

    asked: list[str] = []
    monkeypatch.setattr(
        OpenAIServerSettings, "require_host", lambda engine: asked.append(engine.model)
    )
    size = WorldSize(subsets=1, circo_queries=1, fashion_queries=1, distractors=4)
    roots = write_world(tmp_path / "world", size, seed=5)
    server = OpenAIServerSettings(model="q", base_url="http://127.0.0.1:9/v1")
    profile = small_profile(tmp_path / "tables").changed(generator=server)
    refs = [BenchmarkRef(name=name, root=str(root)) for name, root in roots.items()]
    require_evaluation(profile, refs, ["cvsi", "ldre"])
    assert asked == ["q"]


def test_captions_can_be_made_before_a_server_is_started(tmp_path: Path) -> None:
    from flows.requests.checks import require_evaluation
    from models.generators.openai_server import OpenAIServerSettings
    from models.protocols import EngineUnavailable
    from tasks.at_hand import require_hosts_of_missing
    from tasks.planner import plan_evaluation
    from tasks.query_sets import BenchmarkRef, image_folder
    from tasks.stages.captions import CaptionStage
    from tasks.stages.stage import inputs_of

    size = WorldSize(subsets=1, circo_queries=1, fashion_queries=1, distractors=4)
    root = write_world(tmp_path / "world", size, seed=5)["cirr"]
    server = OpenAIServerSettings(model="q", base_url="http://127.0.0.1:9/v1")
    profile = small_profile(tmp_path / "tables").changed(generator=server)
    ref = BenchmarkRef(name="cirr", root=str(root))
    with pytest.raises(EngineUnavailable, match=r"correct base_url\. The captions can be made"):
        require_evaluation(profile, [ref], ["ldre"])
    ingest(Location(profile.root), image_folder(ref.load()), ref.collection_name)
    rankings = plan_evaluation(profile, ref, ["ldre"]).rankings
    for stage in inputs_of(rankings):
        if isinstance(stage, CaptionStage):
            fill(stage)
    with pytest.raises(EngineUnavailable, match=r"correct base_url$"):
        require_hosts_of_missing(rankings)


def test_rows_that_are_there_need_no_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from flows.embed_gallery import embed_gallery
    from tasks.planner import gallery_stages
    from tasks.unrecorded import run_unrecorded

    parameters = {**given(tmp_path, "encoder.device"), "methods": ["image-only"]}
    fill(gallery_stages(small_profile(tmp_path), "drawn", "image-only")["image"])
    monkeypatch.setattr(devices, "gpu_is_available", lambda: False)
    (stage,) = run_unrecorded(embed_gallery, parameters)["stages"]
    assert (stage["made"], stage["reused"]) == (0, 2)
