"""A small Qwen3-VL that chooses among candidates in one picture; it is not shipped.

    OMP_NUM_THREADS=1 python -m embedded_world.recipes.list_verifier --work DIR --out DIR

It starts from the shipped verifier. Two stages in one run, both resumed from DIR after a stop: the
vision tower learns to see in a grid what it saw in single pictures, then the language model to
name the mark of the candidate that fits.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor
from transformers import Qwen3VLForConditionalGeneration

from embedded_world.recipes.commands import EMBEDDED, command, conclude, recipe_options, start
from embedded_world.recipes.list_measures import list_gates
from embedded_world.recipes.list_model import grid_processor, grown, marked_tokenizer
from embedded_world.recipes.list_pictures import CELL
from embedded_world.recipes.list_training import ListLearner
from embedded_world.recipes.list_vision import GridTower, vision_scenes
from embedded_world.recipes.training import AdamWLearner, Schedule, TrainingRun, streams
from embedded_world.recipes.verifier_model import ship

SEED = 44
VISION_CANDIDATES = 48


def main() -> None:
    """Train both stages, write the files and measure them."""
    numbers = {"seed": SEED, "length": 5, "vision_steps": 480, "steps": 1000, "gate_share": 1.0}
    args = start(recipe_options(__doc__, "work", "out", **numbers))
    shipped_folder = EMBEDDED / "verifier"
    tokenizer = marked_tokenizer()
    processor = grid_processor(tokenizer, CELL)
    model = grown(shipped_folder, tokenizer, args.seed)
    shipped = Qwen3VLForConditionalGeneration.from_pretrained(shipped_folder, dtype=torch.float32)
    tower = GridTower(model, shipped, processor)

    def losses(step: int) -> dict[str, Tensor]:
        rng, drawing = streams(args.seed, step)
        scenes = vision_scenes(rng, args.length, VISION_CANDIDATES)
        return tower.losses(scenes, args.length, drawing)

    def look() -> str:
        return " ".join(f"{name} {share:.3f}" for name, share in tower.look(args.length).items())

    schedule = Schedule(args.vision_steps, 1.5e-3, hold=0.5)
    vision = AdamWLearner(tower, schedule, weight_decay=0.02, losses=losses, look=look)
    settings = {"seed": args.seed, "length": args.length, "vision_steps": args.vision_steps}
    vision_run = TrainingRun(vision, args.work / "vision", settings)
    vision_run.finish(save_every=50, look_every=100)
    seen = tower.look(args.length)

    learner = ListLearner(model, processor, seed=args.seed, steps=args.steps, length=args.length)
    run = TrainingRun(learner, args.work / "language", {**settings, "steps": args.steps})
    run.finish(save_every=50, look_every=100)
    ship(model, processor, args.out)

    def measure(folder: Path) -> Mapping[str, object]:
        return list_gates(folder, args.length, args.gate_share).as_json()

    conclude(
        run,
        args.out,
        command("list_verifier", "--work DIR --out DIR"),
        vars(args),
        measure,
        vision_cpu_seconds=round(vision_run.cpu_seconds),
        seen={name: round(value, 4) for name, value in seen.items()},
        curve=learner.curve,
    )


if __name__ == "__main__":
    main()
