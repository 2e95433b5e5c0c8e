"""Gates of the embedded CLIP, BLIP-2 and LLaVA on scenes that no training stage saw.

    OMP_NUM_THREADS=1 python -m embedded_world.recipes.vision_gates

Loads the shipped directories, prints a table with sample sizes and standard errors and then one
JSON line; ends with 1 when a gate is missed. `--small` draws a fifth of the samples.
"""

import argparse
import json
import sys
from pathlib import Path

from embedded_world.recipes.shipped_captioners import ShippedBlip2, ShippedLlava
from embedded_world.recipes.training import one_thread
from embedded_world.recipes.vision_measures import (
    CAPTIONED_SCENES,
    RETRIEVAL_SCENES,
    SAMPLED_SCENES,
    SAMPLES_EACH,
    Measure,
    as_json,
    captioner_measures,
    clip_measures,
    llava_measures,
)
from models.encoders.loading import load_encoder
from models.encoders.spec import EncoderSpec

MODELS = Path("models/embedded")


def main() -> int:
    """Measure, print, and say by the exit code whether all gates are met."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clip", type=Path, default=MODELS / "clip")
    parser.add_argument("--blip2", type=Path, default=MODELS / "blip2")
    parser.add_argument("--llava", type=Path, default=MODELS / "llava")
    parser.add_argument("--only", choices=("clip", "blip2", "llava"))
    parser.add_argument("--small", action="store_true", help="a fifth of the samples")
    args = parser.parse_args()
    one_thread()
    share = 5 if args.small else 1
    measures: list[Measure] = []
    if args.only in (None, "clip"):
        encoder = load_encoder(EncoderSpec(name=str(args.clip), device="cpu"))
        measures += clip_measures(encoder, RETRIEVAL_SCENES // share)
    if args.only in (None, "blip2"):
        measures += captioner_measures(
            ShippedBlip2(args.blip2),
            CAPTIONED_SCENES // share,
            SAMPLED_SCENES // share,
            SAMPLES_EACH,
        )
    if args.only in (None, "llava"):
        measures += llava_measures(ShippedLlava(args.llava), CAPTIONED_SCENES // share)
    print("Embedded world, held-out scenes")
    for measure in measures:
        print(measure.line)
    report = as_json(measures)
    print(json.dumps(report))
    return 0 if report["passed"] else 1


if __name__ == "__main__":
    sys.exit(main())
