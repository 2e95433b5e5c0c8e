"""The embedded text generator: edited captions, added objects, differences.

    OMP_NUM_THREADS=1 python -m embedded_world.recipes.text_generator \\
        --work DIR --out models/embedded/llama

One CPU thread, about 40 minutes.
"""

import platform
from dataclasses import asdict
from pathlib import Path

import torch

from embedded_world.recipes.commands import EMBEDDED, command, conclude, recipe_options, start
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
    run = TrainingRun(learner, args.work, asdict(settings))
    run.finish(save_every=settings.save_every, look_every=960)
    ship(learner.model, tokenizer, args.out)

    def measure(folder: Path) -> dict[str, object]:
        return llama_gates(folder, captioner=EMBEDDED / "blip2").as_json()

    conclude(
        run,
        args.out,
        COMMAND,
        asdict(settings),
        measure,
        parameters=learner.model.num_parameters(),
        threads=torch.get_num_threads(),
        machine=platform.machine(),
    )


if __name__ == "__main__":
    main()
