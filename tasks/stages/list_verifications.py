"""Choices of a verifier among the candidates of a query in one picture, one row for each list.

A query's lists are its first K images and the members of its group. A row is keyed by reference
image, text, and the candidates in their order: another K, or another first stage that ranks other
images, asks about the lists that are new, and no others.
"""

from __future__ import annotations

import functools
import importlib.metadata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from statistics import fmean
from typing import TYPE_CHECKING, Any, ClassVar

import pyarrow as pa

from models.protocols import require_engine
from models.verifiers import grid
from models.verifiers.protocol import RANKED, Choice, GridRequest, GridVerifier
from models.verifiers.settings import VerifierSettings
from storage.tables.keys import content_key
from tasks.engines import load_verifier, verifier_fingerprint
from tasks.query_sets import load_query_set
from tasks.settings import PictureSettings
from tasks.stages.candidates import lists_of
from tasks.stages.looks import LookStage, shown_to
from tasks.stages.rankings import RankingStage, query_items
from tasks.stages.stage import Filled, Tick
from tasks.stages.streams import ask
from tasks.stages.verdicts import ListVerdicts, Verdict
from tasks.verify_settings import ListwiseSettings

if TYPE_CHECKING:
    from storage.tables.key_columns import KeyColumn


@dataclass(frozen=True, slots=True)
class CandidateList:
    """A query and candidates in the order in which they are drawn, by content."""

    reference: str
    text: str
    candidates: tuple[str, ...]

    @property
    def key(self) -> str:
        """Content key of all of them."""
        return content_key(
            {
                "reference": self.reference,
                "text": self.text,
                "candidates": list(self.candidates),
            }
        )

    def drawn(self, orders: int) -> tuple[CandidateList, ...]:
        """The list in its own order, and in seeded ones behind it."""
        found = [self]
        for number in range(1, orders):
            mixed = list(self.candidates)
            Random(f"{number} {self.key}").shuffle(mixed)
            found.append(CandidateList(self.reference, self.text, tuple(mixed)))
        return tuple(found)


class ListVerificationStage(LookStage):
    """A verifier's choices among the best images of every query."""

    table_name: ClassVar[str] = "list_verifications"
    producer: ClassVar[str] = "cirflow/list_verifications/1"

    settings: ListwiseSettings

    @property
    def title(self) -> str:
        """A few words for progress lines."""
        return f"choices among the top {self.count} of {self.first.title}"

    def identity(self) -> dict[str, Any]:
        """The verifier, and how pictures are read and drawn; rankings share the table."""
        drawn = {
            "version": grid.VERSION,
            "cell": self.settings.cell,
            "answer": self.settings.answer,
            "drawn_by": f"pillow {importlib.metadata.version('pillow')}",
        }
        return {
            "verifier": dict(verifier_fingerprint(self.verifier)),
            "grid": drawn,
            **self.pictures.of_engine(self.verifier).identity,
        }

    @property
    def said(self) -> dict[str, Any]:
        """The mode, and how often a list is drawn."""
        return {"mode": "listwise", "orders": self.settings.orders}

    @property
    def calls_of_a_query(self) -> float:
        """Choices that a query needs, on average."""
        queries = {(own.reference, own.text) for own in self.lists()}
        return len(self.planned()) / max(1, len(queries))

    def lists(self) -> Sequence[CandidateList]:
        """The lists of all queries that are ranked, in the first stage's order."""
        return _lists(Filled.by(self.first), self.count)

    def planned(self) -> list[str]:
        """Keys of all lists, once for each of their orders."""
        return sorted(self._drawn())

    def _drawn(self) -> dict[str, CandidateList]:
        orders = self.settings.orders
        return {each.key: each for own in self.lists() for each in own.drawn(orders)}

    def read_order(self, keys: KeyColumn) -> Sequence[str]:
        """Lists of one query together."""
        known = self._drawn()
        return sorted(keys, key=lambda key: (known[key].reference, known[key].text, key))

    def rows(self, members: Sequence[str], tick: Tick) -> pa.Table:
        """Ask about the members; a list with an image that does not decode has its status.

        Raises:
            EngineUnavailable: the verifier cannot be used at all.
        """
        known = self._drawn()
        chosen = {member: known[member] for member in members}
        data = self.files({n for own in chosen.values() for n in (own.reference, *own.candidates)})
        found = choices_of(self.verifier, self.pictures, chosen, data, tick, self.settings)
        require_engine(found.values())
        made = [found[member] for member in members]
        columns = ("mass", "answer", "attempts", "status", "reason")
        return self.table().rows(
            list_key=list(members),
            reference=[own.reference for own in chosen.values()],
            text=[own.text for own in chosen.values()],
            candidates=[list(own.candidates) for own in chosen.values()],
            margins=[list(each.margins) for each in made],
            **{name: [getattr(each, name) for each in made] for name in columns},
        )

    def read(self) -> ListVerdicts:
        """The verdicts of all lists: each candidate's mean margin over the answered orders."""
        answers, orders = self._answers(), self.settings.orders
        found: dict[tuple[str, str, tuple[str, ...]], Sequence[Verdict]] = {}
        for own in self.lists():
            drawn = [answers[each.key] for each in own.drawn(orders)]
            margins = [margins for margins, _ in drawn if margins]
            found[own.reference, own.text, own.candidates] = [
                (fmean(each[name] for each in margins), "") if margins else (None, drawn[0][1])
                for name in own.candidates
            ]
        return ListVerdicts(found)

    def failures(self) -> dict[str, Any]:
        """Orders that lack candidates, and how often another order brings another first one."""
        rows = self.table().read(["status"], self.planned())["status"].to_list()
        incomplete = rows.count("incomplete")
        said: dict[str, Any] = {"incomplete_lists": incomplete} if incomplete else {}
        if self.settings.orders > 1:
            said["order_flips"] = self._flips()
        return said

    def _flips(self) -> dict[str, int]:
        answers, flipped, number = self._answers(), 0, 0
        for own in self.lists():
            drawn = [answers[each.key][0] for each in own.drawn(self.settings.orders)]
            first = [max(own.candidates, key=each.__getitem__) for each in drawn if each]
            number += len(first) > 1
            flipped += len(set(first)) > 1
        return {"lists": number, "flipped": flipped}

    def _answers(self) -> dict[str, tuple[dict[str, float], str]]:
        """Key -> margin of each candidate; without an answer none, and why."""
        columns = ["candidates", "margins", "status", "reason"]
        rows = self.table().read(columns, self.planned()).iter_rows()
        return {
            key: (dict(zip(names, margins, strict=True)), "")
            if status in RANKED
            else ({}, f"{status}: {reason}")
            for key, names, margins, status, reason in rows
        }


