"""Gates of the embedded text generator on scenes and edits that no training stage saw.

    OMP_NUM_THREADS=1 python -m flows.recipes.text_gates --model models/embedded/llama

Prints a table with sample sizes and standard errors and then one JSON line; ends with 1 when a
gate is missed. With `--captioner DIR` (a BLIP-2) it also says what generated captions give.
"""

import argparse
import json
import math
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from typing import Any

import torch
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from flows.recipes.text_language import added_prompt, edit_prompt
from flows.recipes.text_model import answer, load
from flows.recipes.text_samples import (
    ADDED,
    HELD_OUT,
    HELD_OUT_SCENES,
    Mix,
    Sample,
    Split,
    draw_sample,
)
from models.captioners.blip2 import Blip2Captioner, Blip2Settings
from models.protocols import CaptionSampling
from storage.world.drawing import draw
from storage.world.grammar import ONE_EDIT, join_added, parse_caption

MODEL = Path("models/embedded/llama")
CAPTIONER = Path("models/embedded/blip2")
GATES: Mapping[str, float] = {"edited": 0.92, "added": 0.98}
"""Least share of right answers, given true captions, one edit, everything held out."""

_ADDING = (*ONE_EDIT, "add", "add", "add", "add", "replace", "replace", "replace")
"""Kinds for the question of what is added: a good half of the answers are not "none"."""


@dataclass(frozen=True)
class TestSet:
    """A kind of question: how samples are drawn, and from which side of the split."""

    name: str
    mix: Mix
    split: Split
    share: float = 1.0  # of the asked sample size


TEST_SETS = (
    TestSet("edited", Mix(), HELD_OUT),
    TestSet("added", Mix(tasks=(ADDED,), kinds=_ADDING, open_edits=0.2), HELD_OUT),
    TestSet("edited, seen combinations", Mix(), HELD_OUT_SCENES),
    TestSet("edited, canonical captions", Mix(varied=0.0), HELD_OUT),
    TestSet("edited, things in another order", Mix(varied=1.0, shuffled=1.0), HELD_OUT, 0.5),
    TestSet("edited, always three things", Mix(least=3), HELD_OUT, 0.5),
    TestSet("edited, open attributes", Mix(open_scenes=1.0, open_edits=0.3), HELD_OUT, 0.5),
    TestSet("edited, two edits", Mix(two=1.0), HELD_OUT),
    TestSet("edited, two edits, seen combinations", Mix(two=1.0), HELD_OUT_SCENES),
    TestSet("added, two edits", Mix(tasks=(ADDED,), kinds=_ADDING, two=1.0), HELD_OUT, 0.5),
    TestSet("edited, caption wrong there", Mix(mismatched=1.0), HELD_OUT_SCENES, 0.5),
)
"""The first two are the gates; the others say where the model is weaker or stronger."""


@dataclass
class Score:
    """Right answers out of `n`, also per kind of edit (single edits only)."""

    name: str
    n: int = 0
    right: int = 0
    kinds: dict[str, list[int]] = field(default_factory=dict)

    @property
    def share(self) -> float:
        """Share of right answers."""
        return self.right / max(1, self.n)

    @property
    def error(self) -> float:
        """Standard error of the share."""
        return math.sqrt(self.share * (1 - self.share) / max(1, self.n))

    def count(self, sample: Sample, good: bool) -> None:
        """Add one answer."""
        self.n += 1
        self.right += good
        if len(sample.edits) == 1:
            tally = self.kinds.setdefault(sample.edits[0].kind, [0, 0])
            tally[0] += good
            tally[1] += 1

    def as_json(self) -> dict[str, object]:
        """Plain values for the JSON line."""
        kinds = {k: f"{good}/{n}" for k, (good, n) in sorted(self.kinds.items())}
        return {
            "share": round(self.share, 4),
            "se": round(self.error, 4),
            "n": self.n,
            "kinds": kinds,
        }


def is_right(sample: Sample, text: str) -> bool:
    """Whether an answer is exactly right or, for captions, says the very same scene."""
    if sample.task == ADDED:
        return text == sample.answer
    return text == sample.answer or parse_caption(text) == sample.wanted


def draw_samples(test: TestSet, count: int) -> list[Sample]:
    """Distinct samples of a test set; the same every time."""
    rng = Random(f"gate/{test.name}")
    samples: dict[str, Sample] = {}
    while len(samples) < count:
        sample = draw_sample(rng, test.mix, test.split)
        samples.setdefault(sample.prompt, sample)
    return list(samples.values())


