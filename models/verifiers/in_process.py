"""What verifiers in this process share: groups of one query, and failures that stand alone."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final, TypeAlias, TypeVar

import torch

from models.metering import device_time
from models.verifiers.protocol import (
    Refused,
    Verification,
    VerificationRequest,
    VerificationStatus,
)

Request = TypeVar("Request")
Answer = TypeVar("Answer")
Requests: TypeAlias = Sequence[VerificationRequest]
VerifyBatch: TypeAlias = Callable[[Requests], list[Verification]]
"""One answer for each request of a batch, in order."""

_FAILURES: Final = (RuntimeError, ValueError, TypeError, OSError, MemoryError)
"""Errors that a bad picture, an odd text or a full memory raises."""


def of_one_query(requests: Iterable[VerificationRequest], most: int) -> Iterator[Requests]:
    """Requests of one query that follow each other, at most `most` together."""

    def query(request: VerificationRequest) -> tuple[str, str]:
        return request.reference_id, request.text

    for _, group in itertools.groupby(requests, query):
        while batch := list(itertools.islice(group, most)):
            yield batch


def verify_in_batches(
    batches: Iterable[Requests], verify_batch: VerifyBatch
) -> Iterator[Verification]:
    """Verifications in the order of the requests; see `in_batches`."""
    return in_batches(batches, verify_batch, _not_verified)


def in_batches(
    batches: Iterable[Sequence[Request]],
    answer_batch: Callable[[Sequence[Request]], list[Answer]],
    failed: Callable[[Request, VerificationStatus, str], Answer],
) -> Iterator[Answer]:
    """Answers in the order of the requests.

    A batch that fails is halved until the requests at fault stand alone; each of them is answered
    with the kind of its failure, and the others are not affected.

    Args:
        batches: The requests.
        answer_batch: One answer for each request of a batch, in order.
        failed: The answer to a request at fault, from its status and reason.
    """
    for batch in batches:
        yield from _answer_or_split(batch, answer_batch, failed)


def _not_verified(
    request: VerificationRequest, status: VerificationStatus, reason: str
) -> Verification:
    return Verification(request.key, None, None, "", status, reason)


def _answer_or_split(
    batch: Sequence[Request],
    answer_batch: Callable[[Sequence[Request]], list[Answer]],
    failed: Callable[[Request, VerificationStatus, str], Answer],
) -> Iterator[Answer]:
    status: VerificationStatus = "engine_error"
    reason = ""
    try:
        with device_time():
            answers = answer_batch(batch)
    except Refused as refusal:
        status, reason = refusal.status, str(refusal)
    except _FAILURES as failure:
        # Only the text is kept: the exception's traceback would hold the batch in memory.
        reason = f"{type(failure).__name__}: {str(failure).strip()[:300]}"
    if not reason:
        yield from answers
        return
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    if len(batch) == 1:
        yield failed(batch[0], status, reason)
        return
    half = len(batch) // 2
    yield from _answer_or_split(batch[:half], answer_batch, failed)
    yield from _answer_or_split(batch[half:], answer_batch, failed)
