"""The errors of benchmark files, one type for each kind."""

from __future__ import annotations


class BenchmarkError(ValueError):
    """Base of all errors that a benchmark's files, or a user's choices about them, can cause."""


class AnnotationError(BenchmarkError):
    """An annotation file is absent, unreadable, or not in the benchmark's published form."""


class MissingImages(BenchmarkError):
    """Images that the gallery or the queries need are not on disk and gaps are not allowed."""


class PredictionError(BenchmarkError):
    """A predictions file cannot be scored as it stands."""


class HiddenTargets(BenchmarkError):
    """The split's targets are not public, so nothing can be scored here."""


class SubmissionError(BenchmarkError):
    """A submission would be rejected by the benchmark's server, so it is not written."""
