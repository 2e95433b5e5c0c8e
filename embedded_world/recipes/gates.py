"""Gates of the shipped small models on scenes that no training stage saw.

    OMP_NUM_THREADS=1 python -m embedded_world.recipes.gates

Loads the shipped folders, prints a table with sample sizes and standard errors and then one line
of JSON; ends with status 1 where a gate is missed. With `--generated` the text generator is also
asked about captions that the BLIP-2 generates.
"""

import argparse
import json
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Final

import torch

from embedded_world.recipes.commands import EMBEDDED
from embedded_world.recipes.measures import Gates
from embedded_world.recipes.pointing_measures import pointing_gates
from embedded_world.recipes.text_measures import llama_gates
from embedded_world.recipes.verifier_measures import verifier_gates
from embedded_world.recipes.vision_measures import blip2_gates, clip_gates, llava_gates

MEASURED: Final[Mapping[str, Callable[..., Gates]]] = {
    "clip": clip_gates,
    "clip_small": clip_gates,
    "blip2": blip2_gates,
    "llava": llava_gates,
    "llama": llama_gates,
    "llama_pointing": pointing_gates,
    "verifier": verifier_gates,
}
"""Folder of a model -> the function that measures it."""
USUAL: Final = ("clip", "blip2", "llava", "llama", "llama_pointing", "verifier")
SMALL: Final = 0.2


def main() -> int:
    """Measure, print, and tell by the exit status whether all gates are met."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", type=Path, default=EMBEDDED, help="where the folders lie")
    parser.add_argument("--only", nargs="+", choices=tuple(MEASURED), default=USUAL)
    parser.add_argument("--small", action="store_true", help="a fifth of the samples")
    parser.add_argument("--generated", action="store_true", help="ask about generated captions too")
    args = parser.parse_args()
    torch.set_num_threads(1)
    print("Embedded world, held-out scenes")
    report: dict[str, object] = {}
    passed = True
    for name in args.only:
        measure = MEASURED[name]
        if name in ("llama", "llama_pointing") and args.generated:
            measure = partial(measure, captioner=args.models / "blip2")
        gates = measure(args.models / name, SMALL if args.small else 1.0)
        print(gates.table, flush=True)
        report[name] = gates.as_json()
        passed = passed and gates.passed
    print(json.dumps(report))
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
