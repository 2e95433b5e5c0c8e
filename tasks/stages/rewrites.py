"""Edited captions and added objects (CVSI, equations 6 and 7), asked of a text generator.

A request is a caption and a modification text; equal requests are asked once, whichever query
and image they come from. A failed request is a row with a status, never a substitute.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, ClassVar, Literal

import pyarrow as pa

from models.generators.answer_reader import PARSE_VERSION
from models.generators.answers import EMPTY_ANSWER
from models.generators.repetition import Answered
from models.generators.rewriting import (
    NOTHING,
    Answer,
    RewriteInput,
    RewriteSettings,
    edit_inputs,
    objects_input,
    read_reply,
    to_request,
)
from models.imported_texts import ImportedRewrites
from models.prompts.library import Prompt, load_prompt
from models.protocols import TextReply, require_engine
from storage.tables.keys import content_key
from storage.tables.plans import DerivedKeys, Keys
from storage.tables.schemas import OK
from storage.tables.table import Table
from tasks.engines import generator_fingerprint, load_generator
from tasks.imported_texts import answers_imported, is_single, place_of
from tasks.query_sets import Queries, QueryItem
from tasks.settings import GeneratorSettings
from tasks.stages.caption_features import captions_of
from tasks.stages.captions import CaptionStage
from tasks.stages.earlier import earlier_rows, earlier_tables
from tasks.stages.stage import Stage, Tick
from tasks.stages.streams import StreamedGenerator
from tasks.stages.variety import EARLY, check_early, check_shard


class RewriteStage(Stage):
    """Answers to one prompt for the queries of a benchmark."""

    table_name: ClassVar[str] = "rewrites"
    producer: ClassVar[str] = f"cirflow/rewrites/{PARSE_VERSION}"
    streams: ClassVar[bool] = True

    step: Literal["edit", "objects"]
    queries: Queries
    captions: CaptionStage
    """Captions of the reference images."""
    content: Literal["per_caption", "joined", "first"]
    """Captions that the model is asked about: D1 for edits, D2 for objects."""
    all_orders: bool = False
    """Ask for every reading of the text (D7)."""
    prompt: str
    generator: GeneratorSettings
    temperature: float = 0.0
    parsing: Literal["strict", "verbatim"] = "strict"

    @property
    def title(self) -> str:
        """A few words for progress lines."""
        what = {"edit": "edited captions", "objects": "added objects"}[self.step]
        which = " (single caption)" if self.step == "edit" and self.content == "first" else ""
        return f"{what} of {self.queries.collection_name}{which}"

    @cached_property
    def rewriting(self) -> RewriteSettings:
        """How requests are put and replies are read."""
        return RewriteSettings(
            max_new_tokens=self.generator.max_new_tokens,
            temperature=self.temperature,
            seed=self.generator.seed,
            parsing=self.parsing,
        )

    def identity(self) -> dict[str, Any]:
        """Generator, prompt, sampling and reading of the answers; imported ones name no prompt."""
        if self.imported:
            return {
                "generator": dict(generator_fingerprint(self.generator)),
                "step": self.step,
                "settings": {"parsing": self.parsing, "max_words": self.rewriting.max_words},
            }
        return {
            "generator": dict(generator_fingerprint(self.generator)),
            "prompt": dict(self._template.fingerprint),
            "step": self.step,
            "settings": dict(self.rewriting.fingerprint),
        }

    @property
    def imported(self) -> bool:
        """Whether the answers are imported, and no model is asked."""
        return isinstance(self.generator, ImportedRewrites)

    @cached_property
    def _template(self) -> Prompt:
        """The prompt, read once: all rows of a run are asked in the words that the spec names."""
        return load_prompt(self.prompt)

    @cached_property
    def _known(self) -> dict[str, RewriteInput]:
        """Requests worked out so far, by key. A key says its request whole: none grows old."""
        return {}

    @property
    def has_earlier(self) -> bool:
        """Whether an earlier version filled a table for the same requests."""
        return bool(self._earlier)

    @cached_property
    def _earlier(self) -> list[Table]:
        return earlier_tables(self)

    def planned(self) -> list[str]:
        """Content keys of the requests."""
        found = self.requests()
        self._known.update(found)
        return sorted(found)

    def inputs_of(self, members: Sequence[str]) -> dict[str, RewriteInput]:
        """The requests of some planned keys; all are worked out once, not once a shard."""
        if not self._known.keys() >= set(members):
            self._known.update(self.requests())
        return {key: self._known[key] for key in members}

    def planned_keys(self) -> Keys:
        """Derived keys: queries, captions and how both are combined decide the requests."""
        asked = {
            "queries": sorted(self.queries.items(self.root)),
            "captions": self.captions.table().state(),
            "content": [self.content, self.all_orders],
        }
        return DerivedKeys(content_key(asked), self.planned)

    def requests(self) -> dict[str, RewriteInput]:
        """Every distinct request of the benchmark's queries, by key."""
        items = self.queries.items(self.root).values()
        captions = captions_of(self.captions, sorted({self.captions.key_of(i) for i in items}))
        return {
            request.key: request
            for item in items
            for request in self.requests_of(item, captions.get(self.captions.key_of(item), []))
        }

    def requests_of(self, item: QueryItem, captions: Sequence[str]) -> list[RewriteInput]:
        """The requests of one query in the order of its captions; none without captions."""
        requests = self._requests_of(item, captions) if captions else []
        if not self.imported:
            return requests
        what = "objects" if self.step == "objects" else self.content
        single = is_single(self.captions.sampling)
        return [
            replace(request, place=place_of(item, what, number, single))
            for number, request in enumerate(requests)
        ]

    def _requests_of(self, item: QueryItem, captions: Sequence[str]) -> list[RewriteInput]:
        readings = item.texts if self.all_orders else item.texts[:1]
        if self.step == "objects":
            mode: Literal["joined", "first"] = "joined" if self.content == "joined" else "first"
            return [objects_input(captions, text, mode) for text in readings]
        if self.content == "joined":
            return [r for text in readings for r in edit_inputs(captions, text, "joined")]
        chosen = captions[:1] if self.content == "first" else captions
        return [request for text in readings for request in edit_inputs(chosen, text)]

    def ask(self, inputs: Sequence[RewriteInput], tick: Tick) -> dict[str, TextReply]:
        """The generator's raw replies to some distinct requests, by request key.

        Raises:
            EngineUnavailable: the server cannot be used, or gave up before any answer.
            RepeatedAnswer: the model says one thing to all questions, or repeats them.
        """
        if isinstance(self.generator, ImportedRewrites):
            tick(len(inputs))
            return answers_imported(self.root, self.generator.texts, inputs)
        known = {each.key: each for each in inputs}
        requests = [to_request(each, self._template, self.rewriting) for each in inputs]
        replies: dict[str, TextReply] = {}
        for reply in (
            StreamedGenerator(lambda: load_generator(self.generator)).generate(requests)
            if requests
            else ()
        ):
            replies[reply.key] = reply
            tick(1)
            if len(replies) == EARLY:
                early = {key: self.read(each) for key, each in replies.items()}
                check_early(self._answered(known, early), may_copy=self.step == "objects")
        require_engine(replies.values())
        return replies

    def read(self, reply: TextReply) -> Answer:
        """The answer in a raw reply, or why it has none."""
        template = "" if self.imported else self._template.template
        return read_reply(reply, self.step, self.rewriting, template)

    def rows(self, members: Sequence[str], tick: Tick) -> pa.Table:
        """Read the members' stored replies again, and put the other requests to the generator."""
        inputs = self.inputs_of(members)
        replies = self._stored(members)
        tick(len(replies))
        replies |= self.ask([inputs[key] for key in members if key not in replies], tick)
        answers = {key: self.read(replies[key]) for key in members}
        if not self.imported:
            check_shard(
                self._answered(inputs, answers),
                self.table(),
                ("caption", "text", "answer"),
                lambda caption, text: self._template.render(caption=caption, text=text),
                may_copy=self.step == "objects",
                nothing=NOTHING,
            )
        return self.table().rows(
            request_key=list(members),
            caption=[inputs[key].content for key in members],
            text=[inputs[key].text for key in members],
            answer=[each.text if each.status == OK else None for each in answers.values()],
            raw=[replies[key].text for key in members],
            finish_reason=[replies[key].finish_reason for key in members],
            attempts=[replies[key].attempts for key in members],
            answered_by=[replies[key].answered_by for key in members],
            status=[each.status for each in answers.values()],
            reason=[each.reason for each in answers.values()],
        )

    def _stored(self, members: Sequence[str]) -> dict[str, TextReply]:
        """Replies that earlier versions got, to be read by the present reader."""
        rows = earlier_rows(
            self, members, ["raw", "finish_reason", "attempts"], lambda: self._earlier
        )
        return {key: _stored_reply(key, row) for key, row in rows.items()}

    def _answered(
        self, inputs: Mapping[str, RewriteInput], answers: Mapping[str, Answer]
    ) -> list[Answered]:
        """Some answers with their questions; none where nothing is added."""
        answered = []
        for key, answer in answers.items():
            if answer.status == OK and answer.text != NOTHING:
                item = inputs[key]
                request = to_request(item, self._template, self.rewriting)
                answered.append(Answered((item.content, item.text), request.prompt, answer.text))
        return answered


def _stored_reply(key: str, row: Mapping[str, Any]) -> TextReply:
    """A reply as an earlier version stored it; one without a text says why it has none."""
    raw, status, reason = row["raw"] or "", row["status"], row["reason"]
    if not raw and status == OK:  # read as "nothing is added" once
        status, reason = "rejected", EMPTY_ANSWER
    end, attempts = row["finish_reason"] or "", row["attempts"] or 0
    if raw:
        return TextReply(key, raw, "ok", "", end, attempts)
    return TextReply(key, "", status, reason, end, attempts)
