"""Gates of the embedded text generator on scenes and edits that no training stage saw.

    OMP_NUM_THREADS=1 python -m embedded_world.recipes.text_gates --model models/embedded/llama

Prints a table with sample sizes and standard errors and then one JSON line; ends with 1 when a
gate is missed. Texts that tell a difference are judged by `embedded_world.instructions`. With
`--captioner DIR` (a BLIP-2) it also says what generated captions give.
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

from embedded_world.drawing import draw
from embedded_world.grammar import ONE_EDIT, join_added, parse_caption
from embedded_world.instructions import apply_instruction, read_instruction
from embedded_world.recipes.text_differences import (
    DIFFERENCE,
    MOST_WORDS,
    UNRELATED,
    DifferenceMix,
    changes,
    draw_difference,
)
from embedded_world.recipes.text_language import added_prompt, edit_prompt
from embedded_world.recipes.text_model import answer, load, sampled_answers
from embedded_world.recipes.text_samples import (
    ADDED,
    HELD_OUT,
    HELD_OUT_SCENES,
    Mix,
    Sample,
    Split,
    draw_sample,
)
from models.captioners.blip2 import Blip2Settings
from models.protocols import CaptionSampling

MODEL = Path("models/embedded/llama")
CAPTIONER = Path("models/embedded/blip2")
GATES: Mapping[str, float] = {
    "edited": 0.92,
    "added": 0.98,
    "difference": 0.97,
    "difference, two to four edits": 0.85,
    "difference, unrelated scenes": 0.85,
}
"""Least share of right answers, given true captions and held-out scenes.

The first three are about one edit whose combination is held out, too.
"""

_ADDING = (*ONE_EDIT, "add", "add", "add", "add", "replace", "replace", "replace")
"""Kinds for the question of what is added: a good half of the answers are not "none"."""


_ONE_APART = DifferenceMix(apart=(1,), kinds=ONE_EDIT, varied=0.5)


@dataclass(frozen=True)
class TestSet:
    """A kind of question: how samples are drawn, and from which side of the split."""

    name: str
    mix: Mix | DifferenceMix
    split: Split
    share: float = 1.0  # of the asked sample size

    @property
    def whole(self) -> bool:
        """Whether an answer must tell the whole difference: where that is one edit."""
        return isinstance(self.mix, DifferenceMix) and self.mix.apart == (1,)


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
    TestSet("difference", _ONE_APART, HELD_OUT),
    TestSet("difference, seen combinations", _ONE_APART, HELD_OUT_SCENES),
    TestSet("difference, canonical captions", replace(_ONE_APART, varied=0.0), HELD_OUT),
    TestSet("difference, open attributes", replace(_ONE_APART, open_scenes=1.0), HELD_OUT, 0.5),
    TestSet("difference, two to four edits", DifferenceMix(apart=(2, 3, 4)), HELD_OUT_SCENES),
    TestSet("difference, unrelated scenes", DifferenceMix(apart=(UNRELATED,)), HELD_OUT_SCENES),
)
"""Those named in GATES are gates; the others say where the model is weaker or stronger."""


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


def tells_true_changes(sample: Sample, text: str) -> bool:
    """Whether a text of at most twelve words states changes of caption A, all of them true."""
    stated = read_instruction(text, sample.said)
    if stated is None or len(text.split()) > MOST_WORDS:
        return False
    return all(change.agrees(sample.wanted) for change in stated)


def tells_everything(sample: Sample, text: str) -> bool:
    """Whether a text of at most twelve words makes what caption B says of what caption A says.

    Attributes that caption B alone leaves open may stay as they are in A.
    """
    after = apply_instruction(text, sample.said)
    return (
        after is not None and not changes(after, sample.wanted) and tells_true_changes(sample, text)
    )


def is_right(sample: Sample, text: str, whole: bool = False) -> bool:
    """Whether an answer is right.

    Objects added: exactly; edited captions: exactly, or the very same scene; differences: all
    that is told is true, and with `whole` nothing is missing.
    """
    if sample.task == DIFFERENCE:
        return tells_everything(sample, text) if whole else tells_true_changes(sample, text)
    if sample.task == ADDED:
        return text == sample.answer
    return text == sample.answer or parse_caption(text) == sample.wanted


def draw_samples(test: TestSet, count: int) -> list[Sample]:
    """Distinct samples of a test set; the same every time."""
    rng = Random(f"gate/{test.name}")
    samples: dict[str, Sample] = {}
    while len(samples) < count:
        if isinstance(test.mix, DifferenceMix):
            sample = draw_difference(rng, test.mix, test.split)
        else:
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
        result.count(sample, is_right(sample, text, test.whole))
    return result


def quick_look(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, count: int = 100
) -> dict[str, float]:
    """Shares of right answers on a few samples of the main test sets, for progress lines."""
    names = (
        *("edited", "added", "edited, two edits", "difference"),
        *("difference, two to four edits", "difference, unrelated scenes"),
    )
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
    engine = Blip2Settings(model=str(captioner), device="cpu", dtype="fp32").load()
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


def sampled(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, count: int, times: int = 8
) -> dict[str, dict[str, float]]:
    """Differences drawn at temperature 1.0: share right, and distinct texts out of `times`."""
    told = {}
    for test in TEST_SETS:
        if test.name in GATES and isinstance(test.mix, DifferenceMix):
            samples = draw_samples(test, count)
            prompts = [sample.prompt for sample in samples for _ in range(times)]
            texts = sampled_answers(model, tokenizer, prompts, seed=0)
            groups = [texts[i : i + times] for i in range(0, len(texts), times)]
            right = [
                is_right(sample, text, test.whole)
                for sample, group in zip(samples, groups, strict=True)
                for text in group
            ]
            told[test.name] = {
                "right": round(sum(right) / len(right), 4),
                "distinct": round(sum(len(set(group)) for group in groups) / count, 2),
                "times": times,
                "n": count,
                "most_words": max(len(text.split()) for text in texts),
            }
    return told


def throughput(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, count: int = 500
) -> dict[str, float]:
    """Greedy answers and answer tokens per CPU second, batch 100."""
    prompts = [s.prompt for s in draw_samples(TEST_SETS[2], count)]  # edited descriptions
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
        "sampled": sampled(model, tokenizer, min(count, 200)),
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
