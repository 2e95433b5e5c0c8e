"""A backbone as a value: its name, its weights and how it is run. Loading one is
`models.encoders.loading`; settings and stages name theirs without importing what that takes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from models.protocols import DTYPES, Dtype, PreprocessMode

CONFIG_FILE: Final = "open_clip_config.json"
BPE_FILE: Final = "bpe.txt.gz"

_SCHEMAS: Final = ("hf-hub", "local-dir")


@dataclass(frozen=True, slots=True)
class EncoderSpec:
    """A backbone as a value.

    Attributes:
        name: open_clip's name (`ViT-L-14`), `hf-hub:org/repo`, `local-dir:PATH`, or a directory.
        pretrained: open_clip's tag of the weights (`openai`, `laion2b_s39b_b160k`), a weight
            file, or `random:SEED` for an untrained network. Empty for hubs and directories.
        preprocess: `targetpad` or `clip`; see `models.encoders.preprocess`.
        pad_ratio: Ratio of sides from which `targetpad` pads.
        dtype: Precision of the towers; features come out in float32 in any case.
        device: `auto`, or a torch device.
        image_batch: Images in one forward pass.
    """

    name: str
    pretrained: str = ""
    preprocess: PreprocessMode = "targetpad"
    pad_ratio: float = 1.25
    dtype: Dtype = "fp32"
    device: str = "auto"
    image_batch: int = 64

    def __post_init__(self) -> None:
        """Refuse what no backbone can honour."""
        if self.dtype not in DTYPES:
            raise ValueError(f"dtype is {self.dtype!r}; one of {', '.join(DTYPES)}")
        if self.image_batch < 1:
            raise ValueError(f"image_batch is at least 1, not {self.image_batch}")
        if self.pretrained and schema_and_place(self.source)[0]:
            raise ValueError(
                f"{self.name!r} brings its own weights; leave `pretrained` empty, "
                f"not {self.pretrained!r}"
            )

    @property
    def source(self) -> str:
        """The name as open_clip understands it."""
        if schema_and_place(self.name)[0]:
            return self.name
        if Path(self.name, CONFIG_FILE).is_file():
            return f"local-dir:{self.name}"
        return self.name.replace("/", "-")

    @property
    def directory(self) -> Path | None:
        """The local directory the backbone lies in, if it does."""
        schema, place = schema_and_place(self.source)
        return Path(place) if schema == "local-dir" else None


def schema_and_place(name: str) -> tuple[str | None, str]:
    """A name such as `hf-hub:org/repo` in its two parts, as open_clip takes it apart.

    Returns:
        `hf-hub` or `local-dir` and what follows it; None and the whole of any other name.

    Raises:
        ValueError: Nothing follows.
    """
    schema, colon, place = name.partition(":")
    if not colon or schema not in _SCHEMAS:
        return None, name
    if not place:
        raise ValueError(f"{name!r} names no place; write {schema}:PLACE")
    return schema, place
