"""Whether a server judges as its checkpoint does: asked before the first request.

Served verifiers have given about 0.5 for everything without an error, for want of a chat template
or of a line end in it. Eight pairs of generated pictures with two texts are asked, and one with
its pictures exchanged: margins must not all be near 0, and must change with the candidate and with
the exchange. Where the checkpoint is on this machine, prompts must have as many tokens as in
process, and margins must agree.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from statistics import pstdev
from typing import TYPE_CHECKING, Final

from models.metering import measuring
from models.verifiers.grid import draw_grid, marks_of
from models.verifiers.protocol import (
    Choice,
    GridRequest,
    ListAnswer,
    Verification,
    VerificationRequest,
)

if TYPE_CHECKING:
    from PIL import Image

    from models.verifiers.openai_verifier import OpenAIVerifierSettings

TEXTS: Final = ("make the circle red, and nothing else.", "put it on a black background\nplease")
LEAST_MARGIN: Final = 0.2
"""If all margins are smaller, P(yes) lies between 0.45 and 0.55 for all."""
LEAST_SPREAD: Final = 0.05
LEAST_CHANGE: Final = 1e-4
GRID_CELL: Final = 96

_Ask = Callable[[Iterable[VerificationRequest]], Iterator[Verification]]


def require_sound_server(settings: OpenAIVerifierSettings, ask: _Ask) -> None:
    """Refuse a server whose answers do not depend on what it is asked.

    Args:
        settings: Its settings.
        ask: Puts requests to it.

    Raises:
        ServerUnusable: Saying in which way it failed.
    """
    from models.generators.openai_failures import ServerUnusable

    pairs = drawn_pairs()
    swapped = replace(
        pairs[0], key="swapped", reference=pairs[0].candidate, candidate=pairs[0].reference
    )
    with measuring() as meter:
        answers = {answer.key: answer for answer in ask([*pairs, swapped])}
    fault = _fault([answers[pair.key] for pair in pairs], answers["swapped"])
    if not fault and settings.same_as:
        asked = [*pairs, swapped]
        fault = _difference(settings, asked, answers, meter.spent.prompt_tokens)
    if fault:
        raise ServerUnusable(
            f"the server at {settings.base_url} failed the test of a verifier: {fault}. Serve the "
            "model with its own chat template and two pictures a prompt "
            "(--limit-mm-per-prompt '{\"image\":2}'); skip_self_test=true believes it all the same"
        )


def require_grid_reader(
    settings: OpenAIVerifierSettings,
    ask: Callable[[Iterable[GridRequest]], Iterator[Choice]],
    answer: ListAnswer,
) -> None:
    """Refuse a server whose answer about a grid stays the same when its pictures change places.

    Raises:
        ServerUnusable: Saying in which way it failed.
    """
    from models.generators.openai_failures import ServerUnusable

    pictures = _pictures()[:4]
    requests = [
        GridRequest(
            key=key,
            reference=pictures[0],
            text=TEXTS[0],
            grid=draw_grid(order, GRID_CELL),
            marks=marks_of(len(order)),
            answer=answer,
        )
        for key, order in (("grid", pictures), ("grid turned round", pictures[::-1]))
    ]
    found = {choice.key: choice for choice in ask(requests)}
    fault = next(
        (
            f"{c.key} got no answer ({c.status}: {c.reason})"
            for c in found.values()
            if not c.margins
        ),
        "",
    )
    if not fault:
        first, second = (found[request.key].margins for request in requests)
        if max(abs(a - b) for a, b in zip(first, second, strict=True)) < LEAST_CHANGE:
            fault = "its answer stays the same when the pictures of a grid change places"
    if fault:
        raise ServerUnusable(
            f"the server at {settings.base_url} failed the test of a verifier of grids: {fault}. "
            "Set verify.mode=pointwise, or serve a model that reads several pictures; "
            "skip_self_test=true believes it all the same"
        )


def drawn_pairs() -> list[VerificationRequest]:
    """Eight pairs: flat colours and a checkerboard in two sizes, two texts."""
    pictures = _pictures()
    return [
        VerificationRequest(
            key=f"pair {i}",
            reference_id=f"test {i // 4}",
            reference=pictures[i // 4],
            text=TEXTS[i // 4],
            candidate_id=f"test {(i + 2) % len(pictures)}",
            candidate=pictures[(i + 2) % len(pictures)],
        )
        for i in range(8)
    ]


def _pictures() -> Sequence[Image.Image]:
    from PIL import Image

    colours = ("white", "red", "black", "blue", "green", "yellow", "gray")
    sizes = ((96, 96), (160, 96))
    flat = [Image.new("RGB", sizes[i % 2], colour) for i, colour in enumerate(colours)]
    board = Image.new("1", (8, 8))
    board.putdata([(i + i // 8) % 2 * 255 for i in range(64)])
    return [*flat, board.resize((96, 96), Image.Resampling.NEAREST).convert("RGB")]


def _fault(answers: Sequence[Verification], swapped: Verification) -> str:
    """What is wrong with the answers by themselves; empty: nothing."""
    margins = []
    for answer in (*answers, swapped):
        if answer.margin is None:
            return f"{answer.key} got no answer ({answer.status}: {answer.reason})"
        margins.append(answer.margin)
    *own, exchanged = margins
    if max(map(abs, own)) < LEAST_MARGIN or pstdev(own) < LEAST_SPREAD:
        return f"P(yes) hardly depends on the pair (margins {_numbers(own)})"
    if abs(own[0] - exchanged) < LEAST_CHANGE:
        return "P(yes) stays the same when reference and candidate are exchanged"
    groups = (own[:4], own[4:])
    if any(max(group) - min(group) < LEAST_CHANGE for group in groups):
        return f"P(yes) does not depend on the candidate (margins {_numbers(own)})"
    return ""


def _difference(
    settings: OpenAIVerifierSettings,
    asked: Sequence[VerificationRequest],
    served: dict[str, Verification],
    served_tokens: int,
) -> str:
    """How the answers differ from those in process; empty: they agree."""
    from models.verifiers.qwen3_vl import VlmVerifierSettings

    # One candidate at once: what is read is then counted as a server counts it.
    local = VlmVerifierSettings(model=settings.same_as, prompts=settings.prompts, batch_size=1)
    # Exchanged pictures have other ids, or features of the first pair would stand in for them.
    asked = [replace(r, reference_id=f"{r.key} a", candidate_id=f"{r.key} b") for r in asked]
    with measuring() as meter:
        answers = list(local.load().verify(asked))
    if served_tokens and served_tokens != (tokens := meter.spent.prompt_tokens):
        return f"its prompts have {served_tokens} tokens, in process they have {tokens}"
    pairs = [(served[a.key], a) for a in answers if served[a.key].status == "ok"]
    worst = max((abs((s.margin or 0) - (a.margin or 0)) for s, a in pairs), default=0.0)
    if worst > settings.most_difference:
        return (
            f"margins differ from those in process by up to {worst:.3g}, more than "
            f"most_difference={settings.most_difference:g}"
        )
    return ""


def _numbers(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.3f}" for value in values)
