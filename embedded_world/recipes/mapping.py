"""The embedded mapping network: LinCIR, trained on texts alone through the shipped CLIP.

    OMP_NUM_THREADS=1 python -m embedded_world.recipes.mapping \\
        --work DIR --out models/embedded/lincir

No picture is seen. The texts are captions and the form of composed queries, each about one scene.
In most texts the pseudo token stands for the whole description ("a photo of $ that ..."), as in
queries; in the others for each run of content words, as in LinCIR itself.
"""

import copy
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from random import Random

from embedded_world.recipes.clip_texts import composite, full_caption, full_varied, partial_caption
from embedded_world.recipes.commands import (
    EMBEDDED,
    command,
    conclude,
    recipe_options,
    start,
    without_paths,
)
from embedded_world.recipes.composed_probe import run_probe, table
from embedded_world.recipes.training import TrainingRun
from embedded_world.scenes import sample_scenes
from models.encoders.loading import load_encoder
from models.encoders.spec import EncoderSpec
from models.encoders.text_tokens import TextTokens
from models.textual_inversion.keywords import Span, function_words
from models.textual_inversion.masking import TrainingRow, training_rows
from models.textual_inversion.network import MappingNetwork, dump_mapping, load_mapping
from models.textual_inversion.settings import LinCirConfig
from models.textual_inversion.training import LinCirTraining

COMMAND = command("mapping", "--work DIR --out models/embedded/lincir")
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


class MappingLearner:
    """LinCIR's training, step by step."""

    def __init__(self, training: LinCirTraining) -> None:
        self.training = training
        self.save, self.load = training.save, training.load

    @property
    def step(self) -> int:
        """Steps taken."""
        return self.training.step

    @property
    def steps(self) -> int:
        """Steps of the whole run."""
        return self.training.config.steps

    def advance(self) -> Mapping[str, float]:
        """Take one step; its loss."""
        return {"loss": self.training.run(self.step + 1)}

    def look(self) -> str:
        """Nothing: the probe is run at the end."""
        return ""


def half(network: MappingNetwork) -> MappingNetwork:
    """The same network with weights in fp16, as it is shipped; it loads as fp32."""
    return MappingNetwork(network.shape, copy.deepcopy(network.module).half())


def main() -> None:
    """Train the mapping network, write it, and print the probe."""
    numbers = {"texts": 40_000, "keyword_share": 0.25, "steps": 2_000, "batch": 128, "rate": 1e-3}
    numbers |= {"noise": 1.0, "dropout": 0.1, "seed": 0}
    parser = recipe_options(__doc__, "work", "out", **numbers)
    parser.add_argument("--clip", type=Path, default=EMBEDDED / "clip")
    args = start(parser)
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
    settings = without_paths(vars(args))
    learner = MappingLearner(LinCirTraining(config, encoder.tower, rows))
    run = TrainingRun(learner, args.work, settings)
    run.finish(save_every=200)
    network = half(learner.training.network())
    args.out.mkdir(parents=True, exist_ok=True)
    for name, data in dump_mapping(network, settings).items():
        (args.out / name).write_bytes(data)

    def measure(folder: Path) -> dict[str, object]:
        results = run_probe(encoder, load_mapping(folder), PROBE_QUERIES)
        print(table(results, PROBE_QUERIES), flush=True)
        rounded = {m: {k: round(v, 4) for k, v in row.items()} for m, row in results.items()}
        return {"composed_probe": rounded, "queries": PROBE_QUERIES}

    conclude(run, args.out, COMMAND, settings, measure)


if __name__ == "__main__":
    main()
