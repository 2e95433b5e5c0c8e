"""Verifications by questions: each question about a query's text, asked of each candidate.

A row is a pair with the question in the place of the text, so that queries of one reference share
what they both ask.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

from models.verifiers.questions import combined
from tasks.stages.questions import QuestionStage
from tasks.stages.rankings import RankingStage
from tasks.stages.stage import Filled
from tasks.stages.verdicts import PairVerdicts, Verdict
from tasks.stages.verifications import Pair, VerificationStage, pairs_of


class QuestionedStage(VerificationStage):
    """A verifier's answers to questions about the best images of every query."""

    asked: QuestionStage

    @property
    def title(self) -> str:
        """A few words for progress lines."""
        return f"answers about the top {self.count} of {self.first.title}"

    @property
    def said(self) -> dict[str, Any]:
        """The mode, the questions, and how their answers become one."""
        score = self.asked.settings.score
        return {"mode": "questions", "score": score, "questions": self.asked.spec_key}

    @property
    def calls_of_a_query(self) -> float:
        """Questions to the verifier that a query needs, on average."""
        whole = super().pairs()
        found = self.asked.read()
        asked = sum(len(found[pair.text].texts) for pair in whole.values())
        return asked / max(1, len({pair.query for pair in whole.values()}))

    def pairs(self) -> Mapping[str, Pair]:
        """Every question about every pair, by key."""
        return _pairs(Filled.by(self.asked), Filled.by(self.first), self.count)

    def read(self) -> PairVerdicts:
        """The verdicts of all pairs; one without an answer to each of its questions has none."""
        answers = self._rows_of(self.pairs())
        questions = self.asked.read()
        found: dict[tuple[str, str, str], Verdict] = {}
        for pair in super().pairs().values():
            own = questions[pair.text]
            if not own.texts:
                verdict: Verdict = None, f"no questions: {own.status}: {own.reason}"
            else:
                verdict = self._combined([answers[key] for key in _asked(pair, own.texts)])
            found[*pair.query, pair.candidate] = verdict
        return PairVerdicts(found)

    def _combined(self, answers: list[Verdict]) -> Verdict:
        margins = [margin for margin, _ in answers if margin is not None]
        if len(margins) < len(answers):
            return None, next(reason for margin, reason in answers if margin is None)
        return combined(margins, self.asked.settings.score), ""


def _asked(pair: Pair, questions: tuple[str, ...]) -> dict[str, Pair]:
    """A pair's questions, by key."""
    made = (Pair(pair.reference, question, pair.candidate) for question in questions)
    return {each.key: each for each in made}


@functools.lru_cache(maxsize=4)
def _pairs(
    drawn: Filled[QuestionStage], ranked: Filled[RankingStage], count: int
) -> Mapping[str, Pair]:
    found = drawn.stage.read()
    return {
        key: each
        for pair in pairs_of(ranked, count).values()
        for key, each in _asked(pair, found[pair.text].texts).items()
    }
