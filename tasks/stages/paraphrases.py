"""Paraphrases of the modification texts of a benchmark's queries, asked of a text generator."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any, ClassVar

import pyarrow as pa
from pydantic import Field

from models.generators.answer_reader import PARSE_VERSION
from models.generators.paraphrasing import (
    PLACEHOLDERS,
    ParaphraseInput,
    ParaphraseSettings,
    read_paraphrase,
    to_request,
)
from models.prompts.library import Prompt, load_prompt
from models.protocols import require_engine
from storage.tables.schemas import OK
from tasks.engines import generator_fingerprint, load_generator
from tasks.query_sets import BenchmarkRef
from tasks.settings import GeneratorSettings
from tasks.stages.stage import Stage, Tick


class ParaphraseStage(Stage):
    """Some wordings of every modification text of a benchmark.

    The table holds the wordings of all texts that one generator was asked for: more wordings, or
    those of another benchmark, add rows to it.
    """

    table_name: ClassVar[str] = "paraphrases"
    producer: ClassVar[str] = f"cirflow/paraphrases/{PARSE_VERSION}"

    benchmark: BenchmarkRef
    """With its own texts."""
    count: int = Field(ge=1)
    """Wordings of each text."""
    prompt: str
    generator: GeneratorSettings

    @property
    def title(self) -> str:
        """A few words for progress lines."""
        return f"paraphrases of texts of {self.benchmark.collection_name}"

    @cached_property
    def asking(self) -> ParaphraseSettings:
        """How paraphrases are asked for."""
        return ParaphraseSettings(
            max_new_tokens=self.generator.max_new_tokens, seed=self.generator.seed
        )

    def identity(self) -> dict[str, Any]:
        """Generator, prompt and sampling."""
        return {
            "generator": dict(generator_fingerprint(self.generator)),
            "prompt": dict(self._template.fingerprint),
            "settings": dict(self.asking.fingerprint),
        }

    @cached_property
    def _template(self) -> Prompt:
        return load_prompt(self.prompt, PLACEHOLDERS)

    @cached_property
    def _inputs(self) -> dict[str, ParaphraseInput]:
        texts = sorted({query.text for query in self.benchmark.load().queries})
        asked = [ParaphraseInput(n, text) for text in texts for n in range(1, self.count + 1)]
        return {each.key: each for each in asked}

    def planned(self) -> list[str]:
        """Content keys of the wordings."""
        return sorted(self._inputs)

    def rows(self, members: Sequence[str], tick: Tick) -> pa.Table:
        """Put the members to the generator.

        Raises:
            EngineUnavailable: the server cannot be used, or gave up before any answer.
        """
        inputs = [self._inputs[key] for key in members]
        requests = [to_request(each, self._template, self.asking) for each in inputs]
        replies = {}
        for reply in load_generator(self.generator).generate(requests) if requests else ():
            replies[reply.key] = reply
            tick(1)
        require_engine(replies.values())
        answers = [
            read_paraphrase(replies[each.key], each.text, self._template.template)
            for each in inputs
        ]
        raw = [replies[key] for key in members]
        return self.table().rows(
            request_key=list(members),
            number=[each.number for each in inputs],
            text=[each.text for each in inputs],
            answer=[each.text if each.status == OK else None for each in answers],
            raw=[reply.text for reply in raw],
            finish_reason=[reply.finish_reason for reply in raw],
            attempts=[reply.attempts for reply in raw],
            answered_by=[reply.answered_by for reply in raw],
            status=[each.status for each in answers],
            reason=[each.reason for each in answers],
        )
