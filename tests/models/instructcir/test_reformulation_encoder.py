"""Queries and galleries as arrays, whatever the batches."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from models.instructcir.settings import EmaSettings

if TYPE_CHECKING:
    import torch

    from models.instructcir.checkpoint import LoadedNetwork
    from models.instructcir.encoder import ReformulationEncoder

TEXTS = ["make it blue", "", "a large red star on top of two small green circles", "brighter"]


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> LoadedNetwork:
    import torch

    from models.instructcir.checkpoint import LoadedNetwork
    from models.instructcir.ema import EmaTarget
    from tests.fakes.small_networks import small_network, write_clip

    online = small_network(write_clip(tmp_path_factory.mktemp("clip")))
    average = EmaTarget(online, EmaSettings(start=0.5, end=0.5))
    with torch.no_grad():
        for parameter in online.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    average.update(online, 0, 1)
    frozen = online.eval().requires_grad_(False)
    return LoadedNetwork(frozen, average.network, None, {"network": "test"}, {})


def pictures(count: int) -> list[Image.Image]:
    random = np.random.default_rng(0)
    return [
        Image.fromarray(random.integers(0, 256, (40 + i, 50, 3), dtype=np.uint8))
        for i in range(count)
    ]


def encoder(loaded: LoadedNetwork, **options: Any) -> ReformulationEncoder:
    from models.instructcir.encoder import ReformulationEncoder

    return ReformulationEncoder(loaded, device="cpu", **options)


def one_pixels(loaded: LoadedNetwork, picture: Image.Image) -> torch.Tensor:
    return next(iter(loaded.online.parts.preprocess.batches([picture], 1)))


def test_gallery_equals_the_averages_target_path(loaded: LoadedNetwork) -> None:
    import torch

    images = pictures(7)
    got = encoder(loaded, batch_size=3).encode_gallery(images)
    with torch.no_grad():
        expected = torch.cat([loaded.target.target(one_pixels(loaded, p)) for p in images])
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, expected.numpy(), atol=1e-5)


def test_an_image_has_one_embedding_in_any_batch(loaded: LoadedNetwork) -> None:
    """Exactly: bit for bit, in any company and any place, the last batch filled up or not."""
    images = pictures(11)
    one = encoder(loaded, batch_size=4)
    whole = one.encode_gallery(images)
    for seed in range(4):
        order = np.random.default_rng(seed).permutation(11)
        np.testing.assert_array_equal(one.encode_gallery([images[i] for i in order]), whole[order])
    for i in (0, 6, 10):
        np.testing.assert_array_equal(one.encode_gallery([images[i]])[0], whole[i])
    one.encode_queries(images[:4], TEXTS)
    np.testing.assert_array_equal(one.encode_gallery(images), whole)


@pytest.mark.parametrize("branch", ["online", "ema"])
def test_queries_equal_one_by_one(loaded: LoadedNetwork, branch: str) -> None:
    import torch

    images, keys = pictures(3), ["a", "b", "c", "a", "b", "a", "c"]
    queries = [images["abc".index(key)] for key in keys]
    texts = [*TEXTS, *TEXTS[:3]]
    network = loaded.online if branch == "online" else loaded.target
    one = encoder(loaded, branch=branch, batch_size=3)
    got = one.encode_queries(queries, texts, keys)
    for row, (picture, text) in enumerate(zip(queries, texts, strict=True)):
        with torch.no_grad():
            pixels = one_pixels(loaded, picture)
            expected = network.query(pixels, network.text_ids([text]))
            plain = network.target(pixels)
        np.testing.assert_allclose(got.z[row], expected.z[0], atol=1e-5)
        np.testing.assert_allclose(got.text[row], expected.text[0], atol=1e-5)
        assert got.image is not None
        np.testing.assert_allclose(got.image[row], plain[0], atol=1e-5)
    unnamed = one.encode_queries(queries, texts)
    for named, other in zip(got, unnamed, strict=True):
        assert named is not None
        np.testing.assert_allclose(other, named, atol=1e-5)


def test_an_image_is_decoded_once_per_query_and_null_texts_once_per_image(
    loaded: LoadedNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[int] = []
    encoded: list[int] = []

    class Lazy(list[Image.Image]):
        def __getitem__(self, index: Any) -> Any:
            decoded.append(index)
            return super().__getitem__(index)

    plain = type(loaded.online).target

    def counted(self: Any, pixels: torch.Tensor, null: Any = None) -> torch.Tensor:
        encoded.append(len(pixels))
        return plain(self, pixels, null)

    monkeypatch.setattr(type(loaded.online), "target", counted)
    images = Lazy([*pictures(2), *pictures(2)])
    encoder(loaded, batch_size=3).encode_queries(images, TEXTS, ["a", "b", "a", "b"])
    assert sorted(decoded) == [0, 1, 2, 3]
    assert sum(encoded) == 2
    bare = encoder(loaded, batch_size=3).encode_queries(images, TEXTS, with_image=False)
    assert bare.image is None
    assert sum(encoded) == 2  # and none where nobody asks


def test_lower_precision_is_near(loaded: LoadedNetwork) -> None:
    images = pictures(3)
    exact = encoder(loaded).encode_gallery(images)
    for dtype in ("bf16", "fp16"):
        rough = encoder(loaded, dtype=dtype).encode_gallery(images)
        cosine = (rough * exact).sum(1) / np.linalg.norm(rough, axis=1)
        assert (cosine / np.linalg.norm(exact, axis=1)).min() > 0.999
        assert not np.array_equal(rough, exact)


def test_fingerprint_names_what_changes_features(loaded: LoadedNetwork) -> None:
    prints = [
        encoder(loaded).fingerprint,
        encoder(loaded, branch="ema").fingerprint,
        encoder(loaded, dtype="bf16").fingerprint,
    ]
    assert len({str(each) for each in prints}) == 3
    assert encoder(loaded, batch_size=2).fingerprint == prints[0]
    assert prints[0]["network"] == "test"


def test_nothing_gives_nothing(loaded: LoadedNetwork) -> None:
    assert encoder(loaded).encode_gallery([]).shape == (0, 24)
    nothing = encoder(loaded).encode_queries([], [])
    assert [each.shape for each in nothing if each is not None] == [(0, 24)] * 3


def test_wrong_arguments(loaded: LoadedNetwork) -> None:
    with pytest.raises(ValueError, match="online, ema"):
        encoder(loaded, branch="offline")
    with pytest.raises(ValueError, match="fp32, bf16, fp16"):
        encoder(loaded, dtype="int8")
    with pytest.raises(ValueError, match="at least 1"):
        encoder(loaded, batch_size=0)
    with pytest.raises(ValueError, match="2 images, 1 text"):
        encoder(loaded).encode_queries(pictures(2), ["a"])
