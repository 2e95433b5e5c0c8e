"""What the embedded verifier makes of other ways of asking: questions by rule, and grids.

    OMP_NUM_THREADS=1 python -m embedded_world.recipes.verifier_modes

Held-out queries with one and with two edits, eight candidates each of which two are right. A mode
that the verifier cannot answer should be refused, since nothing in its answers says so.
"""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Final, get_args

import numpy as np

from embedded_world.recipes.commands import EMBEDDED
from embedded_world.recipes.measures import area_under_curve
from embedded_world.recipes.verifier_measures import pictures, request
from embedded_world.recipes.verifier_queries import CANDIDATES, RIGHT, VerifierQuery, draw_query
from models.checkpoints import UnusableCheckpoint
from models.metering import measuring
from models.prompts.library import load_prompt
from models.verifiers.grid import draw_grid, marks_of
from models.verifiers.prompt import ASKED_PROMPTS, SHORT_PROMPTS, VerifierPrompts
from models.verifiers.protocol import GridRequest
from models.verifiers.questions import Combination, changes_of, combined
from models.verifiers.qwen3_vl import VlmVerifier, VlmVerifierSettings

CELL: Final = 96


@dataclass(frozen=True)
class Way:
    """A way of asking: prompts of a pair, and what is asked of it in the place of its text."""

    name: str
    prompts: VerifierPrompts
    asked: Callable[[str], Sequence[str]]


def default_questions(text: str) -> list[str]:
    """Those of `verify.questions.source=rule`."""
    rule, kept = (load_prompt(name, ("text",)) for name in ("verify_rule", "verify_kept"))
    return [*(rule.render(text=each) for each in changes_of(text)), kept.render(text=text)]


WAYS: Final = (
    Way("pointwise", SHORT_PROMPTS, lambda text: [text]),
    Way("each change alone", SHORT_PROMPTS, changes_of),
    Way("default questions", ASKED_PROMPTS, default_questions),
)


def main() -> None:
    """Print each way's measures."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("--queries", type=int, default=100)
    count = parser.parse_args().queries
    rng = Random("verifier modes")
    kinds = {"one edit": 0.0, "two edits": 1.0}
    for kind, share in kinds.items():
        queries = [draw_query(rng, held_out=True, two_edits=share) for _ in range(count)]
        for way in WAYS:
            _print_way(kind, way, queries)
        print(f"{kind}: listwise: {_listwise(queries[0])}", flush=True)


def _verifier(prompts: VerifierPrompts) -> VlmVerifier:
    return VlmVerifierSettings(
        model=str(EMBEDDED / "verifier"), device="cpu", dtype="fp32", prompts=prompts
    ).load()


def _print_way(kind: str, way: Way, queries: Sequence[VerifierQuery]) -> None:
    places, asked = [], []
    for number, query in enumerate(queries):
        reference, *candidates = pictures(query, number)
        for text in way.asked(query.text):
            for i, candidate in enumerate(candidates):
                places.append((number, i))
                asked.append(request(f"{number}", reference, text, f"{number}/{i}", candidate))
    with measuring() as meter:
        answers = list(_verifier(way.prompts).verify(asked))
    found: dict[tuple[int, int], list[float]] = {}
    for place, answer in zip(places, answers, strict=True):
        if answer.margin is None:
            raise ValueError(f"{way.name}: {answer.status}: {answer.reason}")
        found.setdefault(place, []).append(answer.margin)
    mass = float(np.median([answer.mass for answer in answers]))
    spent = meter.spent
    scores: Sequence[Combination] = get_args(Combination) if way is not WAYS[0] else ("mean",)
    for score in scores:
        margins = np.array(
            [[combined(found[q, i], score) for i in range(CANDIDATES)] for q in range(len(queries))]
        )
        area = area_under_curve(margins[:, :RIGHT].ravel(), margins[:, RIGHT:].ravel())
        first = float((margins.argmax(axis=1) < RIGHT).mean())
        print(
            f"{kind}: {way.name}, {score}: AUC {area:.3f}, a right one first {first:.3f}, "
            f"P(yes) + P(no) {mass:.3f}; for a query {spent.calls / len(queries):.1f} calls, "
            f"{spent.prompt_tokens / len(queries):.0f} tokens",
            flush=True,
        )


def _listwise(query: VerifierQuery) -> str:
    """The verifier's answer about one grid, or its refusal."""
    reference, *candidates = pictures(query, 0)
    asked = GridRequest(
        key="grid",
        reference=reference,
        text=query.text,
        grid=draw_grid(candidates, CELL),
        marks=marks_of(CANDIDATES),
    )
    try:
        (choice,) = _verifier(SHORT_PROMPTS).choose([asked])
    except UnusableCheckpoint as refusal:
        return f"refused: {refusal}"
    return f"{choice.status} {choice.margins}"


if __name__ == "__main__":
    main()
