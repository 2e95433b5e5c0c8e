"""Verifications: what a verifier says of a query and a candidate, one row for each such pair.

Candidates are the first K images of a ranking and the members of the query's group. A row is keyed
by reference image, text and candidate, whatever ranked them: another first stage, another K and
another benchmark make the pairs that are new, and no others.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Final

import pyarrow as pa

from models.protocols import require_engine
from models.verifiers.protocol import RANKED, Verification, VerificationRequest
from models.verifiers.settings import VerifierSettings
from storage.collections.decoding import ImageProblem
from storage.tables.keys import content_key
from tasks.engines import load_verifier, verifier_fingerprint
from tasks.query_sets import load_query_set
from tasks.settings import PictureSettings
from tasks.stages.candidates import lists_of
from tasks.stages.looks import LookStage, shown_to
from tasks.stages.query_features import Tables, answers_of
from tasks.stages.rankings import RankingStage, query_items
from tasks.stages.rewrites import RewriteStage
from tasks.stages.stage import Filled, Tick
from tasks.stages.streams import ask
from tasks.stages.verdicts import PairVerdicts, Verdict

if TYPE_CHECKING:
    from storage.tables.key_columns import KeyColumn


EMPTY: Final[Mapping[tuple[str, str], str]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Pair:
    """A query and a candidate by content."""

    reference: str
    text: str
    candidate: str

    @property
    def query(self) -> tuple[str, str]:
        """Reference image and text."""
        return self.reference, self.text

    @property
    def key(self) -> str:
        """Content key of all three."""
        return content_key(
            {"reference": self.reference, "text": self.text, "candidate": self.candidate}
        )


class VerificationStage(LookStage):
    """A verifier's verdicts on the best images of every query."""

    table_name: ClassVar[str] = "verifications"
    producer: ClassVar[str] = "cirflow/verifications/1"

    edits: RewriteStage | None = None
    """Edited captions, for a verifier that reads one in place of the reference image."""

    @property
    def title(self) -> str:
        """A few words for progress lines."""
        return f"verifications of the top {self.count} of {self.first.title}"

    def identity(self) -> dict[str, Any]:
        """The verifier and how pictures are read; rankings share the table."""
        return {
            "verifier": dict(verifier_fingerprint(self.verifier)),
            **({"edits": self.edits.spec_key} if self.edits else {}),
            **self.pictures.of_engine(self.verifier).identity,
        }

    def planned(self) -> list[str]:
        """Keys of the pairs of all queries that are ranked."""
        return sorted(self.pairs())

    def read_order(self, keys: KeyColumn) -> Sequence[str]:
        """Pairs of one query together: they share their prompt's beginning."""
        pairs = self.pairs()
        return sorted(keys, key=lambda key: (pairs[key].query, key))

    @property
    def calls_of_a_query(self) -> float:
        """Questions to the verifier that a query needs, on average."""
        pairs = self.pairs()
        return len(pairs) / max(1, len({pair.query for pair in pairs.values()}))

    def pairs(self) -> Mapping[str, Pair]:
        """Every pair of a query that the first stage has ranked, by key."""
        return pairs_of(Filled.by(self.first), self.count)

    def rows(self, members: Sequence[str], tick: Tick) -> pa.Table:
        """Verify the members; a pair with an image that does not decode is a row with its status.

        Raises:
            EngineUnavailable: the verifier cannot be used at all.
        """
        known = self.pairs()
        chosen = {member: known[member] for member in members}
        found = self.verify(chosen, tick)
        require_engine(found.values())
        made = [found[member] for member in members]
        return self.table().rows(
            pair_key=list(members),
            reference=[each.reference for each in chosen.values()],
            text=[each.text for each in chosen.values()],
            candidate=[each.candidate for each in chosen.values()],
            **verdict_columns(made),
        )

    def verify(self, pairs: Mapping[str, Pair], tick: Tick) -> dict[str, Verification]:
        """What the verifier says of some pairs of the collection's images, by key."""
        names = {name for pair in pairs.values() for name in (pair.reference, pair.candidate)}
        data = self.files(names)
        texts = self._target_texts(pairs)
        return verifications_of(self.verifier, self.pictures, pairs, data, tick, texts)

    def _target_texts(self, pairs: Mapping[str, Pair]) -> dict[tuple[str, str], str]:
        """Query -> its edited caption, of those that have one."""
        if self.edits is None:
            return {}
        asked = {pair.query for pair in pairs.values()}
        known = load_query_set(self.root, self.first.benchmark).items.values()
        items = [each for each in known if (each.image_id, each.texts[0]) in asked]
        answers = answers_of(self.edits, items, Tables())
        return {
            (each.image_id, each.texts[0]): answers[each.key][0]
            for each in items
            if answers[each.key]
        }

    def read(self) -> PairVerdicts:
        """The verdicts of all pairs."""
        known = self.pairs()
        return PairVerdicts(
            {
                (*known[key].query, known[key].candidate): own
                for key, own in self._rows_of(known).items()
            }
        )

    def _rows_of(self, keys: Iterable[str]) -> dict[str, Verdict]:
        """The verdicts of some pairs, by key."""
        rows = self.table().read(["margin", "status", "reason"], sorted(keys)).iter_rows()
        return {
            key: (margin, "") if status in RANKED else (None, f"{status}: {reason}")
            for key, margin, status, reason in rows
        }


