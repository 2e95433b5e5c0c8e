"""The embedded text generator: edited captions, added objects, differences.

    OMP_NUM_THREADS=1 python -m embedded_world.recipes.text_generator \\
        --work DIR --out models/embedded/llama

One CPU thread, about 40 minutes.
"""

import argparse
import platform
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import torch

from embedded_world.recipes.commands import EMBEDDED, command, conclude, recipe_options, start
from embedded_world.recipes.measures import Gates
from embedded_world.recipes.text_measures import llama_gates, quick_look
from embedded_world.recipes.text_model import build_model, ship
from embedded_world.recipes.text_settings import Settings
from embedded_world.recipes.text_tokenizer import build_text_tokenizer
from embedded_world.recipes.text_training import TextLearner
from embedded_world.recipes.training import TrainingRun

COMMAND = command("text_generator", "--work DIR --out models/embedded/llama")


def main() -> None:
    """Train the text generator and write it."""
    parser = recipe_options(__doc__, "work", "out", seed=Settings.seed, steps=Settings.steps)
    args = start(parser)
    settings = Settings(steps=args.steps, seed=args.seed)
    tokenizer = build_text_tokenizer()
    model = build_model(tokenizer, settings.seed)
    learner = TextLearner(settings, model, tokenizer, quick_look)
    complete(learner, args, COMMAND, llama_gates)


def complete(
    learner: TextLearner,
    args: argparse.Namespace,
    made_by: str,
    gates: Callable[..., Gates],
    **facts: object,
) -> None:
    """Train a text generator to its end, write it, measure it as shipped and record how.

    Args:
        learner: What is trained.
        args: The recipe's options: the folders `work` and `out`.
        made_by: Command, as for `write_recipe`.
        gates: Measures the model of a folder, also on captions of a `captioner`.
        facts: Further facts of the record by name.
    """
    settings = asdict(learner.settings)
    run = TrainingRun(learner, args.work, settings)
    run.finish(save_every=learner.settings.save_every, look_every=960)
    ship(learner.model, learner.tokenizer, args.out)

    def measure(folder: Path) -> dict[str, object]:
        return gates(folder, captioner=EMBEDDED / "blip2").as_json()

    conclude(
        run,
        args.out,
        made_by,
        settings,
        measure,
        parameters=learner.model.num_parameters(),
        threads=torch.get_num_threads(),
        machine=platform.machine(),
        **facts,
    )


if __name__ == "__main__":
    main()
