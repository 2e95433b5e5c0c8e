"""The final state of a run, whose message sums up what it did: what a list of runs shows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from prefect.states import Completed, State

from models.plain_text import escaped
from models.spelling import agreed

NOTHING: Final[Mapping[str, Any]] = {}


def summed_up(result: dict[str, Any], said: Mapping[str, Any] = NOTHING) -> State[Any]:
    """A completed state with a flow's result; results name their parts alike in all flows.

    Args:
        result: What the run returns.
        said: Parts that the message has in place of the result's own.
    """
    message = escaped("; ".join(_parts({**result, **said})))
    return Completed(message=message or None, data=result)


def _parts(result: Mapping[str, Any]) -> Iterator[str]:
    if warning := result.get("warning"):
        yield warning
    for title, scores in result.get("scores", {}).items():
        metric = result["main_metrics"][title]
        found = {name: own[metric] for name, own in scores.items() if metric in own}
        if found:
            best = max(found, key=lambda name: found[name])
            yield f"{title}: {best} {found[best]:.2f} {metric}, best of {len(found)}"
    if stages := result.get("stages"):
        yield _rows(stages)
    if left_out := _left_out(result.get("left out", {})):
        noun = agreed(left_out, "method")
        yield f"{left_out} {noun} left out, with reasons in the artifact"
    for name in ("checkpoint", "report", "page", "all", "summary", "merged", "profile"):
        if isinstance(result.get(name), str) and result[name]:
            yield f"{name} {result[name]}"
    reports = result.get("reports", {})
    yield from (f"report {path}" for path in reports.values())


def _left_out(found: Mapping[str, Any]) -> int:
    """Methods that did not run: named with their reasons, or apart for each backbone."""
    names: set[str] = set()
    for name, own in found.items():
        names |= set(own) if isinstance(own, Mapping) else {name}
    return len(names)


def _rows(stages: Sequence[Mapping[str, Any]]) -> str:
    made, reused, failed = (sum(s[key] for s in stages) for key in ("made", "reused", "failed"))
    steps = f"{len(stages)} {agreed(len(stages), 'stage')}"
    return f"{made} {agreed(made, 'row')} made, {reused} reused, {failed} failed in {steps}"
