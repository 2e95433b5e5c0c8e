"""Every system's scores against its published program, written down with torchvision and open_clip.

From image files, captions and answers to the scores in the rankings table. The oracle shares no
code with the project: torchvision prepares the pictures, open_clip encodes them, `$` and `*` are
characters of the text whose embeddings are replaced, and fusions are loops over pairs.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from flows.profiles import resolve_profile
from models.protocols import CaptionReply, CaptionSampling, TextReply, TextRequest
from storage.benchmarks.records import Benchmark, Query
from storage.collections.collection import ingest
from storage.locations.location import Location
from tasks.planner import plan_evaluation
from tasks.query_sets import BenchmarkRef, image_folder
from tasks.settings import Profile
from tasks.stages.rankings import RankingStage
from tests.fakes.benchmark_layouts import (
    fashioniq_query,
    write_circo,
    write_cirr,
    write_fashioniq,
)
from tests.fakes.filled_tables import fill_all

if TYPE_CHECKING:
    import torch

Array = np.ndarray[Any, Any]

METHODS = ("image-only", "lincir", "searle", "pic2word", "cirevl", "ldre-code", "cvsi-code")
SIZES = (
    (90, 40),
    (40, 90),
    (64, 64),
    (33, 120),
    (120, 100),
    (51, 50),
    (20, 77),
    (70, 30),
    (99, 80),
)
PROMPTS = {"edit": "Edit: {caption} | {text}", "objects": "Objects: {caption} | {text}"}
PAPER = {"cirr": (0.6, 0.4, 0.2), "circo": (0.6, 0.4, 0.2), "fashioniq": (0.2, 0.6, 0.1)}
"""alpha, beta and gamma of CVSI's section 4."""


def words(*seeds: object) -> str:
    """Some text that follows from the seeds."""
    digest = hashlib.sha256("/".join(map(str, seeds)).encode()).digest()
    things = ("cat", "cup", "lamp", "boat", "tree", "shoe", "door", "bird")
    colours = ("red", "blue", "dark", "striped", "tiny", "old", "round", "wet")
    first, second = (f"{colours[digest[i] % 8]} {things[digest[i + 1] % 8]}" for i in (0, 2))
    return f"a {first} and {digest[4] % 90 + 2} of the {second}"


def captions_of(image: str, count: int) -> list[str]:
    return [words("caption", image, i) for i in range(count)]


class Captions:
    """A captioner whose captions follow from the image's key."""

    def caption(
        self, images: Iterable[tuple[str, Image.Image]], sampling: CaptionSampling
    ) -> Iterator[CaptionReply]:
        for key, _ in images:
            yield CaptionReply(key, tuple(captions_of(key, sampling.n)))