def verdict_columns(made: Sequence[Verification]) -> dict[str, list[Any]]:
    """The columns of the table that a verifier fills."""
    names = ("margin", "mass", "answer", "attempts", "status", "reason")
    return {name: [getattr(each, name) for each in made] for name in names}


def verifications_of(
    verifier: VerifierSettings,
    pictures: PictureSettings,
    pairs: Mapping[str, Pair],
    data: Mapping[str, bytes],
    tick: Tick,
    target_texts: Mapping[tuple[str, str], str] = EMPTY,
) -> dict[str, Verification]:
    """What a verifier says of some pairs, by key.

    Args:
        verifier: The verifier.
        pictures: How files become pictures; each file is decoded once.
        pairs: The pairs by key; those of one query are asked one after the other.
        data: Image id -> file.
        tick: Called with each pair that is done.
        target_texts: Query -> caption of the image that it asks for, for verifiers that read one.

    Raises:
        EngineUnavailable: the verifier cannot be used at all.
    """
    shown, problems = shown_to(verifier, pictures, data)
    found = {
        key: failed(key, problem)
        for key, pair in pairs.items()
        if (problem := problems.get(pair.reference) or problems.get(pair.candidate))
    }
    tick(len(found))
    whole = [(key, pair) for key, pair in pairs.items() if key not in found]
    whole.sort(key=lambda each: each[1].query)
    asked = (
        VerificationRequest(
            key=key,
            reference_id=pair.reference,
            reference=shown[pair.reference],
            text=pair.text,
            candidate_id=pair.candidate,
            candidate=shown[pair.candidate],
            target_text=target_texts.get(pair.query, ""),
        )
        for key, pair in whole
    )
    if whole:
        for made in ask(lambda taken: load_verifier(verifier).verify(taken), asked, _key):
            found[made.key] = made
            tick(1)
    return found


def _key(request: VerificationRequest) -> str:
    return request.key


def failed(key: str, problem: ImageProblem) -> Verification:
    """The row of a pair one of whose images does not decode."""
    return Verification(key, None, None, "", problem.status, problem.reason, 0)


@functools.lru_cache(maxsize=4)
def pairs_of(ranked: Filled[RankingStage], count: int) -> Mapping[str, Pair]:
    """Every pair of a query that a ranking holds, by key."""
    stage = ranked.stage
    query_set = load_query_set(stage.root, stage.benchmark)
    items = query_items(query_set)
    ids = query_set.image_ids
    pairs = (
        Pair(items[key].image_id, items[key].texts[0], ids[name])
        for key, (best, group) in lists_of(stage, count).items()
        for name in dict.fromkeys((*best, *group))
    )
    return {pair.key: pair for pair in pairs}
