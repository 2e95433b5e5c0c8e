"""Run every benchmark, one after the other: `python -m bench`, or `make bench`."""

from bench import (
    caption_encoding,
    image_embedding,
    orchestration,
    reformulation_gpu,
    reformulation_step,
    scoring,
    search,
)

for each in (scoring, search, caption_encoding, image_embedding, reformulation_step, orchestration):
    each.main()
reformulation_gpu.main_where_possible()
