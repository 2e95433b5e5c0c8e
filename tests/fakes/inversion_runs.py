"""A training of a mapping network, or the making of pseudo tokens, as a process that may be killed.

Run as ``python -m tests.fakes.inversion_runs KIND JSON``: it does the work, a line on standard
output for each step or shard that begins, and leaves with 0.
"""

from __future__ import annotations

import sys

from pydantic import TypeAdapter


def train(job_json: str) -> None:
    """Train and publish a job."""
    from tasks.training.fitting import train_once_in_folder
    from tasks.training.inversion import InversionJob, _publish
    from tasks.training.run_settings import RunSettings
    from tasks.training.shown_progress import ShownProgress

    job = TypeAdapter(InversionJob).validate_json(job_json)
    run = RunSettings(accelerator="cpu", log_steps=1, save_steps=2, loggers=())
    report = ShownProgress.report

    def reporting(self: ShownProgress, step: int, total: int, loss: float) -> None:
        print("step", step, flush=True)
        report(self, step, total, loss)

    ShownProgress.report = reporting  # type: ignore[method-assign]
    train_once_in_folder(
        job, run, lambda data, history, weights, shown: _publish(job, run, history, weights)
    )


def tokens(stage_json: str) -> None:
    """Make the missing shards of a stage, and those of the stages behind it."""
    from tasks.stages.pseudo_tokens import OtiTokenStage
    from tasks.stages.stage import Stage, in_order

    def fill(stage: Stage) -> None:
        table = stage.table()
        for shard in table.plan(stage.planned(), stage.shard_size).shards:
            print("shard", stage.table_name, flush=True)
            table.publish(shard, stage.rows(shard.members, lambda count: None))

    for stage in in_order([OtiTokenStage.model_validate_json(stage_json)]):
        fill(stage)


if __name__ == "__main__":
    {"train": train, "tokens": tokens}[sys.argv[1]](sys.argv[2])