def score(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, test: TestSet, count: int
) -> Score:
    """Ask the model about one test set."""
    samples = draw_samples(test, count)
    result = Score(test.name)
    texts = answer(model, tokenizer, [s.prompt for s in samples])
    for sample, text in zip(samples, texts, strict=True):
        result.count(sample, is_right(sample, text))
    return result


def quick_look(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, count: int = 100
) -> dict[str, float]:
    """Shares of right answers on a few samples of the main test sets, for progress lines."""
    names = ("edited", "added", "edited, two edits")
    tests = [test for test in TEST_SETS if test.name in names]
    return {test.name: score(model, tokenizer, test, count).share for test in tests}


def score_generated(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, captioner: Path, count: int
) -> list[Score]:
    """The same questions on captions that a captioner writes of drawn pictures.

    Answers are held against the true scene after the edit, so the captioner's slips count too.
    """
    test = replace(TEST_SETS[0], name="generated captions")
    samples = draw_samples(test, count)
    engine = Blip2Captioner(Blip2Settings(model=str(captioner), device="cpu", dtype="float32"))
    pictures = ((str(i), draw(sample.scene, seed=i)) for i, sample in enumerate(samples))
    sampling = CaptionSampling(n=1, mode="greedy", max_new_tokens=60)
    captions = {r.key: "".join(r.captions) for r in engine.caption(pictures, sampling)}
    told = [captions[str(i)] for i in range(len(samples))]
    pairs = [(c, s.instruction) for c, s in zip(told, samples, strict=True)]
    edits = answer(model, tokenizer, [edit_prompt(*pair) for pair in pairs])
    adds = answer(model, tokenizer, [added_prompt(*pair) for pair in pairs])
    scores = [Score(f"generated captions: {what}") for what in ("caption right", "edited", "added")]
    for sample, words, edited, added in zip(samples, told, edits, adds, strict=True):
        scores[0].count(sample, parse_caption(words) == sample.scene)
        scores[1].count(sample, parse_caption(edited) == sample.after)
        scores[2].count(sample, added == join_added(sample.edits))
    return scores


def throughput(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, count: int = 500
) -> dict[str, float]:
    """Greedy answers and answer tokens per CPU second, batch 100."""
    prompts = [s.prompt for s in draw_samples(TEST_SETS[2], count)]
    began = time.process_time()
    texts = answer(model, tokenizer, prompts)
    spent = time.process_time() - began
    tokens = sum(map(len, tokenizer(texts, add_special_tokens=False)["input_ids"]))
    return {
        "answers_per_cpu_s": round(count / spent, 1),
        "tokens_per_cpu_s": round((tokens + count) / spent, 1),
    }


def run_gates(path: Path, count: int, captioner: Path | None) -> dict[str, Any]:
    """Score a shipped model, print the table and return what the JSON line says."""
    torch.set_num_threads(1)
    model, tokenizer = load(path)
    scores = []
    for test in TEST_SETS:
        scores.append(score(model, tokenizer, test, round(count * test.share)))
        _show(scores[-1])
    if captioner is not None:
        for extra in score_generated(model, tokenizer, captioner, min(count, 500)):
            scores.append(extra)
            _show(extra)
    shares = {s.name: s.share for s in scores}
    return {
        "passed": all(shares[name] >= least for name, least in GATES.items()),
        "gates": {name: [round(shares[name], 4), least] for name, least in GATES.items()},
        "sets": {s.name: s.as_json() for s in scores},
        "throughput": throughput(model, tokenizer),
    }


def _show(score: Score) -> None:
    gate = f"  (gate {GATES[score.name]})" if score.name in GATES else ""
    print(f"{score.name:38} {score.share:.4f} +- {score.error:.4f}  n={score.n}{gate}")
    if score.kinds:
        kinds = (f"{kind} {good}/{n}" for kind, (good, n) in sorted(score.kinds.items()))
        print(" " * 38, *kinds, sep="  ", flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, default=MODEL)
    parser.add_argument("--count", type=int, default=1000, help="samples of each main set")
    parser.add_argument("--captioner", type=Path, help=f"a BLIP-2, for example {CAPTIONER}")
    parser.add_argument("--record", action="store_true", help="also put the figures in recipe.json")
    given = parser.parse_args(arguments)
    report = run_gates(given.model, given.count, given.captioner)
    if given.record:
        recipe = given.model / "recipe.json"
        told = json.loads(recipe.read_text()) | {"measured": report}
        recipe.write_text(json.dumps(told, indent=1) + "\n")
    print(json.dumps(report))
    return 0 if report["passed"] else 1


if __name__ == "__main__":
    sys.exit(main())
