"""Triplets: a modification text for every pair of a sample (InstructCIR, section III)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar, Generic, TypeVar

import pyarrow as pa

from models.generators.answer_reader import PARSE_VERSION
from models.generators.repetition import Answered
from models.instructcir.modification_texts import (
    CUT_OFF,
    PLACEHOLDERS,
    CaptionPair,
    WritingSettings,
    WrittenText,
    judge,
    to_request,
    write_texts,
)
from models.instructcir.pairs import Pair
from models.prompts.library import Prompt, load_prompt
from models.protocols import TextReply
from storage.tables.schemas import OK
from storage.tables.table import Table
from tasks.engines import generator_fingerprint, load_generator
from tasks.settings import GeneratorSettings
from tasks.stages.caption_features import captions_of
from tasks.stages.captions import CaptionStage
from tasks.stages.earlier import earlier_rows, earlier_tables
from tasks.stages.pair_samples import PairSample
from tasks.stages.query_pairs import QueryPairs
from tasks.stages.stage import Stage, Tick
from tasks.stages.streams import StreamedGenerator
from tasks.stages.variety import check_shard

MISSING_INPUT = "missing_input"
"""Status of a pair of which an image has no caption."""

Pairs = TypeVar("Pairs", bound=PairSample | QueryPairs)


class TextStage(Stage, Generic[Pairs]):
    """Modification texts of some pairs of images.

    The table holds all pairs of one rule, whatever their number: asking for more pairs adds rows
    to the table of fewer.
    """

    table_name: ClassVar[str] = "triplets"
    producer: ClassVar[str] = f"cirflow/triplets/{PARSE_VERSION}"
    streams: ClassVar[bool] = True

    pairs: Pairs
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
        return f"modification texts of {self.pairs.title}"

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
            "prompt": dict(self._template.fingerprint),
            "settings": dict(self.writing.fingerprint),
        }

    @cached_property
    def _template(self) -> Prompt:
        """The prompt, read once: all rows of a run are asked in the words that the spec names."""
        return load_prompt(self.prompt, PLACEHOLDERS)

    @property
    def has_earlier(self) -> bool:
        """Whether an earlier version filled a table for the same requests."""
        return bool(self._earlier)

    @cached_property
    def _earlier(self) -> list[Table]:
        return earlier_tables(self, checked=("captions",))

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
        texts = self._stored(ready)
        ready = [pair for pair in ready if pair.key not in texts]
        tick(len(members) - len(ready))
        if ready:
            generator = StreamedGenerator(lambda: load_generator(self.generator))
            texts |= write_texts(generator, self._template, ready, self.writing, tick)
        self._check(texts, pairs, captions)
        made = [
            _row(key, place, pair, captions, texts.get(key))
            for key, (place, pair) in places.items()
        ]
        return self.table().rows(**{name: [row[name] for row in made] for name in made[0]})

    def _stored(self, pairs: Sequence[CaptionPair]) -> dict[str, WrittenText]:
        """Texts of earlier versions for the same captions, read from their last replies again."""
        columns = ["raw", "attempts", "reference_caption", "target_caption"]
        rows = earlier_rows(self, [pair.key for pair in pairs], columns, lambda: self._earlier)
        template = self._template.template
        return {
            pair.key: _stored_text(pair.key, rows[pair.key], template)
            for pair in pairs
            if pair.key in rows
            and rows[pair.key]["reference_caption"] == pair.reference_caption
            and rows[pair.key]["target_caption"] == pair.target_caption
        }

    def _check(
        self,
        texts: Mapping[str, WrittenText],
        pairs: Mapping[str, Pair],
        captions: Mapping[str, str],
    ) -> None:
        """Refuse texts that do not depend on their captions."""

        def render(before: str, after: str) -> str:
            return to_request(
                CaptionPair("", before, after), self._template, self.writing, 1
            ).prompt

        parts = {
            key: (captions[pairs[key].reference], captions[pairs[key].target])
            for key, written in texts.items()
            if written.status == OK
        }
        check_shard(
            [Answered(own, render(*own), texts[key].text) for key, own in parts.items()],
            self.table(),
            ("reference_caption", "target_caption", "text"),
            render,
        )

    def _captions(self, pairs: Sequence[Pair]) -> dict[str, str]:
        """The one caption of every image that has one."""
        ids = sorted({image for pair in pairs for image in (pair.reference, pair.target)})
        return {image: texts[0] for image, texts in captions_of(self.captions, ids).items()}


class TripletStage(TextStage[PairSample]):
    """Triplets: the texts of a sample of pairs."""

    @property
    def title(self) -> str:
        """A few words for progress lines."""
        return f"triplets from {self.pairs.title}"


class QueryTextStage(TextStage[QueryPairs]):
    """Texts that replace those of a benchmark's queries."""


def _stored_text(key: str, row: Mapping[str, Any], template: str) -> WrittenText:
    """A text as the present reader finds it in a stored reply, which lacks its finish reason."""
    raw, attempts = row["raw"] or "", row["attempts"] or 0
    if raw and row["reason"] != CUT_OFF:
        return judge(TextReply(key, raw), attempts, template)
    return WrittenText(key, "", row["status"], row["reason"], raw, attempts)


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
        "answered_by": written.answered_by,
        "status": written.status,
        "reason": written.reason,
    }
