"""Run every benchmark, one after the other: `python -m bench`, or `make bench`."""

from bench import caption_encoding, image_embedding, scoring, search

for each in (scoring, search, caption_encoding, image_embedding):
    each.main()
