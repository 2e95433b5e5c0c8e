"""Measures of the embedded text generator on scenes and edits that no training stage saw.

Texts that tell a difference are judged by `embedded_world.instruction_reader`.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random

from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from embedded_world.captions import parse_caption
from embedded_world.drawing import draw
from embedded_world.edits import ONE_EDIT
from embedded_world.instruction_reader import apply_instruction, read_instruction
from embedded_world.modification_texts import join_added
from embedded_world.recipes.measures import Gates, Measure, counted
from embedded_world.recipes.pointing_samples import PointingMix, draw_pointing
from embedded_world.recipes.text_differences import (
    DIFFERENCE,
    MOST_WORDS,
    UNRELATED,
    DifferenceMix,
    changes,
    draw_difference,
)
from embedded_world.recipes.text_model import answer, load, sampled_answers
from embedded_world.recipes.text_prompts import added_prompt, edit_prompt
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

MODEL = "llama"
"""Name of its folder below models/embedded."""
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

SAMPLES = 1000
"""Samples of each main test set."""

_ADDING = (*ONE_EDIT, "add", "add", "add", "add", "replace", "replace", "replace")
"""Kinds of edit for the question about added objects: most answers are not "none"."""


_ONE_APART = DifferenceMix(apart=(1,), kinds=ONE_EDIT, varied=0.5)


@dataclass(frozen=True)
class TestSet:
    """A kind of question: how samples are drawn, and from which side of the split."""

    name: str
    mix: Mix | DifferenceMix | PointingMix
    split: Split
    share: float = 1.0  # of the asked sample size

    def draw(self, rng: Random) -> Sample:
        """One sample of the set."""
        if isinstance(self.mix, DifferenceMix):
            return draw_difference(rng, self.mix, self.split)
        if isinstance(self.mix, PointingMix):
            return draw_pointing(rng, self.mix, self.split)
        return draw_sample(rng, self.mix, self.split)

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
"""The sets named in GATES are gates; the others show where the model is weaker or stronger."""


def tells_true_changes(sample: Sample, text: str) -> bool:
    """Whether a text of at most twelve words states changes of caption A, all of them true."""
    stated = read_instruction(text, sample.said)
    if stated is None or len(text.split()) > MOST_WORDS:
        return False
    return all(change.agrees(sample.wanted) for change in stated)


def tells_everything(sample: Sample, text: str) -> bool:
    """Whether a text of at most twelve words turns the facts of caption A into those of caption B.

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
        sample = test.draw(rng)
        samples.setdefault(sample.prompt, sample)
    return list(samples.values())


def score(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, test: TestSet, count: int
) -> Measure:
    """Ask the model about one test set."""
    samples = draw_samples(test, count)
    texts = answer(model, tokenizer, [sample.prompt for sample in samples])
    right = [is_right(*pair, test.whole) for pair in zip(samples, texts, strict=True)]
    return verdict(test.name, samples, right)


def verdict(name: str, samples: Sequence[Sample], right: Sequence[bool]) -> Measure:
    """The share of right answers, also by kind of edit where a sample has a single one."""
    kinds = [sample.edits[0].kind if len(sample.edits) == 1 else None for sample in samples]
    return counted(MODEL, name, zip(kinds, right, strict=True), GATES.get(name))


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
) -> list[Measure]:
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
    right = {
        "caption right": [
            parse_caption(text) == s.scene for text, s in zip(told, samples, strict=True)
        ],
        "edited": [parse_caption(text) == s.after for text, s in zip(edits, samples, strict=True)],
        "added": [text == join_added(s.edits) for text, s in zip(adds, samples, strict=True)],
    }
    return [verdict(f"{test.name}: {what}", samples, good) for what, good in right.items()]


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


def llama_gates(folder: Path, share: float = 1.0, captioner: Path | None = None) -> Gates:
    """Gates of the text generator in a folder, on a share of the usual samples.

    Args:
        folder: The shipped model.
        share: Of the usual samples.
        captioner: A BLIP-2 whose captions the model is also asked about.
    """
    model, tokenizer = load(folder)
    count = round(SAMPLES * share)
    measures = [score(model, tokenizer, t, round(count * t.share)) for t in TEST_SETS]
    if captioner is not None:
        measures += score_generated(model, tokenizer, captioner, min(count, 500))
    facts = {
        "sampled": sampled(model, tokenizer, min(count, 200)),
        "throughput": throughput(model, tokenizer),
    }
    return Gates(measures, facts)
