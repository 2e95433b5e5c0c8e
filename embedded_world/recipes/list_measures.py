"""Measures of a verifier of grids on held-out lists, next to the shipped verifier of pairs.

Both are asked as the product asks them: one picture of all candidates, or each candidate alone.
"""

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from embedded_world.drawing import draw
from embedded_world.recipes.commands import EMBEDDED
from embedded_world.recipes.list_pictures import CELL
from embedded_world.recipes.list_queries import ListQuery, draw_lists
from embedded_world.recipes.measures import Gates, Measure, area_under_curve
from embedded_world.recipes.verifier_measures import Verified, request
from models.metering import measuring
from models.spelling import agreed
from models.verifiers.grid import draw_grid, marks_of
from models.verifiers.prompt import SHORT_PROMPTS
from models.verifiers.protocol import Choice, GridRequest
from models.verifiers.qwen3_vl import VlmVerifierSettings

LISTS: Final = 200
MODEL: Final = "grids"
GATES: Final = {0.0: 0.95, 1.0: 0.9}
"""Least AUC by the share of queries with two edits."""

Floats = NDArray[np.float64]


def list_gates(folder: Path, length: int, share: float = 1.0) -> Gates:
    """Top-1 and AUC of both verifiers on the same lists, by number of edits.

    Args:
        folder: Where the verifier of grids lies.
        length: Candidates of a list.
        share: Share of the usual samples.
    """
    rng = Random("list gates")
    pointwise = Verified(EMBEDDED / "verifier")
    rows: list[Measure] = []
    facts: dict[str, object] = {}
    for two, gate in GATES.items():
        lists = draw_lists(rng, round(LISTS * share), length, two_edits=two)
        drawn = [list_pictures(own, number) for number, own in enumerate(lists)]
        kind = "two edits" if two else "one edit"
        begun = time.process_time()
        with measuring() as in_grids:
            chosen = chosen_margins(folder, lists, drawn)
        between = time.process_time()
        with measuring() as alone:
            judged = _judged(pointwise, lists, drawn)
        seconds = (between - begun, time.process_time() - between)
        rows += _measures("listwise", kind, lists, chosen, gate)
        rows += _measures("pointwise", kind, lists, judged, None)
        facts[f"a list, {kind}"] = {
            mode: {
                "calls": spent.calls / len(lists),
                "tokens": round(spent.prompt_tokens / len(lists)),
                "cpu_milliseconds": round(1000 * cost / len(lists), 1),
            }
            for mode, spent, cost in zip(
                ("listwise", "pointwise"), (in_grids.spent, alone.spent), seconds, strict=True
            )
        }
    return Gates(rows, facts)


def list_pictures(own: ListQuery, number: int) -> list[Image.Image]:
    """Drawings of a list's reference and candidates; the number chooses pose and noise."""
    scenes = (own.query.reference, *own.candidates)
    return [draw(scene, 1000 * number + i) for i, scene in enumerate(scenes)]


def grid_requests(
    lists: Sequence[ListQuery], drawn: Sequence[Sequence[Image.Image]]
) -> list[GridRequest]:
    """The lists as the product asks about them."""
    return [
        GridRequest(
            key=f"{number}",
            reference=pictures[0],
            text=own.query.text,
            grid=draw_grid(pictures[1:], CELL),
            marks=marks_of(len(own.candidates)),
        )
        for number, (own, pictures) in enumerate(zip(lists, drawn, strict=True))
    ]


def chosen_margins(
    folder: Path, lists: Sequence[ListQuery], drawn: Sequence[Sequence[Image.Image]]
) -> Floats:
    """Margins of lists of one length (B, K) by the verifier of grids in a folder.

    Raises:
        ValueError: A list has no answer.
    """
    settings = VlmVerifierSettings(
        model=str(folder), device="cpu", dtype="fp32", prompts=SHORT_PROMPTS
    )
    answers: list[Choice] = list(settings.load().choose(grid_requests(lists, drawn)))
    if failed := [each for each in answers if each.status != "ok"]:
        lists_have = agreed(len(failed), "list has", "lists have")
        raise ValueError(f"{len(failed)} {lists_have} no answer: {failed[0].reason}")
    return np.array([each.margins for each in answers], np.float64)


def _judged(
    verifier: Verified, lists: Sequence[ListQuery], drawn: Sequence[Sequence[Image.Image]]
) -> Floats:
    asked = [
        request(f"{n}", pictures[0], own.query.text, f"{n}/{i}", candidate)
        for n, (own, pictures) in enumerate(zip(lists, drawn, strict=True))
        for i, candidate in enumerate(pictures[1:])
    ]
    return verifier.of(asked).reshape(len(lists), -1)


def _measures(
    mode: str, name: str, lists: Sequence[ListQuery], margins: Floats, gate: float | None
) -> Iterator[Measure]:
    fits = np.array([own.fits for own in lists])
    area = area_under_curve(margins[fits], margins[~fits])
    yield Measure(MODEL, f"{mode}, {name}: AUC", area, int((~fits).sum()), gate)
    won = fits[np.arange(len(lists)), margins.argmax(axis=1)]
    yield Measure(MODEL, f"{mode}, {name}: the right one first", float(won.mean()), len(won))
