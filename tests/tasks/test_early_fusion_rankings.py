"""CoVR and CASE-style in an evaluation: features, rankings, and who may be an answer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from embedded_world.benchmarks import WorldSize, write_world
from flows.profiles import resolve_profile
from models.encoders.spec import EncoderSpec
from storage.collections.collection import ingest
from storage.locations.location import Location
from tasks.methods import runnable_methods
from tasks.planner import plan_evaluation
from tasks.query_sets import BenchmarkRef, image_folder
from tests.fakes.drawn import small_settings
from tests.fakes.filled_tables import fill_all

SIZE = WorldSize(subsets=1, circo_queries=3, fashion_queries=1, distractors=6)


@pytest.mark.parametrize(("name", "keeps"), [("covr", False), ("case", True)])
def test_queries_rank_by_the_networks_own_vectors(tmp_path: Path, name: str, keeps: bool) -> None:
    """Against cosines of the network's vectors; CIRCO's own rule keeps the reference."""
    import torch

    from models.composed.checkpoint import load_composed, save_composed
    from models.composed.registry import system
    from tests.fakes.small_networks import write_clip

    record = system(name)
    assert record.build is not None
    clip = EncoderSpec(name=str(write_clip(tmp_path / "clip")), preprocess="clip", device="cpu")
    settings = record.settings(text_layers=1)
    network = record.build(clip, settings, 5)
    base: dict[str, Any] = {"model": "small", "pretrained": "", "weights_sha256": "0" * 64}
    folder = tmp_path / name
    save_composed(folder, name, network, settings, base=base, provenance={"zero_shot": True})
    write_world(tmp_path, SIZE, seed=63)
    ref = BenchmarkRef(name="circo", root=str(tmp_path / "circo"))
    benchmark = ref.load()
    root = tmp_path / "root"
    ingest(Location(str(root)), image_folder(benchmark), ref.collection_name)
    profile = resolve_profile("tiny", small_settings(root) | {f"composed.{name}": str(folder)})
    assert name in runnable_methods(profile)

    plan = plan_evaluation(profile, ref, [name])
    fill_all(plan.rankings)
    rows = {row["query_id"]: row for row in plan.rankings[0].table().read().iter_rows(named=True)}

    network = load_composed(folder).network
    (gallery,) = map(list, benchmark.galleries.values())

    def pixels(names: list[str]) -> torch.Tensor:
        pictures = [Image.open(benchmark.image_paths[each]).convert("RGB") for each in names]
        return torch.cat(list(network.preprocess.batches(pictures, 8)))

    with torch.no_grad():
        targets = torch.nn.functional.normalize(network.target(pixels(gallery)), dim=-1)
        for query in benchmark.queries:
            read = network.tokenised([query.texts[0]])
            vector = network.query(pixels([query.reference]), read)
            cosines = (torch.nn.functional.normalize(vector, dim=-1) @ targets.T)[0].numpy()
            found = rows[query.query_id]
            names, scores = found["names"], found["scores"]
            own = gallery.index(query.reference)
            if not keeps:
                assert query.reference not in names
                cosines[own] = -2
            assert scores == pytest.approx(np.sort(cosines)[::-1][: len(names)], abs=1e-5)
            assert scores == pytest.approx([cosines[gallery.index(n)] for n in names], abs=1e-5)
