"""A quick look at composed retrieval with true texts, to tune the mapping network by.

    OMP_NUM_THREADS=1 python -m embedded_world.recipes.composed_probe

Each query is a held-out scene and one edit of it whose result is held out too. The gallery holds,
for every query, the reference, the target and three other results of one edit; the reference
itself is not an answer. The texts are those of the drawn world's language, so the figures are about
the encoder and the mapping network, and not about captioners or language models.
"""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

import numpy as np
import torch
from numpy.typing import NDArray

from embedded_world.captions import caption
from embedded_world.drawing import draw
from embedded_world.edits import NOTHING_ADDED, Edit, random_edit
from embedded_world.modification_texts import modification_text
from embedded_world.recipes.commands import EMBEDDED
from embedded_world.scenes import Scene, is_held_out, sample_scenes
from models.encoders.loading import load_encoder
from models.encoders.spec import EncoderSpec
from models.protocols import ImageTextEncoder, SplicedText
from models.textual_inversion.network import MappingNetwork, load_mapping

FAMILY = 5
"""Gallery pictures per query: reference, target, three other edits."""

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Probe:
    """Queries and their gallery; query i owns gallery rows 5i (reference), 5i+1 (target), ..."""

    edits: tuple[Edit, ...]
    texts: tuple[str, ...]
    gallery: tuple[Scene, ...]

    def reference(self, query: int) -> Scene:
        """The scene that the query starts from."""
        return self.gallery[query * FAMILY]

    def target(self, query: int) -> Scene:
        """The scene that is wanted."""
        return self.gallery[query * FAMILY + 1]


def make_probe(count: int, seed: int = 0) -> Probe:
    """Draw queries with distinct gallery pictures in each family."""
    rng = Random(f"composed probe {seed}")
    edits, texts, gallery = [], [], []
    for scene in sample_scenes(rng, count, held_out=True, distinct=True):
        family: list[tuple[Scene, Edit | None]] = [(scene, None)]
        while len(family) < FAMILY:
            edit = random_edit(scene, rng)
            changed = edit.apply(scene)
            if is_held_out(changed) and all(changed != other for other, _ in family):
                family.append((changed, edit))
        wanted = family[1][1]
        assert wanted is not None
        edits.append(wanted)
        texts.append(modification_text(wanted, scene, rng))
        gallery += [member for member, _ in family]
    return Probe(tuple(edits), tuple(texts), tuple(gallery))


def unit(rows: Floats) -> Floats:
    """Rows scaled to length one."""
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def query_features(
    probe: Probe, encoder: ImageTextEncoder, mapping: MappingNetwork | None, images: Floats
) -> Mapping[str, Floats]:
    """Query features by method; `images` are the gallery's features."""
    own = images[::FAMILY]
    plain = encoder.encode_texts(probe.texts)
    scenes = range(len(probe.texts))
    edited = encoder.encode_texts([caption(probe.target(i)) for i in scenes])
    before = [caption(probe.reference(i)) for i in scenes]
    told = [f"a photo of {c} that {t}" for c, t in zip(before, probe.texts, strict=True)]
    features = {
        "image only": own,
        "text only": plain,
        "image + text": unit(own) + unit(plain),
        "caption of reference + text": encoder.encode_texts(told),
        "caption of target (oracle)": edited,
        "image + caption of target (oracle)": unit(own) + unit(edited),
    }
    if mapping is not None:
        tokens = mapping.tokens(own)
        names = [edit.added() for edit in probe.edits]
        tails = ["" if n == NOTHING_ADDED else f". And the photo should have {n}" for n in names]
        spliced = encoder.encode_spliced(
            [SplicedText("a photo of ", f" that {t}") for t in probe.texts], tokens
        )
        features["LinCIR"] = spliced
        features["LinCIR, image only"] = encoder.encode_spliced(
            [SplicedText("a photo of ")] * len(tokens), tokens
        )
        added = encoder.encode_spliced(
            [
                SplicedText("a photo of ", f" that {text}{tail}")
                for text, tail in zip(probe.texts, tails, strict=True)
            ],
            tokens,
        )
        features["LinCIR + objects (true)"] = added
        features["LinCIR + objects + caption of target"] = unit(added) + unit(edited)
    return features


def scores(queries: Floats, gallery: Floats) -> dict[str, float]:
    """Recall over the gallery without the reference, and among the target's siblings."""
    similar = unit(queries) @ unit(gallery).T
    rows = np.arange(len(queries))
    similar[rows, rows * FAMILY] = -np.inf
    target = similar[rows, rows * FAMILY + 1]
    ahead = (similar >= target[:, None]).sum(axis=1) - 1
    siblings = np.stack([similar[rows, rows * FAMILY + k] for k in range(2, FAMILY)], axis=1)
    return {
        "R@1": float((ahead < 1).mean()),
        "R@5": float((ahead < 5).mean()),
        "R@10": float((ahead < 10).mean()),
        "siblings R@1": float((siblings < target[:, None]).all(axis=1).mean()),
    }


def run_probe(
    encoder: ImageTextEncoder, mapping: MappingNetwork | None, count: int
) -> dict[str, dict[str, float]]:
    """Scores of every method over `count` queries."""
    probe = make_probe(count)
    images = encoder.encode_images([draw(scene, seed) for seed, scene in enumerate(probe.gallery)])
    features = query_features(probe, encoder, mapping, images)
    return {name: scores(queries, images) for name, queries in features.items()}


def table(results: Mapping[str, Mapping[str, float]], count: int) -> str:
    """The results as aligned text."""
    columns: Sequence[str] = list(next(iter(results.values())))
    head = f"Embedded world, {count} queries over {count * FAMILY} pictures"
    lines = [head, " " * 40 + "".join(f"{c:>14}" for c in columns)]
    lines += [f"{m:40}" + "".join(f"{s[c]:14.3f}" for c in columns) for m, s in results.items()]
    return "\n".join(lines)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clip", type=Path, default=EMBEDDED / "clip")
    parser.add_argument("--lincir", type=Path, default=EMBEDDED / "lincir")
    parser.add_argument("--queries", type=int, default=400)
    args = parser.parse_args()
    torch.set_num_threads(1)
    encoder = load_encoder(EncoderSpec(name=str(args.clip), device="cpu"))
    mapping = load_mapping(args.lincir) if args.lincir.is_dir() else None
    print(table(run_probe(encoder, mapping, args.queries), args.queries))


if __name__ == "__main__":
    main()
