"""Triplets: a modification text for every pair of a sample (InstructCIR, section III)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import pyarrow as pa

from models.instructcir.modification_texts import (
    PLACEHOLDERS,
    CaptionPair,
    WritingSettings,
    WrittenText,
    write_texts,
)
from models.instructcir.pairs import Pair
from models.prompts.library import load_prompt
from storage.tables.schemas import OK
from tasks.engines import generator_fingerprint, load_generator
from tasks.settings import GeneratorSettings
from tasks.stages.caption_features import captions_of
from tasks.stages.captions import CaptionStage
from tasks.stages.pair_samples import PairSample
from tasks.stages.stage import Stage, Tick

MISSING_INPUT = "missing_input"
"""Status of a pair of which an image has no caption."""


class TripletStage(Stage):
    """Modification texts of the pairs of a sample.

    The table holds all samples of one rule, whatever their size: asking for more pairs adds rows
    to the table of fewer.
    """

    table_name: ClassVar[str] = "triplets"
    producer: ClassVar[str] = "cirflow/triplets/1"

    pairs: PairSample
    captions: CaptionStage
    """One caption of every image in the pairs."""
    prompt: str
    generator: GeneratorSettings
    temperature: float = 0.0
    retry_temperature: float = 0.7
    attempts: int = 3

    @property
    def title(self) -> str:
        """A few words for progress lines."""
        return f"triplets from {self.pairs.title}"

    @property
    def writing(self) -> WritingSettings:
        """How texts are asked for."""
        return WritingSettings(
            temperature=self.temperature,
            retry_temperature=self.retry_temperature,
            attempts=self.attempts,
            max_new_tokens=self.generator.max_new_tokens,
            seed=self.generator.seed,
        )

    def identity(self) -> dict[str, Any]:
        """Images and rule of the sample, captions, generator, prompt and contract."""
        return {
            "pairs": self.pairs.identity(self.root),
            "captions": self.captions.spec_key,
            "generator": dict(generator_fingerprint(self.generator)),
            "prompt": dict(load_prompt(self.prompt, PLACEHOLDERS).fingerprint),
            "settings": dict(self.writing.fingerprint),
        }

    def planned(self) -> list[str]:
        """Identities of the pairs."""
        return list(self.pairs.places(self.root))

    def rows(self, members: Sequence[str], tick: Tick) -> pa.Table:
        """Have the members' texts written; a pair without both captions is a row that says so."""
        known = self.pairs.places(self.root)
        places = {member: known[member] for member in members}
        pairs = {key: pair for key, (_, pair) in places.items()}
        captions = self._captions(list(pairs.values()))
        ready = [
            CaptionPair(key, captions[pair.reference], captions[pair.target])
            for key, pair in pairs.items()
            if pair.reference in captions and pair.target in captions
        ]
        tick(len(members) - len(ready))
        prompt = load_prompt(self.prompt, PLACEHOLDERS)
        generator = load_generator(self.generator)
        texts = write_texts(generator, prompt, ready, self.writing, tick) if ready else {}
        made = [
            _row(key, place, pair, captions, texts.get(key))
            for key, (place, pair) in places.items()
        ]
        return self.table().rows(**{name: [row[name] for row in made] for name in made[0]})

    def _captions(self, pairs: Sequence[Pair]) -> dict[str, str]:
        """The one caption of every image that has one."""
        ids = sorted({image for pair in pairs for image in (pair.reference, pair.target)})
        return {image: texts[0] for image, texts in captions_of(self.captions, ids).items()}


def _row(
    key: str, place: int, pair: Pair, captions: Mapping[str, str], written: WrittenText | None
) -> dict[str, Any]:
    """One row of the table; without a written text an image had no caption."""
    if written is None:
        absent = [i for i in (pair.reference, pair.target) if i not in captions]
        reason = f"no caption: {' and '.join(absent)}"
        written = WrittenText(key, "", MISSING_INPUT, reason, "", 0)
    return {
        "triplet_id": key,
        "position": place,
        "reference": pair.reference,
        "target": pair.target,
        "source": pair.source,
        "meta_class": pair.meta_class,
        "reference_caption": captions.get(pair.reference),
        "target_caption": captions.get(pair.target),
        "text": written.text if written.status == OK else None,
        "attempts": written.attempts,
        "raw": written.raw,
        "status": written.status,
        "reason": written.reason,
    }