class Answers:
    """A text generator whose answers follow from the prompt."""

    def generate(self, requests: Iterable[TextRequest]) -> Iterator[TextReply]:
        for request in requests:
            yield TextReply(request.key, words(request.prompt), finish_reason="stop")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights, prompts, and three benchmarks of the same nine pictures, few of them square."""
    from models.textual_inversion.mapping_files import MappingShape
    from models.textual_inversion.network import MappingNetwork, dump_mapping, new_module
    from tests.fakes.small_clip import write_small_clip

    folder = tmp_path_factory.mktemp("parity")
    (folder / "clip").mkdir()
    write_small_clip(folder / "clip")
    shapes = {"lincir": MappingShape.phi(24, 40), "searle": MappingShape.phi(24, 40)}
    shapes["pic2word"] = MappingShape("img2text", 24, 16, 40, 0.1)
    for name, shape in shapes.items():
        (folder / name).mkdir()
        network = MappingNetwork(shape, new_module(shape))
        for file, data in dump_mapping(network, {}).items():
            (folder / name / file).write_bytes(data)
    for name, text in PROMPTS.items():
        (folder / f"{name}.md").write_text(text)
    write_circo(folder / "circo", ids=range(1, 10))
    write_cirr(folder / "cirr")
    names = [f"B00{i}" for i in range(9)]
    asked = [
        fashioniq_query("B000", "B001", "is darker.", "has a belt"),
        fashioniq_query("B004", "B005", "is longer", "is more red?"),
    ]
    write_fashioniq(folder / "fashioniq", {"dress": names}, {"dress": asked})
    coco = folder / "circo" / "COCO2017_unlabeled" / "unlabeled2017"
    for number, (width, height) in enumerate(SIZES):
        pixels = np.random.default_rng(number).integers(0, 256, (height, width, 3), np.uint8)
        image = Image.fromarray(pixels)
        places = [coco / f"{number + 1:012d}.jpg", folder / f"fashioniq/images/B00{number}.png"]
        if number < 8:
            places.append(folder / f"cirr/dev/dev-{number}-0-img0.png")
        for place in places:
            place.parent.mkdir(parents=True, exist_ok=True)
            image.save(place, "PNG")
    return folder


@pytest.fixture
def profile(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Profile:
    """The small models, one CLIP and three mapping networks, with preprocessing by the method."""
    monkeypatch.setattr("tasks.stages.captions.load_captioner", lambda settings: Captions())
    monkeypatch.setattr("tasks.stages.rewrites.load_generator", lambda settings: Answers())
    edits = {f"prompts.edit.{family}": str(folder / "edit.md") for family in PAPER}
    return resolve_profile(
        "tiny",
        {
            "root": str(tmp_path),
            "encoder.name": str(folder / "clip"),
            "mapping.checkpoint": str(folder / "lincir"),
            "mapping.searle": str(folder / "searle"),
            "mapping.pic2word": str(folder / "pic2word"),
            "prompts.objects": str(folder / "objects.md"),
            "cvsi.preprocess": "method",
            **edits,
        },
    )


class Published:
    """The published programs on one benchmark."""

    def __init__(self, folder: Path, benchmark: Benchmark) -> None:
        import open_clip

        self.folder, self.benchmark = folder, benchmark
        self.names = next(iter(benchmark.galleries.values()))
        self.queries = benchmark.queries
        self.clip, self.half = (
            open_clip.create_model(f"local-dir:{folder / 'clip'}", precision=precision).eval()
            for precision in ("fp32", "fp16")
        )
        self.tokenize = open_clip.SimpleTokenizer()

    def pixels(self, name: str, pad: bool) -> torch.Tensor:
        """torchvision's steps; `pad` puts CLIP4CIR's TargetPad with ratio 1.25 before them."""
        from torchvision.transforms import (
            CenterCrop,
            Compose,
            InterpolationMode,
            Normalize,
            Resize,
            ToTensor,
        )
        from torchvision.transforms.functional import pad as padded

        image = Image.open(self.benchmark.image_paths[name]).convert("RGB")
        long, short = max(image.size), min(image.size)
        if pad and long / short >= 1.25:
            across, down = (max(int((long / 1.25 - side) / 2), 0) for side in image.size)
            image = padded(image, [across, down, across, down], 0, "constant")
        steps = Compose(
            [
                Resize(32, interpolation=InterpolationMode.BICUBIC),
                CenterCrop(32),
                ToTensor(),
                Normalize((0.5, 0.4, 0.3), (0.2, 0.25, 0.3)),
            ]
        )
        made: torch.Tensor = steps(image)
        return made

    def image(self, name: str, pad: bool, precision: str = "fp32") -> Array:
        import torch

        model = self.clip if precision == "fp32" else self.half
        pixels = self.pixels(name, pad)[None].to(model.visual.conv1.weight.dtype)
        with torch.no_grad():
            return np.asarray(model.encode_image(pixels)[0].float())

    def text(self, text: str, token: Array | None = None, placeholder: int = 259) -> Array:
        """A text, the embedding of one character in it replaced by a pseudo token."""
        import torch

        ids = self.tokenize([text])
        assert int((ids == placeholder).sum()) == (token is not None)

        def spliced(module: object, given: tuple[torch.Tensor], out: torch.Tensor) -> torch.Tensor:
            if token is None:
                return out
            return torch.where(given[0][..., None] == placeholder, torch.from_numpy(token), out)

        hook = self.clip.token_embedding.register_forward_hook(spliced)
        with torch.no_grad():
            made = np.asarray(self.clip.encode_text(ids)[0])
        hook.remove()
        return made

    def token(self, kind: str, feature: Array) -> Array:
        """phi of SEARLE and LinCIR, or Pic2Word's network, from the weights of its file."""
        from safetensors.numpy import load_file

        w = load_file(self.folder / kind / "model.safetensors")
        names = ("layers.0", "layers.3", "layers.6")
        if kind == "pic2word":
            names = ("layers.0.0", "layers.1.0", "fc_out")
        x = feature
        for name in names:
            x = w[f"{name}.weight"] @ x + w[f"{name}.bias"]
            if name != names[-1]:
                gelu = x * 0.5 * (1 + np.vectorize(math.erf)(x / np.sqrt(2)))
                x = np.maximum(x, 0) if kind == "pic2word" else gelu
        return x.astype(np.float32)

    def key(self, name: str) -> str:
        return hashlib.sha256(Path(self.benchmark.image_paths[name]).read_bytes()).hexdigest()

    def captions(self, name: str, count: int) -> list[str]:
        return captions_of(self.key(name), count)

    def scores(self, method: str) -> Array:
        """(Q, G) scores, up to a positive factor for each query."""
        made = getattr(self, method.replace("-", "_"))()
        return np.array(made, dtype=np.float64)

    def gallery(self, pad: bool, precision: str = "fp32") -> list[Array]:
        return [unit(self.image(name, pad, precision)) for name in self.names]

    def image_only(self) -> list[list[float]]:
        return self._dots([self.image(q.reference, True) for q in self.queries], True)

    def lincir(self) -> list[list[float]]:
        return self._dots([self._inverted("lincir", q, False) for q in self.queries], False)

    def searle(self) -> list[list[float]]:
        return self._dots([self._inverted("searle", q, True) for q in self.queries], True)

    def _inverted(self, kind: str, query: Query, pad: bool) -> Array:
        token = self.token(kind, self.image(query.reference, pad))
        made = [unit(self.text(f"a photo of $ that {t}", token)) for t in self.orders(query)]
        return sum(made) / len(made)  # type: ignore[return-value]

    def orders(self, query: Query) -> list[str]:
        if self.benchmark.name != "fashioniq":
            return [query.text]
        a, b = (caption.strip(".?, ") for caption in query.captions)
        return [f"{a} and {b}", f"{b} and {a}"]

    def pic2word(self) -> list[list[float]]:
        made = []
        for query in self.queries:
            token = self.token("pic2word", self.image(query.reference, False))
            text = f"a photo of * , {self.orders(query)[-1]}"
            made.append(self.text(text, token, placeholder=265))
        return self._dots(made, False)

    def edit(self, caption: str, query: Query) -> str:
        return words(PROMPTS["edit"].format(caption=caption, text=self.orders(query)[0]))

    def cirevl(self) -> list[list[float]]:
        edits = [self.edit(self.captions(q.reference, 2)[0], q) for q in self.queries]
        return self._dots([self.text(edit) for edit in edits], True)

    def ldre_code(self) -> list[list[float]]:
        captions = [self.captions(query.reference, 15) for query in self.queries]
        edited = [
            [self.text(self.edit(caption, query)) for caption in own]
            for own, query in zip(captions, self.queries, strict=True)
        ]
        if self.benchmark.name == "cirr":
            return self._dots([np.mean(own, axis=0) for own in edited], True)
        gallery = self.gallery(True)
        totals = np.zeros(15)
        for own, texts in zip(edited, captions, strict=True):
            for i, text in enumerate(texts):
                before, after = unit(self.text(text)), unit(own[i])
                away = sorted((max(0.0, before @ g - after @ g) for g in gallery), reverse=True)
                totals[i] += sum(away[:5])
        weights = np.exp(totals / totals.max() / 0.04)
        weights /= weights.sum()
        made = [sum(w * unit(f) for w, f in zip(weights, own, strict=True)) for own in edited]
        return self._dots(made, True)  # type: ignore[arg-type]

    def cvsi_code(self) -> list[list[float]]:
        family = self.benchmark.name
        alpha, beta, gamma = PAPER[family]
        gallery = []
        for name in self.names:
            mean = np.mean([unit(self.text(c)) for c in self.captions(name, 15)], axis=0)
            caption = unit(mean) if family == "fashioniq" else mean
            gallery.append(gamma * caption + (1 - gamma) * unit(self.image(name, True, "fp16")))
        made = []
        for query in self.queries:
            joined = ", ".join(self.captions(query.reference, 15))
            text = self.orders(query)[0]
            objects = words(PROMPTS["objects"].format(caption=joined, text=text))
            image = self.image(query.reference, True)
            fine = f"a photo of $ that {text}. And the photo should have {objects}."
            vector = alpha * unit(self.text(self.edit(joined, query)))
            vector = vector + beta * unit(self.text(fine, self.token("lincir", image)))
            vector = vector + (1 - alpha - beta) * unit(image)
            made.append([float(vector @ t) for t in gallery])
        return made

    def _dots(self, queries: Sequence[Array], pad: bool) -> list[list[float]]:
        gallery = self.gallery(pad)
        return [[float(query @ image) for image in gallery] for query in queries]


