"""What verifiers say of candidates: what the tables of all ways of asking share."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from models.verifiers.settings import VerifierSettings
from storage.collections.decoding import ImageProblem
from tasks.settings import PictureSettings
from tasks.stages.candidates import CandidateStage
from tasks.stages.decoded import decoded
from tasks.stages.verdicts import Verdicts

if TYPE_CHECKING:
    from PIL import Image


class LookStage(CandidateStage):
    """A verifier's answers about the best images of every query."""

    streams: ClassVar[bool] = True

    verifier: VerifierSettings

    @property
    def said(self) -> dict[str, Any]:
        """What tells its rankings from those of the mode `pointwise`."""
        return {}

    @property
    @abstractmethod
    def calls_of_a_query(self) -> float:
        """Questions to the verifier that a query needs, on average."""

    @abstractmethod
    def read(self) -> Verdicts:
        """The verdicts of all candidates."""

    def failures(self) -> dict[str, Any]:
        """What a result says of failed verdicts besides their number."""
        return {}


def shown_to(
    verifier: VerifierSettings, pictures: PictureSettings, data: Mapping[str, bytes]
) -> tuple[dict[str, Image.Image], dict[str, ImageProblem]]:
    """Pictures as a verifier is shown them, and what is wrong with the other files.

    Args:
        verifier: The verifier.
        pictures: How files become pictures; each file is decoded once.
        data: Image id -> file.

    Returns:
        Image id -> picture, and image id -> problem.
    """
    side = verifier.picture_side if pictures.draft else None
    problems: dict[str, ImageProblem] = {}
    return dict(decoded(iter(data.items()), problems, pictures, side)), problems
