"""CompoDiff in use: from reference features and texts to sampled query features."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import numpy as np
import torch

from models.compodiff.checkpoint import LoadedDenoiser
from models.compodiff.folder import CompoDiffError
from models.compodiff.sampling import sampled
from models.compodiff.schedule import NoiseSchedule
from models.compodiff.settings import SamplingSettings
from models.compodiff.token_states import TextSource
from models.compodiff.units import in_units
from models.metering import device_time
from models.spelling import agreed

if TYPE_CHECKING:
    from models.protocols import FloatArray

_QUERIES_PER_BATCH: Final = 256


class CompoDiffEncoder:
    """A denoiser with the text encoder that it was trained on."""

    def __init__(self, loaded: LoadedDenoiser, texts: TextSource, device: torch.device) -> None:
        """Join both.

        Raises:
            CompoDiffError: The denoiser reads texts of another encoder.
        """
        shape = loaded.denoiser.shape
        if texts.width != shape.text_width:
            raise CompoDiffError(
                f"the denoiser reads token states of width {shape.text_width}, this text encoder "
                f"gives {texts.width}; name the one that it was trained on (compodiff.text_model)"
            )
        self._denoiser = loaded.denoiser.to(device)
        self._schedule = NoiseSchedule(loaded.settings.timesteps).to(device)
        self._units = loaded.settings.features
        self._texts = texts
        self._device = device

    def queries(
        self, references: FloatArray, texts: Sequence[str], how: SamplingSettings
    ) -> FloatArray:
        """Query features: sampled, with a share of the reference's own feature.

        Args:
            references: (B, d) features of the reference images, as the backbone encodes them.
            texts: B modification texts.
            how: Of sampling.

        Returns:
            (B, d) float32, not normalised.

        Raises:
            CompoDiffError: The features are of another width: another backbone's.
        """
        dim = self._denoiser.shape.dim
        if references.shape != (len(texts), dim):
            raise CompoDiffError(
                f"the denoiser reads image features of width {dim} for {len(texts)} "
                f"{agreed(len(texts), 'text')}, these are {references.shape}; use the backbone "
                "that it was trained on"
            )
        made = np.empty((len(texts), dim), dtype=np.float32)
        with torch.inference_mode(), device_time():
            for start in range(0, len(texts), _QUERIES_PER_BATCH):
                rows = slice(start, start + _QUERIES_PER_BATCH)
                made[rows] = self._batch(references[rows], texts[rows], how)
        return made

    def _batch(
        self, references: FloatArray, texts: Sequence[str], how: SamplingSettings
    ) -> FloatArray:
        given = torch.from_numpy(np.ascontiguousarray(references, dtype=np.float32))
        read = in_units(given.to(self._device), self._units)
        # Together, so that both have one length.
        states = self._texts.states([how.negative_text, *texts])
        negative, text = states.part(slice(1)).repeated(len(texts)), states.part(slice(1, None))
        made = sampled(self._denoiser, self._schedule, read, text, negative, how)
        mixed = (1 - how.reference_share) * made + how.reference_share * read
        found: FloatArray = mixed.float().cpu().numpy()
        return found
