"""The command line in a process that counts what it costs.

Run as ``python -m tests.fakes.counted_run WORDS...``. It does what ``cirflow WORDS`` does and then
prints one JSON line on standard error: calls of the local store by table folder, calls of
`Stage.identity` by stage, and the modules that it looks out for. It fails where it would start
Prefect's temporary server.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Callable
from typing import Any, NoReturn

HEAVY = ("torch", "torchvision", "transformers", "open_clip", "lightning", "peft")

listings: Counter[str] = Counter()
reads: Counter[str] = Counter()
identities: Counter[str] = Counter()


def counting(counter: Counter[str], call: Callable[..., Any]) -> Callable[..., Any]:
    """A method of the store that notes the table folder (TABLE/SPEC_KEY) of its path."""

    def counted(self: Any, path: str, *rest: Any, **named: Any) -> Any:
        counter["/".join(path.split("/")[:2])] += 1
        return call(self, path, *rest, **named)

    return counted


def no_server() -> NoReturn:
    """Stands where the temporary server is started."""
    raise AssertionError("a run that makes nothing starts Prefect's temporary server")


def watch() -> None:
    """Count from now on."""
    from deployments import prefect_session
    from storage.locations.stores import LocalStore
    from tasks import planner  # brings every kind of stage
    from tasks.stages.stage import Stage

    for name, counter in (("entries", listings), ("read", reads), ("open", reads)):
        setattr(LocalStore, name, counting(counter, getattr(LocalStore, name)))
    assert planner.plan_evaluation
    prefect_session.temporary_server = no_server
    for kind in below(Stage):
        if "identity" in vars(kind):
            kind.identity = noting(kind.identity)  # type: ignore[method-assign]


def below(kind: type[Any]) -> list[type[Any]]:
    """Every class that derives from another one, at any distance."""
    direct = kind.__subclasses__()
    return [*direct, *(further for each in direct for further in below(each))]


def noting(identity: Callable[[Any], dict[str, Any]]) -> Callable[[Any], dict[str, Any]]:
    """`Stage.identity` that notes for which stage it was computed."""

    def noted(self: Any) -> dict[str, Any]:
        identities[f"{type(self).__name__} {self.model_dump_json()}"] += 1
        return identity(self)

    return noted


if __name__ == "__main__":
    watch()
    from deployments.cli import main

    status = main(sys.argv[1:])
    heavy = [name for name in HEAVY if name in sys.modules]
    said = {"listings": listings, "reads": reads, "identities": identities, "heavy": heavy}
    print(json.dumps(said), file=sys.stderr)
    sys.exit(status)
