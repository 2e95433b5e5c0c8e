"""Measures of the embedded CLIPs and captioners on scenes that no training stage saw."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from random import Random

import torch
import torch.nn.functional as F
from torch import Tensor

from embedded_world.drawing import draw
from embedded_world.recipes.caption_scores import ASPECTS, attribute_accuracy, is_free_of_error
from embedded_world.recipes.clip_texts import composite, full_caption, full_varied, partial_caption
from embedded_world.recipes.measures import Gates, Measure
from embedded_world.recipes.shipped_captioners import ShippedBlip2, ShippedCaptioner, ShippedLlava
from embedded_world.scenes import Scene, sample_scenes
from models.encoders.loading import load_encoder
from models.encoders.spec import EncoderSpec
from models.protocols import ImageTextEncoder

RETRIEVAL_GATES: Mapping[str, float] = {"R@1": 0.95, "R@5": 0.99}
ATTRIBUTE_GATE = 0.95
LLAVA_GATE = 0.96
SAMPLE_GATE = 0.85

RETRIEVAL_SCENES = 1000
CAPTIONED_SCENES = 1000
SAMPLED_SCENES = 100
SAMPLES_EACH = 10


def recalls(queries: Tensor, gallery: Tensor, at: Sequence[int] = (1, 5)) -> dict[str, float]:
    """Share of queries (B, d) whose own row of the gallery (B, d) is among the k of highest cosine.

    A wrong row that scores the same counts as ahead.
    """
    scores = F.normalize(queries, dim=-1) @ F.normalize(gallery, dim=-1).T
    ahead = (scores >= scores.diag()[:, None]).sum(dim=1) - 1
    return {f"R@{k}": float((ahead < k).float().mean()) for k in at}


TEXTS: Mapping[str, Callable[[Scene, Random], str]] = {
    "canonical caption": full_caption,
    "varied caption": full_varied,
    "partial caption (ambiguous)": partial_caption,
    "composite (some ambiguous)": composite,
}


def clip_measures(
    encoder: ImageTextEncoder, count: int = RETRIEVAL_SCENES, model: str = "clip"
) -> list[Measure]:
    """Recall in both directions among `count` distinct held-out scenes."""
    scenes = sample_scenes(Random("clip gates"), count, held_out=True, distinct=True)
    pictures = [draw(scene, seed) for seed, scene in enumerate(scenes)]
    images = torch.from_numpy(encoder.encode_images(pictures))
    measures = []
    for kind, text_of in TEXTS.items():
        rng = Random(kind)
        texts = torch.from_numpy(encoder.encode_texts([text_of(s, rng) for s in scenes]))
        gates = RETRIEVAL_GATES if kind == "canonical caption" else {}
        for name, share in recalls(texts, images).items():
            measure = f"{kind} -> image {name}"
            measures.append(Measure(model, measure, share, count, gates.get(name)))
        if kind != "canonical caption":
            continue
        for name, share in recalls(images, texts).items():
            measures.append(Measure(model, f"image -> {kind} {name}", share, count))
    return measures


def greedy_measures(
    model: str, captioner: ShippedCaptioner, scenes: Sequence[Scene], gate: float
) -> list[Measure]:
    """Accuracy of each attribute, gated, and of whole captions."""
    things = sum(len(scene.occupied) for scene in scenes)
    accuracy = attribute_accuracy(captioner.captions(scenes), scenes)
    measures = []
    for name, share in accuracy.items():
        n = things if name not in ("background", "whole") else len(scenes)
        label = "whole caption" if name == "whole" else name
        gated = gate if name in ASPECTS else None
        measures.append(Measure(model, f"greedy: {label}", share, n, gated))
    return measures


def llava_measures(captioner: ShippedLlava, scene_count: int = CAPTIONED_SCENES) -> list[Measure]:
    """Greedy attribute accuracy on the scenes that BLIP-2 is measured on."""
    scenes = sample_scenes(Random("captioner gates"), scene_count, held_out=True)
    return greedy_measures("llava", captioner, scenes, LLAVA_GATE)


def blip2_measures(
    captioner: ShippedBlip2,
    scene_count: int = CAPTIONED_SCENES,
    sampled_scenes: int = SAMPLED_SCENES,
    each: int = SAMPLES_EACH,
) -> list[Measure]:
    """Greedy attribute accuracy, and samples that are free of error."""
    scenes = sample_scenes(Random("captioner gates"), scene_count, held_out=True)
    measures = greedy_measures("blip2", captioner, scenes, ATTRIBUTE_GATE)
    torch.manual_seed(0)
    repeated = [scene for scene in scenes[:sampled_scenes] for _ in range(each)]
    texts = captioner.captions(repeated, do_sample=True, top_p=0.9, top_k=0, temperature=1.0)
    right = sum(map(is_free_of_error, texts, repeated)) / len(texts)
    name = "nucleus (p .9, T 1): free of error"
    measures.append(Measure("blip2", name, right, len(texts), SAMPLE_GATE))
    per_image = [texts[i : i + each] for i in range(0, len(texts), each)]
    distinct = sum(len(set(group)) for group in per_image) / len(texts)
    name = f"nucleus: distinct of {each} an image"
    measures.append(Measure("blip2", name, distinct, len(texts)))
    return measures


# --------------------------------------------------------------------------- folders


def clip_gates(folder: Path, share: float = 1.0) -> Gates:
    """Gates of the CLIP in a folder, on a share of the usual samples."""
    encoder = load_encoder(EncoderSpec(name=str(folder), device="cpu"))
    return Gates(clip_measures(encoder, round(RETRIEVAL_SCENES * share), folder.name))


def blip2_gates(folder: Path, share: float = 1.0) -> Gates:
    """Gates of the BLIP-2 in a folder, on a share of the usual samples."""
    counts = round(CAPTIONED_SCENES * share), round(SAMPLED_SCENES * share)
    return Gates(blip2_measures(ShippedBlip2(folder), *counts))


def llava_gates(folder: Path, share: float = 1.0) -> Gates:
    """Gates of the LLaVA in a folder, on a share of the usual samples."""
    return Gates(llava_measures(ShippedLlava(folder), round(CAPTIONED_SCENES * share)))
