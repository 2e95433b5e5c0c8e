"""Measures of the embedded verifier on scenes that no training stage saw.

The margins are those that the product computes (`models.verifiers.qwen3_vl`). A weak verifier does
harm to a good first stage, whose best ten differ in one thing; so these ten are a gate.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

from embedded_world.drawing import draw
from embedded_world.recipes.commands import EMBEDDED
from embedded_world.recipes.composed_probe import FAMILY, make_probe, unit
from embedded_world.recipes.measures import Gates, Measure, area_under_curve
from embedded_world.recipes.verifier_queries import (
    BOTH_THINGS,
    RELATION,
    RIGHT,
    TWO_EDITS,
    VerifierQuery,
    cells_off,
    draw_query,
)
from embedded_world.scenes import Scene
from models.encoders.loading import load_encoder
from models.encoders.spec import EncoderSpec
from models.verifiers.prompt import SHORT_PROMPTS
from models.verifiers.protocol import Verification, VerificationRequest
from models.verifiers.qwen3_vl import VlmVerifierSettings

ONE_CELL_GATE: Final = 0.98
TOP_GATE: Final = 0.98
TWO_EDIT_GATE: Final = 0.95
POINTED_GATE: Final = 0.95
AGREEMENT: Final = 1e-4

QUERIES: Final = 300
PROBED: Final = 120
TOP: Final = 10
COMPARED: Final = 6
"""Queries whose pairs are also read one a row."""

Floats = NDArray[np.float64]


def verifier_gates(folder: Path, share: float = 1.0, clip: Path = EMBEDDED / "clip") -> Gates:
    """Gates of the verifier in a folder, on a share of the usual samples.

    Args:
        folder: Where it lies.
        share: Share of the usual samples.
        clip: The first stage whose best ten are verified.
    """
    verifier = Verified(folder)
    rng = Random("verifier gates")
    count = round(QUERIES * share)
    one = [draw_query(rng, held_out=True, two_edits=0.0) for _ in range(count)]
    two = [draw_query(rng, held_out=True, two_edits=1.0) for _ in range(count)]
    pointed = [draw_query(rng, held_out=True, pointed=1.0) for _ in range(2 * count)]
    groups = {TWO_EDITS: (two, TWO_EDIT_GATE)}
    for kind in (RELATION, BOTH_THINGS):
        groups[kind] = ([query for query in pointed if query.kind == kind], POINTED_GATE)
    return Gates(
        [
            *_query_measures(folder.name, one, verifier.margins(one)),
            *(
                measure
                for kind, (queries, gate) in groups.items()
                for measure in _kind_measures(
                    folder.name, kind, queries, verifier.margins(queries), gate
                )
            ),
            top_measure(folder.name, verifier, clip, round(PROBED * share)),
            agreement_measure(folder, verifier, one[:COMPARED]),
        ]
    )


class Verified:
    """The verifier of a folder, asked about drawn queries."""

    def __init__(self, folder: Path) -> None:
        settings = VlmVerifierSettings(
            model=str(folder), device="cpu", dtype="fp32", prompts=SHORT_PROMPTS
        )
        self._verifier = settings.load()

    def margins(self, queries: Sequence[VerifierQuery]) -> Floats:
        """Margins (B, CANDIDATES)."""
        asked = [request for query in self._requests(queries) for request in query]
        return self.of(asked).reshape(len(queries), -1)

    def of(self, requests: Sequence[VerificationRequest]) -> Floats:
        """The margin of each request."""
        answers: list[Verification] = list(self._verifier.verify(requests))
        return np.array([answer.margin for answer in answers], np.float64)

    @staticmethod
    def _requests(queries: Sequence[VerifierQuery]) -> Iterator[list[VerificationRequest]]:
        for number, query in enumerate(queries):
            reference, *candidates = pictures(query, number)
            yield [
                request(f"{number}", reference, query.text, f"{number}/{i}", candidate)
                for i, candidate in enumerate(candidates)
            ]


def pictures(query: VerifierQuery, number: int) -> list[Image.Image]:
    """Drawings of a query's reference and candidates; the number chooses pose and noise."""
    return [draw(scene, 1000 * number + i) for i, scene in enumerate(query.scenes)]


def request(
    reference_id: str, reference: Image.Image, text: str, candidate_id: str, candidate: Image.Image
) -> VerificationRequest:
    """A request whose key is that of both pictures."""
    return VerificationRequest(
        key=f"{reference_id} {candidate_id}",
        reference_id=reference_id,
        reference=reference,
        text=text,
        candidate_id=candidate_id,
        candidate=candidate,
    )


