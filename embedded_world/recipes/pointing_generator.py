"""The text generator that also reads instructions which point by relations and at two things.

    OMP_NUM_THREADS=1 python -m embedded_world.recipes.pointing_generator \\
        --work DIR --out models/embedded/llama_pointing

It starts from the weights in models/embedded/llama. One CPU thread, about 18 minutes.
"""

import platform
from dataclasses import asdict
from pathlib import Path

import torch

from embedded_world.recipes.commands import EMBEDDED, command, conclude, recipe_options, start
from embedded_world.recipes.pointing_measures import glance, pointing_gates
from embedded_world.recipes.pointing_model import extend
from embedded_world.recipes.pointing_settings import PointingSettings
from embedded_world.recipes.text_model import ship
from embedded_world.recipes.text_training import TextLearner
from embedded_world.recipes.training import TrainingRun

COMMAND = command("pointing_generator", "--work DIR --out models/embedded/llama_pointing")


def main() -> None:
    """Train the text generator further and write it."""
    defaults = PointingSettings()
    parser = recipe_options(__doc__, "work", "out", seed=defaults.seed, steps=defaults.steps)
    args = start(parser)
    settings = PointingSettings(steps=args.steps, seed=args.seed)
    model, tokenizer = extend(EMBEDDED / "llama")
    learner = TextLearner(settings, model, tokenizer, glance)
    run = TrainingRun(learner, args.work, asdict(settings))
    run.finish(save_every=settings.save_every, look_every=960)
    ship(learner.model, tokenizer, args.out)

    def measure(folder: Path) -> dict[str, object]:
        return pointing_gates(folder, captioner=EMBEDDED / "blip2").as_json()

    conclude(
        run,
        args.out,
        COMMAND,
        asdict(settings),
        measure,
        parameters=learner.model.num_parameters(),
        threads=torch.get_num_threads(),
        machine=platform.machine(),
        start="models/embedded/llama",
        vocabulary=len(tokenizer),
    )


if __name__ == "__main__":
    main()
