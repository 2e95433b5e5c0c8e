"""Settings of METHOD+verify: who looks at candidates, how it is asked, and how verdicts count."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from models.retrieval.verified import Fusing, Rule
from models.settings import Settings
from models.verifiers.blip_itm import BlipItmSettings
from models.verifiers.grid import MOST
from models.verifiers.openai_verifier import OpenAIVerifierSettings
from models.verifiers.prompt import ASKED_PROMPTS, GRID_PROMPTS, VerifierPrompts
from models.verifiers.protocol import ListAnswer, Mode
from models.verifiers.questions import Combination
from models.verifiers.settings import VerifierSettings


class FusingSettings(Settings):
    """How a verifier's verdicts and a first stage's scores become one order."""

    rule: Rule = "minmax"
    """replace: the verdicts alone. sum: score + w P(yes). minmax, z: scores brought to one scale
    first. rrf: ranks alone. veto: candidates with P(yes) below the threshold go behind."""
    weight: float = Field(0.5, ge=0, le=1)
    """w, the verdict's share; `replace` and `veto` have none."""
    threshold: float = Field(0.5, ge=0, le=1)
    """Least P(yes) that `veto` accepts."""

    @property
    def fusing(self) -> Fusing:
        """The rule for computing."""
        return Fusing(self.rule, self.weight, self.threshold)

    @property
    def identity(self) -> dict[str, Any]:
        """The rule with what it reads."""
        reads = {"replace": (), "veto": ("threshold",)}.get(self.rule, ("weight",))
        return {"rule": self.rule, **{name: getattr(self, name) for name in reads}}


class ListwiseSettings(Settings):
    """Candidates in one picture, with the mode `listwise`."""

    answer: ListAnswer = "logits"
    """logits: the marks by the logits of one position. order: an order in text, of a server whose
    model gives no logits."""
    cell: int = Field(224, ge=32)
    """Side of a candidate's square in the picture, in pixels."""
    orders: int = Field(1, ge=1)
    """Drawings of each list: the first stage's order, then seeded ones. A candidate gets its mean
    margin, and the result says how often another order brings another first candidate."""
    prompts: VerifierPrompts = GRID_PROMPTS
    """How a reference and the picture of candidates are put in words."""


class QuestionSettings(Settings):
    """Questions drawn from the modification text, with the mode `questions`."""

    source: Literal["generator", "rule"] = "generator"
    """generator: the text generator writes them. rule: one for each change that the text names."""
    most: int = Field(5, ge=1)
    """Most questions that the text generator may write; more are left out."""
    prompt: str = "verify_questions"
    """Prompt for them, with {text} and {most}."""
    rule: str = "verify_rule"
    """A question about one change, {text}."""
    kept: str = "verify_kept"
    """Prompt of one more question, whether all that {text} does not mention is as it was; empty:
    none."""
    score: Combination = "mean"
    """mean: the mean margin. share: the mean P(yes). product: the product of P(yes)."""
    prompts: VerifierPrompts = ASKED_PROMPTS
    """How a question and its pair are put in words; {text} is the question."""


class VerifySettings(Settings):
    """A verifier that looks at the best images of METHOD+verify."""

    mode: Mode = "pointwise"
    """pointwise: yes or no about each candidate. listwise: all candidates in one picture, one
    answer. questions: yes or no to questions drawn from the text, about each candidate."""
    verifier: VerifierSettings
    candidates: int = Field(25, ge=1)
    """K, images of each ranking that are looked at. Members of a query's group always are."""
    listwise: ListwiseSettings = ListwiseSettings()
    questions: QuestionSettings = QuestionSettings()
    fusing: FusingSettings = FusingSettings()

    @property
    def reads_captions(self) -> bool:
        """Whether it compares a candidate with an edited caption, without the reference image."""
        return isinstance(self.verifier, BlipItmSettings)

    @property
    def writes_questions(self) -> bool:
        """Whether the text generator writes questions for it."""
        return self.mode == "questions" and self.questions.source == "generator"

    @property
    def why_not(self) -> str:
        """Why the verifier cannot answer in this mode, and what to set; empty where it can."""
        if self.mode not in self.verifier.modes:
            other = (
                "set verify.verifier.engine=qwen3-vl"
                if self.reads_captions
                else (
                    "set verify.verifier.model to one that reads any text and several pictures, as "
                    f'that of profile=small, with verify.verifier.modes=["{self.mode}"]'
                )
            )
            return (
                f"verify.mode={self.mode}: {self.verifier.title} answers "
                f"{' and '.join(self.verifier.modes)} alone; set "
                f"verify.mode={self.verifier.modes[0]}, or {other}"
            )
        if self.mode == "listwise" and self.candidates > MOST:
            return (
                f"verify.candidates={self.candidates}: a picture holds at most {MOST} candidates; "
                f"set verify.candidates={MOST} or less, or verify.mode=pointwise"
            )
        if self.mode == "listwise" and self.listwise.answer == "order" and not self._is_served:
            return (
                "verify.listwise.answer=order is asked of a server alone; set it to logits, or "
                "verify.verifier.engine=openai-verifier"
            )
        return ""

    @property
    def asked_verifier(self) -> VerifierSettings:
        """The verifier with the prompts of the mode."""
        prompts = {"listwise": self.listwise.prompts, "questions": self.questions.prompts}
        if self.mode == "pointwise":
            return self.verifier
        return self.verifier.changed(prompts=prompts[self.mode])

    @property
    def _is_served(self) -> bool:
        return isinstance(self.verifier, OpenAIVerifierSettings)
