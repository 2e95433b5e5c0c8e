"""One form for all recipes: the options of the command, its start, and its `recipe.json`."""

import argparse
import json
import platform
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import torch

from embedded_world.recipes.training import TrainingRun

EMBEDDED: Final = Path("models/embedded")
"""Where the shipped models lie, from the root of the tree."""

FOLDERS: Final[Mapping[str, str]] = {
    "tower": "tower.safetensors, as vision_tower writes it",
    "work": "folder of the checkpoint; a stopped run resumes from it",
    "out": "folder of the model",
}
LIBRARIES: Final = (
    *("torch", "transformers", "open_clip_torch"),
    *("tokenizers", "safetensors", "numpy"),
)


def recipe_options(
    description: str | None, *folders: str, **numbers: int | float
) -> argparse.ArgumentParser:
    """A parser of a recipe's options.

    Args:
        description: The module's docstring.
        folders: Names from FOLDERS; each becomes an option that must be given.
        numbers: Options with these defaults, of the defaults' types; `seed` is one of them.
    """
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name in folders:
        parser.add_argument(f"--{name}", type=Path, required=True, help=FOLDERS[name])
    for name, default in numbers.items():
        option = f"--{name.replace('_', '-')}"
        parser.add_argument(option, type=type(default), default=default, help=f"default {default}")
    return parser


def start(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """Read the command line, seed torch and use one thread: small models lose by sharing work."""
    given = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(given.seed)
    return given


def command(module: str, options: str) -> str:
    """The command of a recipe, with DIR and TOWER for the user's own folders."""
    return f"OMP_NUM_THREADS=1 python -m embedded_world.recipes.{module} {options}"


def without_paths(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that a result depends on."""
    return {name: value for name, value in settings.items() if not isinstance(value, Path)}


def write_recipe(
    folder: Path,
    made_by: str,
    *,
    settings: Mapping[str, object],
    steps: int,
    cpu_seconds: float,
    gates: Mapping[str, object],
    **facts: object,
) -> None:
    """Write `recipe.json`: how the model of this folder was made, and its measures.

    Args:
        folder: Where the model lies.
        made_by: The command that makes it, as `command` gives it.
        settings: The command's options; folders among them are left out.
        steps: Optimiser steps taken.
        cpu_seconds: Their cost.
        gates: Measures of the files as they are shipped.
        facts: Further facts by name.
    """
    record = {
        "command": made_by,
        "settings": without_paths(settings),
        "steps": steps,
        "cpu_seconds": round(cpu_seconds),
        **facts,
        "python": platform.python_version(),
        "libraries": {name: version(name) for name in LIBRARIES},
        "gates": dict(gates),
    }
    (folder / "recipe.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def conclude(
    run: TrainingRun,
    folder: Path,
    made_by: str,
    settings: Mapping[str, object],
    measure: Callable[[Path], Mapping[str, object]],
    **facts: object,
) -> None:
    """Measure a model as it is shipped, and record how it was made.

    Args:
        run: The finished run.
        folder: Where the model was written.
        made_by: As for `write_recipe`.
        settings: As for `write_recipe`.
        measure: Loads a folder and measures the model in it.
        facts: As for `write_recipe`.
    """
    print(f"wrote {folder}; {run.cpu_seconds:.0f} CPU-s", flush=True)
    write_recipe(
        folder,
        made_by,
        settings=settings,
        steps=run.learner.step,
        cpu_seconds=run.cpu_seconds,
        gates=measure(folder),
        **facts,
    )
