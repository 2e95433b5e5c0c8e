"""What an OpenAI-compatible server is asked besides the prompt, and how its refusals are told.

Servers differ in which fields they take. One that refuses a field is asked without it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final

from models.plain_text import without_controls

_EFFORTS: Final = ("none", "low", "")
"""Values of `reasoning_effort`, least first; the last sends no such field."""

_FIELD_REFUSED: Final = re.compile(
    r"unrecogni[sz]ed|unknown|unexpected|unsupported|not (?:supported|permitted|allowed)|invalid"
    r"|extra_forbidden|extra (?:inputs|fields)|additional propert|does not support",
    re.IGNORECASE,
)
_QUOTA_CODES: Final = frozenset(
    {
        "insufficient_quota",
        "billing_hard_limit_reached",
        "billing_not_active",
        "insufficient_balance",
        "insufficient_credits",
        "quota_exceeded",
        "account_deactivated",
    }
)
_QUOTA: Final = re.compile(
    r"insufficient[ _](?:quota|balance|credits?|funds)|exceeded your current quota"
    r"|quota (?:is |has been |was )?(?:exhausted|used up|depleted|exceeded)"
    r"|out of (?:quota|credits?)"
    r"|(?:exhausted|exceeded|used up|depleted|no remaining) (?:\w+ ){0,3}(?:quota|credits?|balance)"
    r"|billing (?:hard )?limit|payment required|credit balance|no credits|spending limit",
    re.IGNORECASE,
)
_DATED: Final = re.compile(
    r"[-@:_](?:\d{4}-\d{2}-\d{2}|\d{8}|\d{6}|\d{3,4}|latest|v\d+)(?:-preview)?"
)


@dataclass(frozen=True, slots=True)
class NoThinking:
    """The fields that ask a chat model to answer without thinking aloud first.

    Attributes:
        in_template: Whether `chat_template_kwargs` are sent (vLLM, SGLang, llama.cpp).
        effort: Place in the list of values of `reasoning_effort` (OpenAI, vLLM, Ollama).
    """

    in_template: bool = True
    effort: int = 0

    @property
    def fields(self) -> dict[str, Any]:
        """The fields of a request's body."""
        template = {"chat_template_kwargs": {"enable_thinking": False, "thinking": False}}
        effort = _EFFORTS[self.effort]
        return {
            **(template if self.in_template else {}),
            **({"reasoning_effort": effort} if effort else {}),
        }

    def after_refusal(self, message: str) -> NoThinking | None:
        """What is left to send when the server refuses with a message; None if it is not ours."""
        said = message.lower()
        if self.in_template and ("chat_template_kwargs" in said or "enable_thinking" in said):
            return NoThinking(in_template=False, effort=self.effort)
        if _EFFORTS[self.effort] and "reasoning" in said:
            return NoThinking(in_template=self.in_template, effort=self.effort + 1)
        if self.fields and _FIELD_REFUSED.search(said) and "extra" in said:
            return NoThinking(in_template=False, effort=len(_EFFORTS) - 1)
        return None


def is_permanent(status: int, body: Any, retry_after: str | None) -> bool:
    """Whether a refusal stays until somebody pays or changes a limit.

    A rate limit passes; an exhausted quota is told by its code, or by words without a time after
    which to try again.
    """
    if status == 402:
        return True
    if status not in (400, 403, 429):
        return False
    error = body.get("error", body) if isinstance(body, dict) else body
    if isinstance(error, dict):
        codes = {str(error.get(name, "")).lower() for name in ("code", "type", "status")}
        if codes & _QUOTA_CODES:
            return True
    said = str(error)
    waits = retry_after is not None or re.search(r"retry|try again (?:in|after)", said, re.I)
    return not waits and bool(_QUOTA.search(said))


def is_model(named: str, asked: str) -> bool:
    """Whether the model that a reply names is the one that was asked for.

    Servers put the date or tag of the version behind the name, and some leave the owner out.
    """
    named, asked = named.casefold().strip(), asked.casefold().strip()
    if named in ("", asked) or asked == f"{named}:latest":
        return True
    for whole in (asked, asked.rstrip("/").rpartition("/")[2]):
        for name in (named, named.rstrip("/").rpartition("/")[2]):
            if name == whole or (
                name.startswith(whole) and _DATED.fullmatch(name.removeprefix(whole))
            ):
                return True
    return False


def short(failure: BaseException) -> str:
    """A failure in one line, for a reason column."""
    return f"{type(failure).__name__}: {one_line(str(failure))}"


def one_line(said: str) -> str:
    """What a server says, in one line: what UTF-8 cannot hold is escaped."""
    line = " ".join(without_controls(said).split())
    return line.encode("utf-8", "backslashreplace").decode()[:300]


def kind_of(failure: BaseException) -> str:
    """A failure without what varies from request to request: numbers and ids."""
    return re.sub(r"\b[0-9a-f]*\d[\w-]*\b", "#", short(failure).lower())
