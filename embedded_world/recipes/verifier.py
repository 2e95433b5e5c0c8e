"""The embedded verifier: a small Qwen3-VL that says whether a candidate fits a query.

    OMP_NUM_THREADS=1 python -m embedded_world.recipes.verifier \\
        --work DIR --out models/embedded/verifier

Two stages in one run, both resumed from DIR after a stop. The vision tower first learns to name
what a cell holds and where it lies, without any text. Then the language model learns from drawn
queries with eight candidates each, two of them right: `verifier_queries` says which are wrong.
The answer does not move for the first third of the run, while the model learns what is wanted in
each cell (the loss `wish`); it rises after that.
"""

from collections.abc import Mapping
from pathlib import Path
from random import Random

import numpy as np
from safetensors.torch import load_file
from torch import Tensor

from embedded_world.recipes.commands import (
    command,
    conclude,
    recipe_options,
    start,
)
from embedded_world.recipes.training import AdamWLearner, Schedule, TrainingRun, streams
from embedded_world.recipes.verifier_measures import verifier_gates
from embedded_world.recipes.verifier_model import (
    WEIGHTS,
    build_verifier_tokenizer,
    new_verifier,
    ship,
    verifier_processor,
)
from embedded_world.recipes.verifier_training import VerifierLearner, VisionWarmUp
from embedded_world.recipes.vision_tower import training_scenes
from embedded_world.scenes import sample_scenes

SEED = 41
VISION_BATCH = 64
MOST_ROUNDING = 0.05
"""Most that a margin may change when weights are rounded to fp16."""


def main() -> None:
    """Train both stages, write the files and measure them."""
    numbers = {"seed": SEED, "vision_steps": 400, "steps": 5400, "batch": 10, "gate_share": 1.0}
    args = start(recipe_options(__doc__, "work", "out", **numbers))
    tokenizer = build_verifier_tokenizer()
    model = new_verifier(tokenizer, args.seed)
    warm_up = VisionWarmUp(model.model.visual)
    seen = sample_scenes(Random(0), 300, held_out=True)

    def losses(step: int) -> dict[str, Tensor]:
        rng, drawing = streams(args.seed, step)
        return warm_up.losses(training_scenes(rng, VISION_BATCH), drawing)

    def look() -> str:
        found = warm_up.accuracy(seen, np.random.default_rng(0))
        return " ".join(f"{name} {share:.3f}" for name, share in found.items())

    schedule = Schedule(args.vision_steps, 1.5e-3)
    vision = AdamWLearner(warm_up, schedule, weight_decay=0.05, losses=losses, look=look)
    # The second stage's length is not among them: its learner says which ones a checkpoint allows.
    settings = {"seed": args.seed, "vision_steps": args.vision_steps}
    vision_run = TrainingRun(vision, args.work / "vision", settings)
    vision_run.finish(look_every=300)
    accuracy = warm_up.accuracy(seen, np.random.default_rng(0))
    warm_up.rescale()

    learner = VerifierLearner(model, tokenizer, seed=args.seed, steps=args.steps, batch=args.batch)
    run = TrainingRun(learner, args.work / "language", {**settings, "batch": args.batch})
    run.finish(look_every=250)
    exact = learner.margins()
    ship(model, verifier_processor(tokenizer), args.out)
    model.load_state_dict(load_file(args.out / WEIGHTS), strict=False)  # the head is tied
    rounding = float(np.abs(learner.margins() - exact).max())
    if rounding > MOST_ROUNDING:
        raise ValueError(f"fp16 changes a margin by {rounding:.3f}, more than {MOST_ROUNDING}")

    def measure(folder: Path) -> Mapping[str, object]:
        return verifier_gates(folder, args.gate_share).as_json()

    conclude(
        run,
        args.out,
        command("verifier", "--work DIR --out models/embedded/verifier"),
        vars(args),
        measure,
        vision_cpu_seconds=round(vision_run.cpu_seconds),
        vision_accuracy={name: round(share, 4) for name, share in accuracy.items()},
        largest_change_by_fp16=round(rounding, 4),
        curve=learner.curve,
    )


if __name__ == "__main__":
    main()
