"""A process that forks generations of triplets, so that a test can kill many of them cheaply.

Run as ``python -m tests.fakes.triplet_generation PROFILE_JSON SAMPLE_JSON LOG``; see
`tests.fakes.caption_backfill` for how it is spoken to. A worker is the flow's own code without
Prefect: the captions and then the texts of the sample's pairs.
"""

from __future__ import annotations

import sys

from tasks.engines import captioner_fingerprint, generator_fingerprint, load_captioner
from tasks.settings import Profile
from tasks.stages.captions import CaptionStage
from tasks.stages.pair_samples import PairSample
from tasks.stages.triplets import TripletStage


def main(profile_json: str, sample_json: str, log: str) -> None:
    """Generate triplets on command."""
    from flows import running
    from flows.generate_triplets import triplet_stage
    from tests.fakes.caption_backfill import note_shards, serve, without_prefect

    profile = Profile.model_validate_json(profile_json)
    sample = PairSample.model_validate_json(sample_json)
    without_prefect()
    note_shards(log, CaptionStage)
    note_shards(log, TripletStage)
    load_captioner(profile.instructcir.captioner)  # loaded and hashed once, for all workers
    captioner_fingerprint(profile.instructcir.captioner)
    generator_fingerprint(profile.instructcir.rewriter)

    def generate(root: str) -> None:
        stage = triplet_stage(profile.model_copy(update={"root": root}), sample)
        report = running.RunLog()
        running.run_stage(stage.captions, report)
        running.run_stage(stage, report, allow_gaps=1.0)

    serve(generate, log)


if __name__ == "__main__":
    main(*sys.argv[1:])
