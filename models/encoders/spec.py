"""A backbone as a value: its name, its weights and how it is run. Loading one is
`models.encoders.loading`; settings and stages name theirs without importing what that takes."""

from __future__ import annotations

from pathlib import Path
from typing import Final, Self

from pydantic import Field, model_validator

from models.devices import precision_of
from models.protocols import AutoDtype, DeviceName, Dtype, PreprocessMode
from models.settings import Settings

CONFIG_FILE: Final = "open_clip_config.json"
BPE_FILE: Final = "bpe.txt.gz"

_SCHEMAS: Final = ("hf-hub", "local-dir")


class EncoderSpec(Settings):
    """A backbone as a value."""

    name: str
    """open_clip's name (`ViT-L-14`), `hf-hub:org/repo`, `local-dir:PATH`, or a directory."""
    pretrained: str = ""
    """open_clip's tag of the weights (`openai`, `laion2b_s39b_b160k`), a weight file, or
    `random:SEED` for an untrained network. Hubs and directories bring their own."""
    preprocess: PreprocessMode = "targetpad"
    """`targetpad` or `clip`; see `models.encoders.preprocess`."""
    pad_ratio: float = Field(1.25, ge=1)
    """Ratio of sides from which `targetpad` pads."""
    dtype: AutoDtype = "fp32"
    """Precision of the towers; features come out in fp32 in any case. auto is bf16 on a GPU and
    fp32 elsewhere."""
    device: DeviceName = "auto"
    """`auto`, or a torch device."""
    image_batch: int = Field(64, ge=1)
    """Images in one forward pass."""
    channels_last: bool = False
    """Keep pixels and convolutions of the image tower with channels last; worth a try for ResNets
    and ConvNeXts. Features differ in rounding alone, so that identities leave it out."""
    compile: bool = False
    """Run the image tower through `torch.compile`: it pays for large galleries, since compiling
    takes a minute. Features differ in rounding alone, so that identities leave it out."""

    @model_validator(mode="after")
    def _brings_weights_once(self) -> Self:
        if self.pretrained and schema_and_place(self.source)[0]:
            raise ValueError(
                f"{self.name!r} brings its own weights; leave `pretrained` empty, "
                f"not {self.pretrained!r}"
            )
        return self

    @property
    def precision(self) -> Dtype:
        """The precision that `dtype` means on the device; identities hold it."""
        return precision_of(self.dtype, self.device)

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