def unit(vector: Array) -> Array:
    return vector / np.sqrt((vector.astype(np.float64) ** 2).sum())


def found(stage: RankingStage, published: Published) -> Iterator[tuple[Query, dict[str, float]]]:
    """The stored scores of each query by image name."""
    rows = {row["query_id"]: row for row in stage.table().read().to_dicts()}
    for query in published.queries:
        row = rows["/".join(filter(None, (query.category, query.query_id)))]
        assert row["status"] == "ok", row["reason"]
        yield query, dict(zip(row["names"], row["scores"], strict=True))


@pytest.mark.parametrize("family", PAPER)
def test_scores_are_those_of_the_published_programs(
    family: str, folder: Path, profile: Profile
) -> None:
    ref = BenchmarkRef(name=family, root=str(folder / family))
    benchmark = ref.load()
    ingest(Location(profile.root), image_folder(benchmark), ref.collection_name)
    plan = plan_evaluation(profile, ref, METHODS)
    fill_all(plan.rankings)
    published = Published(folder, benchmark)
    for stage in plan.rankings:
        expected = published.scores(stage.method)
        for row, (query, scores) in zip(expected, found(stage, published), strict=True):
            wanted = dict(zip(published.names, row, strict=True))
            if family == "cirr":
                del wanted[query.reference]
            assert list(scores) == sorted(wanted, key=lambda name: -wanted[name]), stage.method
            got = np.array(list(scores.values()))
            right = np.array([wanted[name] for name in scores])
            factor = (got @ right) / (right @ right)
            assert factor > 0
            np.testing.assert_allclose(
                got, factor * right, atol=1e-6, err_msg=f"{stage.method} {query.query_id}"
            )
