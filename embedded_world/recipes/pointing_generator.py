"""The text generator that also reads instructions which point by relations and at two things.

    OMP_NUM_THREADS=1 python -m embedded_world.recipes.pointing_generator \\
        --work DIR --out models/embedded/llama_pointing

It starts from the weights in models/embedded/llama. One CPU thread, about 18 minutes.
"""

from embedded_world.recipes.commands import EMBEDDED, command, recipe_options, start
from embedded_world.recipes.pointing_measures import glance, pointing_gates
from embedded_world.recipes.pointing_model import extend
from embedded_world.recipes.pointing_settings import PointingSettings
from embedded_world.recipes.text_generator import complete
from embedded_world.recipes.text_training import TextLearner

COMMAND = command("pointing_generator", "--work DIR --out models/embedded/llama_pointing")


def main() -> None:
    """Train the text generator further and write it."""
    defaults = PointingSettings()
    parser = recipe_options(__doc__, "work", "out", seed=defaults.seed, steps=defaults.steps)
    args = start(parser)
    settings = PointingSettings(steps=args.steps, seed=args.seed)
    model, tokenizer = extend(EMBEDDED / "llama")
    learner = TextLearner(settings, model, tokenizer, glance)
    complete(
        learner,
        args,
        COMMAND,
        pointing_gates,
        start="models/embedded/llama",
        vocabulary=len(tokenizer),
    )


if __name__ == "__main__":
    main()
