"""A process that forks tuning runs, so that a test can kill many of them cheaply.

Run as ``python -m tests.fakes.rewriter_runs BASE PAIRS``. It says ``ready``, then obeys one line on
standard input at a time: the folder of a root, where a fork of it tunes the base on the pairs. It
answers with the fork's process id, and when that has ended with its exit status or minus the
signal. A run saves its state after every step.
"""

from __future__ import annotations

import os
import sys
import traceback
from typing import TYPE_CHECKING

from models.instructcir.rewriter_settings import BaseLlm, TuningConfig
from models.prompts.library import load_prompt
from tasks.training.rewriter_pairs import read_pairs

if TYPE_CHECKING:
    from tasks.training.rewriter import RewriterJob, TuningData

STEPS = 120
CONFIG = TuningConfig(rank=4, epochs=STEPS // 4, batch_size=2, micro_batch=1, learning_rate=1e-2)


def job_of(root: str, base: str, pairs: str) -> tuple[RewriterJob, TuningData]:
    """The job that is run, and its data."""
    from tasks.training.rewriter import RewriterJob, TuningData

    prompt = load_prompt("instructcir_difference", ("caption_a", "caption_b"))
    data = TuningData([read_pairs(pairs, prompt)])
    job = RewriterJob(
        root=root,
        base=BaseLlm(model=base, device="cpu", dtype="fp32"),
        config=CONFIG,
        prompt_sha256=str(prompt.fingerprint["prompt_sha256"]),
        data_sha256=data.sha256,
        counts=data.counts,
        benchmarks=data.benchmarks,
    )
    return job, data


def main(base: str, pairs: str) -> None:
    """Obey commands until standard input ends."""
    # Whatever is imported late is imported here, once for all forks.
    import models.instructcir.rewriter_tuning  # noqa: F401
    from tasks.training import rewriter as rewriter_training

    rewriter_training.SAVE_EVERY = 1
    print("ready", flush=True)
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            _tune(line.strip(), base, pairs)
        print(child, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


def _tune(root: str, base: str, pairs: str) -> None:
    """Tune and leave the process, whatever happens."""
    from tasks.training.rewriter import tune_rewriter

    status = 1
    try:
        tune_rewriter.fn(*job_of(root, base, pairs))
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


if __name__ == "__main__":
    main(*sys.argv[1:])