def choices_of(
    verifier: VerifierSettings,
    pictures: PictureSettings,
    lists: Mapping[str, CandidateList],
    data: Mapping[str, bytes],
    tick: Tick,
    settings: ListwiseSettings,
) -> dict[str, Choice]:
    """What a verifier chooses among some lists, by key.

    Args:
        verifier: The verifier.
        pictures: How files become pictures; each file is decoded once.
        lists: The lists by key.
        data: Image id -> file.
        tick: Called with each list that is done.
        settings: How candidates are drawn, and how they are answered about.

    Raises:
        EngineUnavailable: the verifier cannot be used at all.
    """
    shown, problems = shown_to(verifier, pictures, data)
    found: dict[str, Choice] = {}
    for key, own in lists.items():
        broken = [n for n in (own.reference, *own.candidates) if n in problems]
        if broken:
            status, reason = problems[broken[0]].status, problems[broken[0]].reason
            found[key] = Choice(key, (), None, "", status, reason, 0)
    tick(len(found))

    def requests() -> Iterator[GridRequest]:
        for key, own in lists.items():
            if key not in found:
                cells = [shown[name] for name in own.candidates]
                yield GridRequest(
                    key=key,
                    reference=shown[own.reference],
                    text=own.text,
                    grid=grid.draw_grid(cells, settings.cell),
                    marks=grid.marks_of(len(cells)),
                    answer=settings.answer,
                )

    def choose(asked: Iterator[GridRequest]) -> Iterator[Choice]:
        loaded = load_verifier(verifier)
        if not isinstance(loaded, GridVerifier):
            raise ValueError(f"{verifier.title} reads no picture of several candidates")
        return loaded.choose(asked)

    if len(found) < len(lists):
        for made in ask(choose, requests(), lambda request: request.key):
            found[made.key] = made
            tick(1)
    return found


@functools.lru_cache(maxsize=4)
def _lists(ranked: Filled[RankingStage], count: int) -> tuple[CandidateList, ...]:
    stage = ranked.stage
    query_set = load_query_set(stage.root, stage.benchmark)
    items = query_items(query_set)
    ids = query_set.image_ids
    found = (
        CandidateList(
            items[key].image_id,
            items[key].texts[0],
            tuple(dict.fromkeys(ids[name] for name in names)),
        )
        for key, both in lists_of(stage, count).items()
        for names in both
    )
    return tuple(dict.fromkeys(own for own in found if len(own.candidates) > 1))
