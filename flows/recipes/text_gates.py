"""Gates of the embedded text generator on scenes and edits that no training stage saw."""

from random import Random

from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from flows.recipes.text_model import answer
from flows.recipes.text_samples import ADDED, EDIT, HELD_OUT, Mix, Sample, draw_sample
from storage.world.grammar import parse_caption


def right(sample: Sample, text: str) -> bool:
    """Whether an answer is exactly right or equivalent."""
    if sample.task == ADDED:
        return text == sample.answer
    return text == sample.answer or parse_caption(text) == sample.wanted


def quick_look(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, count: int = 100
) -> dict[str, float]:
    """Shares of right answers over a few held-out samples, for progress lines."""
    sets = {
        "edit": Mix(tasks=(EDIT,)),
        "added": Mix(tasks=(ADDED,)),
        "two": Mix(tasks=(EDIT,), two=1.0),
    }
    shares = {}
    for name, mix in sets.items():
        rng = Random(f"look/{name}")
        samples = [draw_sample(rng, mix, HELD_OUT) for _ in range(count)]
        texts = answer(model, tokenizer, [s.prompt for s in samples])
        shares[name] = sum(map(right, samples, texts)) / count
    return shares
