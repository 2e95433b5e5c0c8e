"""The embedded mapping network: LinCIR, trained on texts alone through the shipped CLIP.

`OMP_NUM_THREADS=1 python -m embedded_world.recipes.mapping --work DIR --out DIR2`

No picture is seen. The texts are the grammar's: captions and the form of composed queries, both
about one scene each. What the pseudo token stands for is, in most texts, the whole description
("a photo of $ that ..."), as it will be in queries; in the others each run of content words, as
in LinCIR itself.
"""

import argparse
import copy
import json
import os
import re
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from random import Random

from embedded_world.recipes.clip_texts import composite, full_caption, full_varied, partial_caption
from embedded_world.recipes.composed_probe import run_probe, table
from embedded_world.recipes.training import one_thread, write_recipe
from embedded_world.scenes import sample_scenes
from models.encoders.loading import load_encoder
from models.encoders.spec import EncoderSpec
from models.encoders.text_tower import TextTokens
from models.textual_inversion.keywords import Span, function_words
from models.textual_inversion.masking import TrainingRow, training_rows
from models.textual_inversion.network import MappingNetwork, dump_mapping, load_mapping
from models.textual_inversion.settings import LinCirConfig
from models.textual_inversion.training import LinCirTraining

COMMAND = (
    "OMP_NUM_THREADS=1 python -m embedded_world.recipes.mapping --work DIR "
    "--out models/embedded/lincir"
)
PROBE_QUERIES = 400

_DESCRIPTION = re.compile(r"a photo of (.+?)(?= that |\. and |$)")


def description(texts: Iterable[str]) -> Iterator[list[Span]]:
    """The X of "a photo of X that T. and the photo should have Y", as one span."""
    for text in texts:
        match = _DESCRIPTION.match(text)
        yield [match.span(1)] if match else []


def lincir_rows(
    tokens: TextTokens, count: int, seed: int, keyword_share: float
) -> list[TrainingRow]:
    """Training texts, masked.

    Args:
        tokens: Tokenizer of the text tower.
        count: Number of texts, each about a scene of its own.
        seed: Of scenes and wording.
        keyword_share: Share of texts in which runs of content words are masked one by one.
    """
    rng = Random(f"lincir {seed}")
    scenes = sample_scenes(rng, count, held_out=False)
    cut = round(count * keyword_share)
    captions = [rng.choice((full_caption, full_varied, partial_caption)) for _ in scenes]
    keyworded = [form(s, rng) for form, s in zip(captions[:cut], scenes[:cut], strict=True)]
    whole = [
        f"a photo of {form(s, rng)}" if rng.random() < 0.5 else composite(s, rng)
        for form, s in zip(captions[cut:], scenes[cut:], strict=True)
    ]
    return training_rows(keyworded, tokens, function_words) + training_rows(
        whole, tokens, description
    )


def train(training: LinCirTraining, checkpoint: Path, save_every: int = 200) -> float:
    """Run to the end from the last checkpoint; returns the CPU seconds of all its steps."""
    cost = checkpoint.with_suffix(".json")
    spent = 0.0
    if checkpoint.exists():
        training.load(checkpoint.read_bytes())
        spent = json.loads(cost.read_text())["cpu_seconds"]
        print(f"resumed at step {training.step}", flush=True)
    while not training.done:
        started = time.process_time()
        loss = training.run(training.step + save_every)
        spent += time.process_time() - started
        cost.write_text(json.dumps({"cpu_seconds": spent}))
        partial = checkpoint.with_suffix(".partial")
        partial.write_bytes(training.save())
        os.replace(partial, checkpoint)
        left = spent / training.step * (training.config.steps - training.step)
        done = f"step {training.step}/{training.config.steps}"
        print(f"{done} cpu {spent:.0f}s left {left:.0f}s | loss {loss:.5f}", flush=True)
    return spent


def half(network: MappingNetwork) -> MappingNetwork:
    """The same network with weights in fp16, as it is shipped; it loads as fp32."""
    return MappingNetwork(network.shape, copy.deepcopy(network.module).half())


def main() -> None:
    """Train the mapping network, write it, and print the probe."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clip", type=Path, default=Path("models/embedded/clip"))
    parser.add_argument("--work", type=Path, required=True, help="folder of the checkpoint")
    parser.add_argument("--out", type=Path, required=True, help="folder of the model")
    parser.add_argument("--texts", type=int, default=40_000)
    parser.add_argument("--keyword-share", type=float, default=0.25)
    parser.add_argument("--steps", type=int, default=2_000)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--noise", type=float, default=1.0)
    parser.add_argument("--dropout", type=float, default=0.1)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    one_thread()
    args.work.mkdir(parents=True, exist_ok=True)
    encoder = load_encoder(EncoderSpec(name=str(args.clip), device="cpu"))
    rows = lincir_rows(encoder.tower.tokens, args.texts, args.seed, args.keyword_share)
    config = LinCirConfig(
        steps=args.steps,
        batch_size=args.batch,
        learning_rate=args.rate,
        dropout=args.dropout,
        noise=args.noise,
        seed=args.seed,
    )
    training = LinCirTraining(config, encoder.tower, rows)
    spent = train(training, args.work / "checkpoint.pt")
    network = half(training.network())
    args.out.mkdir(parents=True, exist_ok=True)
    settings = {k: v for k, v in vars(args).items() if not isinstance(v, Path)}
    for name, data in dump_mapping(network, settings).items():
        (args.out / name).write_bytes(data)
    results = run_probe(encoder, load_mapping(args.out), PROBE_QUERIES)
    print(table(results, PROBE_QUERIES), f"\n{spent:.0f} CPU-s", flush=True)
    rounded = {m: {k: round(v, 4) for k, v in row.items()} for m, row in results.items()}
    write_recipe(
        args.out,
        COMMAND,
        steps=training.step,
        cpu_seconds=spent,
        settings=vars(args),
        gates={"composed_probe": rounded, "queries": PROBE_QUERIES},
    )


if __name__ == "__main__":
    main()
