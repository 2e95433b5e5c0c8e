"""Measures of the text generator that reads instructions which point."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from embedded_world.recipes import text_measures
from embedded_world.recipes.measures import Gates
from embedded_world.recipes.pointing_samples import BOTH, RELATION, RELATIONS, PointingMix
from embedded_world.recipes.text_measures import (
    TEST_SETS,
    TestSet,
    quick_look,
    score,
    score_generated,
)
from embedded_world.recipes.text_model import load
from embedded_world.recipes.text_samples import ADDED, HELD_OUT, HELD_OUT_SCENES

MODEL = "llama_pointing"
"""Name of its folder below models/embedded."""
POINTING_SETS = (
    TestSet("edited, relation", PointingMix(forms=(RELATION,)), HELD_OUT_SCENES),
    TestSet("edited, relation, held-out edits", PointingMix(forms=(RELATION,)), HELD_OUT, 0.3),
    TestSet(
        "edited, relation and another clause", PointingMix(forms=(RELATIONS,)), HELD_OUT_SCENES
    ),
    TestSet("edited, both things", PointingMix(forms=(BOTH,)), HELD_OUT_SCENES),
    TestSet("added, pointed", PointingMix(tasks=(ADDED,)), HELD_OUT_SCENES),
    TestSet("edited, pointed, open attributes", PointingMix(open_scenes=1.0), HELD_OUT_SCENES, 0.5),
)
"""Instructions that point. Their combinations are seen in training where a name says nothing."""
GATES: Mapping[str, float] = {
    **text_measures.GATES,
    "edited, relation": 0.92,
    "edited, relation and another clause": 0.85,
    "edited, both things": 0.92,
    "added, pointed": 0.98,
}
"""Least share of right answers, given true captions and held-out scenes."""


def glance(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast) -> dict[str, float]:
    """Shares of right answers on a few samples of the main test sets, for progress lines."""
    tests = [test for test in POINTING_SETS if test.name in GATES]
    pointed = {test.name: score(model, tokenizer, test, 100).share for test in tests}
    return quick_look(model, tokenizer) | pointed


def pointing_gates(folder: Path, share: float = 1.0, captioner: Path | None = None) -> Gates:
    """Gates of the text generator that points: those of the other one, and its own.

    Args:
        folder: The shipped model.
        share: Of the usual samples.
        captioner: A BLIP-2 whose captions the model is also asked about.
    """
    model, tokenizer = load(folder)
    count = text_measures.SAMPLES * share
    usual = [test for test in TEST_SETS if test.name in text_measures.GATES]
    tests = [*usual, *POINTING_SETS]
    measures = [score(model, tokenizer, t, round(count * t.share)) for t in tests]
    if captioner is not None:
        measures += score_generated(model, tokenizer, captioner, min(round(count), 500))
    return Gates([replace(each, model=MODEL, gate=GATES.get(each.name)) for each in measures])
