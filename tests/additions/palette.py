"""Captions by colour alone: which plain colours most of a picture's pixels are nearest to.

It names no thing. It needs no checkpoint and tells pictures apart by their colours.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Final, Literal

from pydantic import Field

from models.captioners.seeds import stream_seed
from models.engine_settings import EngineSettings
from models.protocols import CaptionReply, CaptionSampling, Fingerprint

if TYPE_CHECKING:
    from PIL import Image

VERSION: Final = 1
"""Raised when the code gives other captions of the same pictures."""

COLOURS: Final = (
    *("black", "white", "gray", "red", "green", "blue"),
    *("yellow", "orange", "purple", "brown", "pink", "cyan"),
)
"""Names that PIL knows too."""

_SIDE: Final = 32


class PaletteSettings(EngineSettings):
    """Captions by colour alone, without a checkpoint."""

    engine: Literal["palette"] = "palette"
    colours: int = Field(3, ge=1, le=len(COLOURS))
    """Most colours that a caption names."""

    @property
    def fingerprint(self) -> Fingerprint:
        """Code version and number of colours."""
        return {"engine": "palette", "version": VERSION, "colours": self.colours}

    def load(self) -> PaletteCaptioner:
        """The captioner."""
        return PaletteCaptioner(self)


class PaletteCaptioner:
    """Names the colours of images; fulfils `models.protocols.Captioner`."""

    def __init__(self, settings: PaletteSettings) -> None:
        """Remember the settings."""
        self._settings = settings

    def caption(
        self, images: Iterable[tuple[str, Image.Image]], sampling: CaptionSampling
    ) -> Iterator[CaptionReply]:
        """Caption every (key, image) exactly once, in the order given.

        The greedy caption names the commonest colours; a sampled one draws them by their share.
        """
        for key, image in images:
            shares = colour_shares(image)
            captions = tuple(
                self._sampled(shares, stream_seed("caption", sampling.seed, key, index))
                if sampling.mode == "nucleus"
                else self._in_words([name for name, _ in shares.most_common()])
                for index in range(sampling.n)
            )
            yield CaptionReply(key, captions)

    def _sampled(self, shares: Counter[str], seed: int) -> str:
        drawn = random.Random(seed).choices(list(shares), weights=list(shares.values()), k=12)
        return self._in_words(list(dict.fromkeys(drawn)))

    def _in_words(self, names: list[str]) -> str:
        return f"a picture in {', '.join(names[: self._settings.colours])}"


def colour_shares(image: Image.Image) -> Counter[str]:
    """Named colour -> how many pixels of a small copy are nearest to it in RGB."""
    import numpy as np
    from PIL import ImageColor

    named = np.array([ImageColor.getrgb(name)[:3] for name in COLOURS])
    pixels = np.asarray(image.convert("RGB").resize((_SIDE, _SIDE)), dtype=np.int64)
    distances = ((pixels.reshape(-1, 1, 3) - named) ** 2).sum(axis=-1)
    return Counter(COLOURS[i] for i in distances.argmin(axis=1).tolist())
