"""Train and ship the embedded text generator: edited captions, added objects, differences.

    OMP_NUM_THREADS=1 python -m embedded_world.recipes.text_generator --out models/embedded/llama

One CPU thread, about 40 minutes. Interrupted runs continue from `--work`; the result depends on
the settings only. Gates: `python -m embedded_world.recipes.text_gates`.
"""

import argparse
import importlib.metadata
import json
import platform
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch

from embedded_world.recipes.text_batches import BatchMaker
from embedded_world.recipes.text_gates import quick_look
from embedded_world.recipes.text_language import build_tokenizer
from embedded_world.recipes.text_model import build_model, ship
from embedded_world.recipes.text_settings import Settings
from embedded_world.recipes.text_training import Trainer

LOG_EVERY = 96


def train(settings: Settings, out: Path, work: Path, look_every: int) -> Trainer:
    """Run (or continue) a training and ship the model at the end and at each look."""
    torch.set_num_threads(1)
    work.mkdir(parents=True, exist_ok=True)
    tokenizer = build_tokenizer()
    trainer = Trainer(settings, build_model(tokenizer, settings.seed), tokenizer)
    checkpoint = work / "checkpoint.safetensors"
    if checkpoint.exists():
        trainer.resume(checkpoint)
        print(f"continuing {checkpoint} at step {trainer.done}", flush=True)
    batches = BatchMaker(settings, tokenizer).from_step(trainer.done)
    losses: list[dict[str, float]] = []
    began, first = time.monotonic(), trainer.done
    while trainer.done < settings.steps:
        losses.append(trainer.step(next(batches)))
        if trainer.done % LOG_EVERY == 0:
            speed = (trainer.done - first) / (time.monotonic() - began)
            means = {k: sum(x.get(k, 0.0) for x in losses) / len(losses) for k in losses[-1]}
            told = " ".join(f"{name} {mean:.4f}" for name, mean in means.items())
            left = (settings.steps - trainer.done) / speed / 60
            print(
                f"step {trainer.done}/{settings.steps} cpu {trainer.cpu_seconds:.0f} s "
                f"{speed:.2f} steps/s {told} "
                f"lr {settings.rate(trainer.done):.5f} left {left:.0f} min",
                flush=True,
            )
            losses.clear()
        if trainer.done % settings.save_every == 0:
            trainer.save(checkpoint)
        if trainer.done % look_every == 0:
            print("look", quick_look(trainer.model, tokenizer), flush=True)
            ship(trainer.model, tokenizer, out)
    trainer.save(checkpoint)
    ship(trainer.model, tokenizer, out)
    return trainer


def write_recipe(trainer: Trainer, out: Path) -> None:
    """Record how the model was made; `text_gates --record` adds what it reaches."""
    settings = trainer.settings
    recipe = {
        "command": "OMP_NUM_THREADS=1 python -m embedded_world.recipes.text_generator "
        f"--out models/embedded/llama --steps {settings.steps} --seed {settings.seed}",
        "settings": asdict(settings),
        "parameters": trainer.model.num_parameters(),
        "cpu_seconds": round(trainer.cpu_seconds),
        "threads": torch.get_num_threads(),
        "machine": platform.machine(),
        "python": platform.python_version(),
        "versions": {
            name: importlib.metadata.version(name)
            for name in ("torch", "transformers", "tokenizers", "safetensors")
        },
    }
    (out / "recipe.json").write_text(json.dumps(recipe, indent=1) + "\n")


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="where the model goes")
    parser.add_argument("--work", type=Path, help="where checkpoints go (default: OUT-work)")
    parser.add_argument("--steps", type=int, default=Settings.steps)
    parser.add_argument("--seed", type=int, default=Settings.seed)
    parser.add_argument("--look-every", type=int, default=960, help="steps between quick looks")
    given = parser.parse_args(arguments)
    work = given.work or given.out.with_name(given.out.name + "-work")
    settings = Settings(steps=given.steps, seed=given.seed)
    trainer = train(settings, given.out, work, given.look_every)
    write_recipe(trainer, given.out)
    print(f"shipped {given.out} after {trainer.cpu_seconds:.0f} CPU seconds")


if __name__ == "__main__":
    main()
