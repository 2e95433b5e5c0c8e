"""Searches of a running service over 123,403 images of 512 numbers, against bare searches.

Pictures of 4 x 4 pixels and random vectors fill the root; the embedded CLIP, its last projections
widened to 512 numbers, encodes the queries. In turns, in one process:

- `encoded`: a search by `image-text-sum` over HTTP with a text that was never asked before;
- `moved`: one by two gallery features whose weights move, as the sliders of the page do;
- `fused`: the vectors of those two features made for one search, as was done before;
- `bare` and `faiss`: one product and top-k of vectors that are ready, in memory; faiss-flat where
  the extra `approximate` is installed.

    python -m bench.served_gallery [images]
"""

from __future__ import annotations

import importlib
import json
import shutil
import socket
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np

from bench.command_line import command_line, whole_number
from bench.million_root import NAME, Place, make_source, publish_all, random_vectors, take_in
from bench.verdict import Verdict, exit_status, judge, report

IMAGES: Final = 123_403
DIM: Final = 512
K: Final = 12
TURNS: Final = 21
PART: Final = 4096
"""Rows of a part of features."""
ONE: Final = "image-text-sum"
TWO: Final = "cvsi-no-fine-grained"
ALLOWED_MS: Final = 300.0
"""Median milliseconds of the clock that an encoded search may take."""


def widened(folder: Path) -> Path:
    """The embedded CLIP with vectors of `DIM` numbers."""
    from safetensors.torch import load_file, save_file
    from torch import Generator, randn

    from flows.profiles import EMBEDDED

    shutil.copytree(EMBEDDED / "clip", folder)
    weights = load_file(folder / "open_clip_model.safetensors")
    wide = randn(weights["visual.proj"].shape[1], DIM, generator=Generator().manual_seed(1))
    for name in ("visual.proj", "text_projection"):
        weights[name] = (weights[name].float() @ wide).half().contiguous()
    save_file(weights, folder / "open_clip_model.safetensors")
    config = json.loads((folder / "open_clip_config.json").read_text())
    config["model_cfg"]["embed_dim"] = DIM
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    return folder


def filled(place: Place) -> Any:
    """The profile of a root with both features of all images."""
    from flows.profiles import resolve_profile
    from tasks.planner import gallery_stages

    settings = {
        "root": place.root.root,
        "encoder.name": str(widened(place.folder / "clip")),
        "cvsi.captions_per_image": 2,
        "captions.max_new_tokens": 16,
    }
    profile = resolve_profile("tiny", settings)
    make_source(place)
    take_in(place)
    for name, stage in gallery_stages(profile, NAME, TWO).items():
        rows = random_vectors(stage.table(), DIM, {"n_captions": 2} if name == "captions" else {})
        publish_all(stage.table(), stage.planned_keys(), PART, stage.read_order, rows)
    return profile


@contextmanager
def served(profile: Any) -> Iterator[Any]:
    """A client of a service that is ready."""
    import uvicorn

    from deployments.service.app import create_app
    from deployments.service.client import Client
    from deployments.service.settings import ServiceSettings

    with socket.socket() as tried:
        tried.bind(("127.0.0.1", 0))
        port = tried.getsockname()[1]
    settings = ServiceSettings(profile, port=port, warm=True)
    app = create_app(settings)
    server = uvicorn.Server(uvicorn.Config(app, port=settings.port, log_level="warning"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started or app.state.service.warming.state == "warming":
            time.sleep(0.05)
        with Client(settings.url) as client:
            yield client
    finally:
        server.should_exit = True
        thread.join()


def ways(client: Any, profile: Any, query: Path) -> Mapping[str, Callable[[int], object]]:
    """What is timed, by name; each takes the number of its turn."""
    import torch

    from models.retrieval.contributions import Weights, reweighed
    from models.retrieval.gallery import MADE_ROWS, Gallery
    from models.retrieval.methods import METHODS
    from models.retrieval.search import top_k
    from tasks.galleries import open_gallery
    from tasks.planner import gallery_stages

    image_id = client.upload(query.read_bytes()).image_id
    stages = gallery_stages(profile, NAME, TWO)
    features = open_gallery(stages, stages, 0.0).features
    recipe = METHODS[TWO].recipe("circo")
    images = Gallery(features, recipe.gallery_vectors)[:]
    asked = np.random.default_rng(4).standard_normal((1, DIM), np.float32)

    def encoded(turn: int) -> object:
        return client.search(NAME, f"with {turn} red stripes", image_id=image_id, method=ONE, k=K)

    def moved(turn: int) -> object:
        weights = {"query": {}, "gallery": {"captions": 0.01 * (turn + 1)}}
        return client.search(NAME, "red", image_id=image_id, method=TWO, k=K, weights=weights)

    def fused(turn: int) -> object:
        own = reweighed(recipe, Weights({}, {"captions": 0.01 * (turn + 1)}))
        return top_k(asked, Gallery(features, own.gallery_vectors).blocks(MADE_ROWS), K)

    def bare(turn: int) -> object:
        return torch.topk(torch.from_numpy(asked) @ torch.from_numpy(images).T, K, dim=1)

    found: dict[str, Callable[[int], object]] = {
        "encoded": encoded, "moved": moved, "fused": fused, "bare": bare,
    }  # fmt: skip
    try:
        faiss: Any = importlib.import_module("faiss")
    except ImportError:
        return found
    found["faiss"] = lambda turn: faiss.knn(asked, images, K, faiss.METRIC_INNER_PRODUCT)
    return found


def measured(work: Mapping[str, Callable[[int], object]]) -> dict[str, dict[str, list[float]]]:
    """Milliseconds of each way, turn by turn: of the clock, and of processors."""
    times: dict[str, dict[str, list[float]]] = {name: {"wall": [], "cpu": []} for name in work}
    for turn in range(TURNS + 1):
        for name in list(work)[:: 1 if turn % 2 else -1]:
            clock, cpu = time.perf_counter(), time.process_time()
            work[name](turn)
            if turn:  # the first one warms up
                times[name]["wall"].append(1000 * (time.perf_counter() - clock))
                times[name]["cpu"].append(1000 * (time.process_time() - cpu))
    return times


def main(images: int = IMAGES) -> Verdict:
    """Measure, and print medians with the load."""
    with tempfile.TemporaryDirectory() as folder:
        place = Place(Path(folder), images)
        profile = filled(place)
        with served(profile) as client:
            times = measured(ways(client, profile, place.folder / "query.png"))
    for name, own in times.items():
        wall, cpu = (statistics.median(own[kind]) for kind in ("wall", "cpu"))
        high = statistics.quantiles(own["wall"], n=20)[-1]
        print(f"{name}: p50 {wall:.0f} ms, p95 {high:.0f} ms, processors {cpu:.0f} ms")
    print("load:", Path("/proc/loadavg").read_text().strip())
    took = times["encoded"]["wall"]
    return report(
        "served_gallery",
        f"an encoded search over {images} x {DIM}: p50 {statistics.median(took):.0f} ms "
        f"(allowed {ALLOWED_MS:g})",
        judge(took, at_most=ALLOWED_MS),
        {"images": images, "allowed": ALLOWED_MS, "milliseconds": times},
    )


if __name__ == "__main__":
    parser = command_line(__doc__)
    parser.add_argument(
        "images", nargs="?", type=whole_number, default=IMAGES, help="of the gallery"
    )
    sys.exit(exit_status([main(parser.parse_args().images)]))