def _query_measures(
    model: str, queries: Sequence[VerifierQuery], margins: Floats
) -> Iterator[Measure]:
    off = np.array([[cells_off(q.wanted, scene) for scene in q.candidates] for q in queries])
    is_reference = np.array([[scene == q.reference for scene in q.candidates] for q in queries])
    right, near = margins[off == 0], margins[off == 1]
    wrong = margins[off > 0]
    name = "one edit: AUC"
    yield Measure(model, name, area_under_curve(right, wrong), len(wrong))
    name = "one edit, one cell off: AUC"
    yield Measure(model, name, area_under_curve(right, near), len(near), ONE_CELL_GATE)
    yield Measure(model, "one edit: right ones said yes", float((right > 0).mean()), len(right))
    yield Measure(model, "one edit, one cell off: said no", float((near < 0).mean()), len(near))
    unchanged = margins[is_reference]
    name = "the reference itself: said no"
    yield Measure(model, name, float((unchanged < 0).mean()), len(unchanged))
    yield _first(model, "one edit: a right one first of 8", queries, margins)


def _kind_measures(
    model: str, kind: str, queries: Sequence[VerifierQuery], margins: Floats, gate: float
) -> Iterator[Measure]:
    right, wrong = margins[:, :RIGHT].ravel(), margins[:, RIGHT:].ravel()
    yield Measure(model, f"{kind}: AUC", area_under_curve(right, wrong), len(wrong), gate)
    yield _first(model, f"{kind}: a right one first of 8", queries, margins)


def _first(model: str, name: str, queries: Sequence[VerifierQuery], margins: Floats) -> Measure:
    won = margins.argmax(axis=1) < RIGHT
    kinds: dict[str, tuple[int, int]] = {}
    for query, good in zip(queries, won, strict=True):
        right, n = kinds.get(query.kind, (0, 0))
        kinds[query.kind] = (right + int(good), n + 1)
    return Measure(model, name, float(won.mean()), len(won), kinds=kinds)


def top_measure(model: str, verifier: Verified, clip: Path, count: int) -> Measure:
    """How well right and wrong ones are told apart among the best ten of image + text."""
    probe = make_probe(count, seed=1)
    drawn = [draw(scene, seed) for seed, scene in enumerate(probe.gallery)]
    encoder = load_encoder(EncoderSpec(name=str(clip), device="cpu"))
    images = unit(encoder.encode_images(drawn))
    queries = unit(images[::FAMILY] + unit(encoder.encode_texts(probe.texts)))
    scores = queries @ images.T
    scores[np.arange(count), np.arange(count) * FAMILY] = -np.inf  # the reference is not an answer
    best = np.argsort(-scores, axis=1, kind="stable")[:, :TOP]
    asked, is_right = [], []
    for number, row in enumerate(best):
        wanted: Scene = probe.edits[number].apply(probe.reference(number))
        place = number * FAMILY
        for found in row.tolist():
            is_right.append(wanted.matches(probe.gallery[found]))
            asked.append(
                request(str(place), drawn[place], probe.texts[number], str(found), drawn[found])
            )
    margins, right = verifier.of(asked), np.array(is_right)
    area = area_under_curve(margins[right], margins[~right])
    return Measure(model, f"top {TOP} of image + text: AUC", area, int((~right).sum()), TOP_GATE)


def agreement_measure(
    folder: Path, verifier: Verified, queries: Sequence[VerifierQuery]
) -> Measure:
    """Share of pairs whose margin behind a shared prefix is that of the library, one a row."""
    plain = np.array([_plain_margins(folder, q, i) for i, q in enumerate(queries)])
    close = np.abs(verifier.margins(queries) - plain) <= AGREEMENT
    name = f"packed and plain margins agree to {AGREEMENT:g}"
    return Measure(folder.name, name, float(close.mean()), close.size, 1.0)


@torch.inference_mode()
def _plain_margins(folder: Path, query: VerifierQuery, number: int) -> list[float]:
    """Margins of a query's candidates by the library's own chat and forward."""
    processor: Any = AutoProcessor.from_pretrained(folder)
    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()
    yes, no = processor.tokenizer.convert_tokens_to_ids([" yes", " no"])
    reference, *candidates = pictures(query, number)
    margins = []
    for candidate in candidates:
        content = [
            {"type": "text", "text": query.text},
            {"type": "image", "image": reference},
            {"type": "image", "image": candidate},
        ]
        inputs = processor.apply_chat_template(
            [{"role": "user", "content": content}],
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
        )
        logits = model(**inputs).logits[0, -1]
        margins.append(float(logits[yes] - logits[no]))
    return margins
