"""Questions drawn from the modification texts of a benchmark's queries, one row for each text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar, Final

import pyarrow as pa

from models.generators.questioning import (
    PLACEHOLDERS,
    QuestionAsking,
    Questions,
    read_questions,
    to_request,
)
from models.prompts.library import Prompt, load_prompt
from models.protocols import TextGenerator, TextReply, require_engine
from models.verifiers.questions import RULE_VERSION, changes_of
from storage.tables.keys import content_key
from storage.tables.schemas import OK
from tasks.engines import generator_fingerprint, load_generator
from tasks.query_sets import BenchmarkRef, load_query_set
from tasks.settings import GeneratorSettings
from tasks.stages.stage import Stage, Tick
from tasks.stages.streams import StreamedGenerator
from tasks.verify_settings import QuestionSettings

TEXT: Final = ("text",)
"""Placeholder of the prompts of single questions."""


class QuestionStage(Stage):
    """Questions about each text of a benchmark, by the text generator or by rule."""

    table_name: ClassVar[str] = "questions"
    producer: ClassVar[str] = "cirflow/questions/1"
    streams: ClassVar[bool] = True

    benchmark: BenchmarkRef
    settings: QuestionSettings
    generator: GeneratorSettings | None
    """None: by rule."""

    @property
    def title(self) -> str:
        """A few words for progress lines."""
        return f"questions about the texts of {self.benchmark.collection_name}"

    def identity(self) -> dict[str, Any]:
        """Generator and prompt, or the rule and its prompt; then the prompt of the last one."""
        return questions_identity(self.settings, self.generator)

    def planned(self) -> list[str]:
        """Content keys of the texts."""
        return sorted(self._texts)

    @cached_property
    def _texts(self) -> dict[str, str]:
        items = load_query_set(self.root, self.benchmark).items.values()
        return {text_key(item.texts[0]): item.texts[0] for item in items}

    def rows(self, members: Sequence[str], tick: Tick) -> pa.Table:
        """Draw the members' questions.

        Raises:
            EngineUnavailable: the server cannot be used, or gave up before any answer.
        """
        generator = self.generator
        loaded = StreamedGenerator(lambda: load_generator(generator)) if generator else None
        texts = {key: self._texts[key] for key in members}
        found = questions_of(texts, self.settings, generator, loaded, tick)
        made = [found[key] for key in members]
        return self.table().rows(
            text_key=list(members),
            text=list(texts.values()),
            questions=[list(own.texts) if own.status == OK else None for own, _ in made],
            raw=[reply.text for _, reply in made],
            finish_reason=[reply.finish_reason for _, reply in made],
            attempts=[reply.attempts for _, reply in made],
            answered_by=[reply.answered_by for _, reply in made],
            status=[own.status for own, _ in made],
            reason=[own.reason for own, _ in made],
        )

    def read(self) -> dict[str, Questions]:
        """Text -> its questions, or why there are none."""
        columns = ["text", "questions", "status", "reason"]
        rows = self.table().read(columns, self.planned()).iter_rows()
        return {
            text: Questions(tuple(found or ()), status, reason)
            for _, text, found, status, reason in rows
        }


def text_key(text: str) -> str:
    """Content key of a modification text."""
    return content_key({"text": text})


def questions_identity(
    settings: QuestionSettings, generator: GeneratorSettings | None
) -> dict[str, Any]:
    """Everything that changes the questions about a text."""
    said: dict[str, Any] = {"kept": dict(_kept(settings).fingerprint)} if settings.kept else {}
    if generator is None:
        rule = load_prompt(settings.rule, TEXT)
        return {"rule": RULE_VERSION, "prompt": dict(rule.fingerprint), **said}
    return {
        "generator": dict(generator_fingerprint(generator)),
        "prompt": dict(load_prompt(settings.prompt, PLACEHOLDERS).fingerprint),
        "settings": dict(_asking(settings, generator).fingerprint),
        **said,
    }


def questions_of(
    texts: Mapping[str, str],
    settings: QuestionSettings,
    generator: GeneratorSettings | None,
    loaded: TextGenerator | None,
    tick: Tick,
) -> dict[str, tuple[Questions, TextReply]]:
    """The questions about some texts, by key, each with the reply that they were read from.

    Args:
        texts: The texts by key.
        settings: How they are drawn.
        generator: Settings of the text generator; None: by rule.
        loaded: The text generator.
        tick: Called with each text that is done.

    Raises:
        EngineUnavailable: the text generator cannot be used at all.
    """
    last = _kept(settings) if settings.kept else None
    found = dict(_drawn(texts, settings, generator, loaded, tick))
    require_engine(reply for _, reply in found.values())
    return {key: (_with_last(own, texts[key], last), reply) for key, (own, reply) in found.items()}


def _drawn(
    texts: Mapping[str, str],
    settings: QuestionSettings,
    generator: GeneratorSettings | None,
    loaded: TextGenerator | None,
    tick: Tick,
) -> Iterable[tuple[str, tuple[Questions, TextReply]]]:
    if generator is None or loaded is None:
        rule = load_prompt(settings.rule, TEXT)
        for key, text in texts.items():
            tick(1)
            changes = tuple(rule.render(text=change) for change in changes_of(text))
            none = Questions((), "rejected", "the text names no change")
            yield key, (Questions(changes) if changes else none, TextReply(key, "", attempts=0))
        return
    prompt, asking = load_prompt(settings.prompt, PLACEHOLDERS), _asking(settings, generator)
    requests = [to_request(key, text, prompt, asking) for key, text in texts.items()]
    for reply in loaded.generate(requests) if requests else ():
        tick(1)
        yield reply.key, (read_questions(reply, asking), reply)


def _with_last(own: Questions, text: str, last: Prompt | None) -> Questions:
    if last is None or own.status != OK:
        return own
    return Questions((*own.texts, last.render(text=" ".join(text.split()))))


def _kept(settings: QuestionSettings) -> Prompt:
    return load_prompt(settings.kept, TEXT)


def _asking(settings: QuestionSettings, generator: GeneratorSettings) -> QuestionAsking:
    return QuestionAsking(most=settings.most, max_new_tokens=generator.max_new_tokens)
