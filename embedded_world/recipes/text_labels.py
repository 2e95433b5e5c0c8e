"""Labels of the probes on the text generator's hidden states, token by token.

The probes are thrown away after training; their losses make the model find the thing that an
instruction names, and the facts that a caption says otherwise, before it writes.
"""

from collections.abc import Sequence

from transformers import PreTrainedTokenizerFast

from embedded_world.recipes.text_prompts import CAPTION_B, INSTRUCTION
from embedded_world.scenes import ATTRIBUTES, BACKGROUNDS, COLOURS, SHAPES, Scene
from embedded_world.words import AT, AT_ALT, PLAIN, TO, with_synonyms


class AimLabels:
    """Labels of two probes: which cell does this token of an instruction speak about?

    Texts often name a thing without its place, and captions name the place first: the model must
    find the thing before it can know where its answer departs from the caption. First the noun
    finds the cell (aim), then the words after it learn it from the noun (spread). Where a thing is
    pointed at by another one, the other one's noun finds its own cell, and no word after it is
    asked: it is the answer's words that find out which cell lies so.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        ids = tokenizer.convert_tokens_to_ids
        self.instruction, self.joint = ids(INSTRUCTION.lower()), ids("and")
        self.thing = ids("object")
        self.nouns = {self.thing, *(ids(shape) for shape in SHAPES)}
        self.relations = {ids(word) for word in ("of", "above", "below")} - {tokenizer.unk_token_id}
        self.looks = {(ids(c), ids(s)): (c, s) for c in COLOURS for s in SHAPES}

    def __call__(
        self, prompt: Sequence[int], aims: Sequence[int | None], said: Scene
    ) -> tuple[list[int], list[int]]:
        """A cell at each edit's noun, and one at each word after it; -1 elsewhere."""
        aimed, spread = [-1] * len(prompt), [-1] * len(prompt)
        if not aims:
            return aimed, spread
        start = prompt.index(self.instruction) + 1
        for aim in aims:
            end = next((i for i in range(start, len(prompt) - 1) if prompt[i] == self.joint), -1)
            end = len(prompt) - 1 if end < 0 else end
            first = next((i for i in range(start, end) if prompt[i] in self.relations), start)
            noun = next((i for i in range(first, end) if prompt[i] in self.nouns), end)
            if first > start:
                aimed[noun] = self._cell(prompt[noun - 1], prompt[noun], said)
                start = end + 1
                continue
            # "the object on the left": the words after the noun tell which one it is.
            noun += prompt[noun] == self.thing
            if aim is not None and noun < end:
                aimed[noun] = aim
                spread[noun + 1 : end] = [aim] * (end - noun - 1)
            start = end + 1
        return aimed, spread

    def _cell(self, colour: int, shape: int, said: Scene) -> int:
        """Where the first thing of a colour and a shape stands, given their tokens."""
        things = {(t.colour, t.shape): c for c in reversed(said.occupied) for t in [said.thing(c)]}
        return things[self.looks[colour, shape]]


class ChangeLabels:
    """Labels of the second probe: does the next answer token differ from the caption?"""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self.meaning: dict[int, tuple[str, object]] = {}

        def learn(token: str, slot: str, value: object) -> None:
            self.meaning[tokenizer.convert_tokens_to_ids(token)] = (slot, value)

        for places in (AT, AT_ALT):
            for cell, place in enumerate(places):
                learn(place, "place", cell)
        for slot, values in ATTRIBUTES.items():
            for word in with_synonyms(values):
                learn(word, slot, PLAIN.get(word, word))
                if slot == "size":
                    learn(f"a {word}", slot, PLAIN.get(word, word))
        for word in with_synonyms(BACKGROUNDS):
            for phrase in (f"on a {word} background", f"with a {word} backdrop"):
                learn(phrase, "ground", PLAIN.get(word, word))

    def __call__(self, answer: Sequence[int], said: Scene) -> list[int]:
        """One label per answer token: 1 = not the caption's fact, 0 = the same, -1 = none."""
        labels = []
        cell = -1
        for token in answer:
            slot, value = self.meaning.get(token, ("", None))
            label = -1
            if slot in ("place", "ground"):
                following = next((c for c in said.occupied if c > cell), None)
                if slot == "place":
                    label = int(value != following)
                    cell = int(str(value))
                else:
                    label = int(following is not None or value != said.background)
            elif slot:
                thing = said.cells[cell] if cell >= 0 else None
                label = int(thing is None or getattr(thing, slot) != value)
            labels.append(label)
        return labels


class DifferenceLabels:
    """Labels of the probes of the difference task.

    Contrast: does caption A say otherwise than this token of caption B? Target: which cell is the
    change in that this part of the answer tells?
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast, changes: ChangeLabels) -> None:
        self.meaning = changes.meaning
        self.caption_b = tokenizer.convert_tokens_to_ids(CAPTION_B.lower())
        self.joint = tokenizer.convert_tokens_to_ids("and")
        words = [*TO, *BACKGROUNDS, "bigger", "smaller"]
        self.facts = {*changes.meaning, *tokenizer.convert_tokens_to_ids(words)}

    def contrast(self, prompt: Sequence[int], before: Scene) -> list[int]:
        """One label per token of the prompt: 1 = A says otherwise, 0 = not, -1 = neither."""
        labels = [-1] * len(prompt)
        old = None
        for i in range(prompt.index(self.caption_b), len(prompt)):
            slot, value = self.meaning.get(prompt[i], ("", None))
            if slot == "place":
                old = before.cells[int(str(value))]
                labels[i] = int(old is None)
            elif slot == "ground":
                labels[i] = int(before.background not in (None, value))
            elif slot:
                labels[i] = int(old is None or getattr(old, slot) not in (None, value))
        return labels

    def target(self, answer: Sequence[int], aims: Sequence[int | None]) -> list[int]:
        """The cell that each token of the answer is about, -1 where it is about none."""
        labels, clause = [], 0
        for token in answer:
            clause += token == self.joint
            aim = aims[clause]
            labels.append(-1 if aim is None or token == self.joint else aim)
        return labels
