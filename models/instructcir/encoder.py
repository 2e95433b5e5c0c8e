"""A trained network as an encoder of queries and galleries: arrays in float32, not normalised."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple, get_args

import numpy as np
import torch
from torch.nn import functional

from models.devices import autocast_of, pick_device
from models.encoders.feeding import encoded
from models.instructcir.folder import features_fingerprint
from models.instructcir.network import TextContext
from models.instructcir.training_settings import Branch
from models.metering import device_time
from models.protocols import DTYPES, Dtype
from models.reordered import Reordered
from models.spelling import agreed

if TYPE_CHECKING:
    from PIL import Image

    from models.instructcir.checkpoint import LoadedNetwork
    from models.instructcir.combiner import Combiner
    from models.protocols import FloatArray


class QueryFeatures(NamedTuple):
    """Features of queries, float32 and not normalised.

    Attributes:
        z: (B, d) the query embedding.
        text: (B, d) e_T, the pure text embedding.
        image: (B, d) the reference image with the null text, by the queries' branch;
            combiners call it `image_null`. None where it was not asked for.
    """

    z: FloatArray
    text: FloatArray
    image: FloatArray | None


class ReformulationEncoder:
    """Encodes queries by one branch, and galleries by the moving average with the null text.

    A gallery is encoded in batches of one size, the last one filled up, with the null text's
    keys and values computed once.
    """

    def __init__(
        self,
        loaded: LoadedNetwork,
        branch: Branch = "online",
        device: str = "auto",
        dtype: Dtype = "fp32",
        batch_size: int = 64,
    ) -> None:
        """Bring a loaded checkpoint to a device.

        Args:
            loaded: The checkpoint.
            branch: The weights that embed queries: the trained ones (`online`) or their average
                (`ema`).
            device: `auto`, or a torch device.
            dtype: Precision of the computation; weights, layer norms and the head stay in fp32.
            batch_size: Images in one forward pass.

        Raises:
            ValueError: A value that is not allowed.
        """
        if branch not in get_args(Branch):
            raise ValueError(f"branch is {branch!r}; one of {', '.join(get_args(Branch))}")
        if dtype not in DTYPES:
            raise ValueError(f"dtype is {dtype!r}; one of {', '.join(DTYPES)}")
        if batch_size < 1:
            raise ValueError(f"batch_size is at least 1, not {batch_size}")
        self._device = pick_device(device)
        chosen = loaded.online if branch == "online" else loaded.target
        self._queries = chosen.to(self._device)
        self._gallery = loaded.target.to(self._device)
        self._dtype: Dtype = dtype
        self._batch = batch_size
        self.fingerprint = features_fingerprint(loaded.fingerprint, branch, dtype)

    @property
    def dim(self) -> int:
        """Width d of the joint space."""
        return self._queries.dim

    @device_time()
    def encode_gallery(self, images: Sequence[Image.Image], threads: int = 0) -> FloatArray:
        """Target embeddings (B, d); an embedding does not depend on its batch.

        Args:
            images: B pictures.
            threads: Pictures prepared at a time; 0: one a core.
        """
        if not len(images):
            return np.zeros((0, self.dim), dtype=np.float32)
        with torch.inference_mode(), self._precision():
            null = self._gallery.constant_null_text()

            def target(pixels: torch.Tensor, start: int) -> torch.Tensor:
                full = functional.pad(pixels, (0, 0, 0, 0, 0, 0, 0, self._batch - len(pixels)))
                return self._gallery.target(full, null)[: len(pixels)]

            return self._encoded(images, target, threads)

    @device_time()
    def encode_queries(
        self,
        images: Sequence[Image.Image],
        texts: Sequence[str],
        keys: Sequence[str] | None = None,
        *,
        with_image: bool = True,
        threads: int = 0,
    ) -> QueryFeatures:
        """Embed reference images under modification texts.

        Texts are sorted by length inside, so that little padding is computed, and the results
        are in the order given.

        Args:
            images: B pictures; a sequence that decodes on access is indexed once per query.
            texts: B modification texts. An empty one is read as an empty text: that is the null
                text with `null_text="empty"`, and not the learned one.
            keys: B names of the images: the null-text embedding of images with one name is
                computed once. Left out, every image is its own.
            with_image: Whether the null-text embedding is computed, a further pass of the image
                tower for each image.
            threads: Pictures prepared at a time; 0: one a core.

        Raises:
            ValueError: The arguments are of different lengths.
        """
        names = range(len(images)) if keys is None else keys
        if not len(images) == len(texts) == len(names):
            pictures = f"{len(images)} {agreed(len(images), 'image')}"
            said = f"{len(texts)} {agreed(len(texts), 'text')}"
            named = f"{len(names)} {agreed(len(names), 'key')}"
            raise ValueError(f"{pictures}, {said} and {named} do not pair up")
        tokens = self._queries.parts.tokens
        order = sorted(range(len(texts)), key=lambda i: len(tokens.row(texts[i]).ids))
        both = np.zeros((len(texts), 2 * self.dim), dtype=np.float32)
        z, text = both[:, : self.dim], both[:, self.dim :]
        if not len(texts):
            return QueryFeatures(z, text, z if with_image else None)
        place: dict[int | str, int] = {}
        plain: list[torch.Tensor] = []
        with torch.inference_mode(), self._precision():
            null = self._queries.constant_null_text()

            def query(pixels: torch.Tensor, start: int) -> torch.Tensor:
                rows = order[start : start + len(pixels)]
                read = self._queries.attend(pixels, self._read([texts[i] for i in rows]))
                fresh = {names[i]: at for at, i in enumerate(rows) if names[i] not in place}
                if with_image and fresh:
                    place.update(
                        zip(fresh, range(len(place), len(place) + len(fresh)), strict=True)
                    )
                    plain.append(self._queries.target(pixels[list(fresh.values())], null).float())
                return torch.cat([read.z.float(), read.text.float()], dim=1)

            both[order] = self._encoded(Reordered(images, order), query, threads)
            if not with_image:
                return QueryFeatures(z, text, None)
            image = torch.cat(plain).cpu().numpy()[[place[name] for name in names]]
        return QueryFeatures(z, text, image)

    def _read(self, texts: Sequence[str]) -> TextContext:
        """The texts of a batch, each distinct one read once."""
        distinct = list(dict.fromkeys(texts))
        ids = self._queries.text_ids(distinct).to(self._device)
        read = self._queries.read(ids)
        place = {text: row for row, text in enumerate(distinct)}
        rows = torch.tensor([place[text] for text in texts], device=self._device)
        mask = None if read.mask is None else read.mask[rows]
        return TextContext(read.sequence[rows], mask, read.pooled[rows])

    def _encoded(
        self,
        images: Sequence[Image.Image],
        encode: Callable[[torch.Tensor, int], torch.Tensor],
        threads: int,
    ) -> FloatArray:
        return encoded(
            images,
            encode,
            preprocess=self._queries.parts.preprocess,
            batch=self._batch,
            device=self._device,
            threads=threads,
        )

    def _precision(self) -> torch.autocast:
        return autocast_of(self._device, self._dtype)


@device_time()
def combine_features(combiner: Combiner, features: QueryFeatures) -> FloatArray:
    """The combiner's (B, d) float32 vectors of encoded queries, L2-normalised."""
    with torch.inference_mode():
        tensors = (
            None if each is None else torch.from_numpy(np.ascontiguousarray(each))
            for each in features
        )
        return combiner.combine(*tensors).numpy()
