"""Flows that begin with a checked request."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
Request = TypeVar("Request")
R = TypeVar("R")


def prepared_by(
    prepare: Callable[P, Request],
) -> Callable[[Callable[[Request], R]], Callable[P, R]]:
    """Give a flow's body the parameters, the text and the refusals of a function of this folder.

    The flow takes what `prepare` takes, and its body gets what `prepare` returns. The command line
    calls `prepare` alone first: it is imported without Prefect, and what it refuses there is
    refused by a run that the UI starts, too.
    """

    def flow_of(body: Callable[[Request], R]) -> Callable[P, R]:
        @functools.wraps(prepare)
        def run(*args: P.args, **kwargs: P.kwargs) -> R:
            return body(prepare(*args, **kwargs))

        run.__module__, run.__name__ = body.__module__, body.__name__
        run.__qualname__ = body.__qualname__
        # Names in annotations are those of the module of `prepare`.
        run.__signature__ = inspect.signature(prepare, eval_str=True)  # type: ignore[attr-defined]
        return run

    return flow_of
