"""Names that people choose among and stages take; quick to import."""

from __future__ import annotations

from typing import Literal

CaptionKind = Literal["ensemble", "single", "instructcir"]
"""ensemble: the N captions of CVSI. single: the one caption of single-caption methods. instructcir:
the one caption that modification texts are written from."""
Which = Literal["missing", "failed", "stale"]
"""State of the images that a backfill captions."""
Within = Literal["meta_class", "collection"]
"""Pair images of one meta class, or any two of a collection."""
