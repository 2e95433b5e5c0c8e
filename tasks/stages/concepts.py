"""Concepts of a vocabulary: their vectors under a backbone, and phrases in which they occur.

Rows are keyed by concept, so that a vocabulary that grows is a backfill.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import pyarrow as pa

from models.encoders.spec import EncoderSpec
from models.prompts.library import load_prompt
from models.protocols import TextReply, require_engine
from models.textual_inversion.concepts import read_concepts, read_phrases
from models.textual_inversion.phrases import (
    PLACEHOLDERS,
    PhraseSettings,
    concept_of,
    failure,
    phrase_requests,
    phrases_in,
)
from models.textual_inversion.templates import TEMPLATES, filled
from storage.tables.keys import content_key
from storage.tables.schemas import OK
from tasks.engines import (
    encoder_dim,
    encoder_fingerprint,
    generator_fingerprint,
    load_encoder,
    load_generator,
)
from tasks.settings import GeneratorSettings
from tasks.stages.stage import Stage, Tick
from tasks.stages.streams import StreamedGenerator


class ConceptVectorStage(Stage):
    """Unit vectors of concepts: the mean over the sentence templates."""

    table_name: ClassVar[str] = "concept_features"
    producer: ClassVar[str] = "cirflow/concept_features/1"

    concepts: str
    """File of the vocabulary."""
    encoder: EncoderSpec

    @property
    def title(self) -> str:
        """A few words for progress lines."""
        return "vectors of concepts"

    def identity(self) -> dict[str, Any]:
        """Encoder and templates."""
        return {
            "encoder": dict(encoder_fingerprint(self.encoder)),
            "templates": content_key([filled(template, "$") for template in TEMPLATES]),
            "dim": encoder_dim(self.encoder),
            "dtype": "float32",
        }

    def planned(self) -> list[str]:
        """The names of the vocabulary."""
        return sorted(read_concepts(self.concepts))

    def rows(self, members: Sequence[str], tick: Tick) -> pa.Table:
        """Encode the members in all templates."""
        from models.textual_inversion.nearest import concept_vectors

        vectors = concept_vectors(load_encoder(self.encoder), members)
        tick(len(members))
        return self.table().rows(concept=list(members), vector=vectors)


class ConceptPhraseStage(Stage):
    """Phrases about concepts, asked of a text generator."""

    table_name: ClassVar[str] = "concept_phrases"
    producer: ClassVar[str] = "cirflow/concept_phrases/1"
    streams: ClassVar[bool] = True

    concepts: str
    """File of the vocabulary."""
    generator: GeneratorSettings
    writing: PhraseSettings = PhraseSettings()

    @property
    def title(self) -> str:
        """A few words for progress lines."""
        return "phrases about concepts"

    def identity(self) -> dict[str, Any]:
        """Generator, prompt and sampling."""
        return {
            "generator": dict(generator_fingerprint(self.generator)),
            "prompt": dict(load_prompt(self.writing.prompt, PLACEHOLDERS).fingerprint),
            "settings": self.writing.model_dump(exclude={"prompt"}) | {"seed": self.generator.seed},
        }

    def planned(self) -> list[str]:
        """The names of the vocabulary."""
        return sorted(read_concepts(self.concepts))

    def rows(self, members: Sequence[str], tick: Tick) -> pa.Table:
        """Ask about the members; a concept without a phrase is a row that says so."""
        prompt = load_prompt(self.writing.prompt, PLACEHOLDERS)
        replies: dict[str, dict[str, TextReply]] = {member: {} for member in members}
        requests = [
            request
            for member in members
            for request in phrase_requests(member, prompt, self.writing, self.generator.seed)
        ]
        for reply in StreamedGenerator(lambda: load_generator(self.generator)).generate(requests):
            own = replies[concept_of(reply.key)]
            own[reply.key] = reply
            if len(own) == self.writing.count:
                tick(1)
        require_engine(reply for own in replies.values() for reply in own.values())
        # Replies come in any order; phrases keep that of the requests.
        ordered = {
            member: sorted(own.values(), key=lambda reply: int(reply.key.rpartition("\n")[2]))
            for member, own in replies.items()
        }
        raw = {member: [reply.text for reply in own] for member, own in ordered.items()}
        phrases = {member: phrases_in(member, raw[member]) for member in members}
        faults = {
            member: (OK, "") if phrases[member] else failure(ordered[member]) for member in members
        }
        return self.table().rows(
            concept=list(members),
            phrases=[list(phrases[member]) or None for member in members],
            raw=[raw[member] for member in members],
            status=[faults[member][0] for member in members],
            reason=[faults[member][1] for member in members],
        )

    def found(self) -> dict[str, tuple[str, ...]]:
        """Phrases of the vocabulary's concepts, of those that have some."""
        rows = self.existing_table().read(["phrases", "status"], self.planned())
        return {name: tuple(own) for name, own, status in rows.iter_rows() if status == OK}


Phrases = Mapping[str, tuple[str, ...]]


def known_phrases(file: str, written: ConceptPhraseStage | None) -> Phrases:
    """Phrases by concept: the text generator's, or those of a file."""
    return written.found() if written else read_phrases(file)


def words_identity(
    vectors: ConceptVectorStage, file: str, written: ConceptPhraseStage | None
) -> dict[str, Any]:
    """The part of an identity that names a vocabulary and its phrases."""
    phrases: dict[str, Any] = {"written": written.spec_key} if written else {}
    if not written:
        phrases = {"sha256": content_key({k: list(v) for k, v in read_phrases(file).items()})}
    concepts = {"vectors": vectors.spec_key, "names": content_key(vectors.planned())}
    return {"concepts": concepts, "phrases": phrases}


def usable_concepts(vectors: ConceptVectorStage, phrases: Phrases) -> list[str]:
    """The concepts of the vocabulary that have a phrase, sorted, as identities name them.

    Raises:
        ValueError: There is none.
    """
    names = [name for name in vectors.planned() if phrases.get(name)]
    if not names:
        raise ValueError(
            f"none of the concepts of {vectors.concepts} has a phrase that names it; give phrases "
            "of them (inversion.phrases), or set inversion.oti.phrase_weight=0"
        )
    return names
