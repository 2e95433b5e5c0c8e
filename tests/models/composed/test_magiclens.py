"""MagicLens against the released formulas in numpy, open_clip's towers, and hand-worked losses."""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.checkpoints import UnusableCheckpoint
from models.composed.magiclens_settings import MagicLensSettings
from models.encoders.spec import EncoderSpec
from tests.fakes.flax_files import (
    DIM,
    HEADS,
    LAYERS,
    WIDE,
    Tree,
    fused,
    fusion,
    packed,
    scenic_clip,
    write_magiclens,
)
from tests.fakes.small_networks import TEXTS, pixels, write_clip


def random_clip() -> Any:
    """A CLIP of OpenAI's kind: heads of 64, QuickGELU."""
    import open_clip
    import torch

    torch.manual_seed(3)
    clip = open_clip.CLIP(
        embed_dim=DIM,
        quick_gelu=True,
        vision_cfg={"image_size": 32, "layers": 2, "width": 128, "patch_size": 16},
        text_cfg={"width": 128, "heads": 2, "layers": 2},
    ).eval()
    with torch.no_grad():
        for parameter in clip.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.02)
    return clip


@pytest.fixture(scope="module")
def clip() -> Any:
    return random_clip()


@pytest.fixture(scope="module")
def tree(clip: Any) -> Tree:
    state = {name: each.numpy() for name, each in clip.state_dict().items()}
    return fusion() | {"clip": scenic_clip(state, heads=2)}


def test_a_published_file_computes_the_released_formulas(
    clip: Any, tree: Tree, tmp_path: Path
) -> None:
    """Queries and gallery vectors, from the file and from our own folder of it."""
    import open_clip
    import torch

    from models.composed.checkpoint import load_composed, save_composed
    from models.composed.magiclens_files import published

    made = published(write_magiclens(tmp_path / "magic_lens.pkl", tree), MagicLensSettings())
    assert (made.settings.heads, made.settings.layers) == (HEADS, LAYERS)
    assert made.settings.feedforward == WIDE
    geometry = made.preprocess.config
    assert (geometry.resize_mode, geometry.interpolation) == ("squash", "bilinear")
    folder = tmp_path / "folder"
    save_composed(folder, "magiclens", made, made.settings, base={}, provenance={})
    again = load_composed(folder).network
    read = made.tokenised(TEXTS)
    with torch.no_grad():
        images = clip.encode_image(pixels(4)).numpy()
        texts = clip.encode_text(open_clip.tokenize(TEXTS)).numpy()
        (empty,) = clip.encode_text(open_clip.tokenize([""])).numpy()
        queries, targets = made.query(pixels(4), read), made.target(pixels(4))
        torch.testing.assert_close(again.query(pixels(4), read), queries, atol=1e-5, rtol=1e-5)
    for row in range(4):
        for found, text in ((queries, texts[row]), (targets, empty)):
            wanted = fused(tree, images[row], text)
            np.testing.assert_allclose(found[row].numpy(), wanted, atol=2e-4, rtol=2e-4)


def without(tree: Tree, *names: str) -> Tree:
    """A tree that lacks an entry."""
    first, *rest = names
    if not rest:
        return {name: each for name, each in tree.items() if name != first}
    return tree | {first: without(tree[first], *rest)}


def changed(tree: Tree, value: Any, *names: str) -> Tree:
    """A tree with another entry."""
    first, *rest = names
    return tree | {first: changed(tree[first], value, *rest) if rest else value}


def msgpack_of(told: Any) -> bytes:
    """One array, of whatever is told."""
    import msgpack

    return bytes(msgpack.packb({"a": msgpack.ExtType(1, msgpack.packb(told))}))


def in_heads(tree: Tree, heads: int, *names: str) -> bytes:
    """A tree whose entry (d, N, h) has as many numbers in other heads."""
    entry: Any = tree
    for name in names:
        entry = entry[name]
    return packed(changed(tree, entry.reshape(len(entry), heads, -1), *names))


_POOLER = "contrastive_multimodal_pooler"
_LAYER_1 = ("multimodal_encoder", "x_layers_1")
_CLIP_ATTENTION = ("clip", "visual", "transformer", "resblocks_0", "attn")
FAULTS: dict[str, tuple[Callable[[Tree], bytes], str]] = {
    "cut off": (lambda tree: pickle.dumps(packed(tree))[:-400], "cannot be read as parameters"),
    "a call": (lambda tree: pickle.dumps(print), "holds more than bytes"),
    "two values": (lambda tree: pickle.dumps((b"a", b"b")), "holds more than bytes"),
    "a number": (lambda tree: packed({"params": {"a": 3}}), "a holds int and not parameters"),
    "whole numbers": (
        lambda tree: packed({"a": np.ones(3, np.int64)}),
        "an array of 'int64' is none of float32",
    ),
    "fewer bytes": (
        lambda tree: packed({"a": np.ones(3, np.float32)}).replace(b"\x91\x03", b"\x91\xff"),
        r"an array of float32 \[-1\] has 12 bytes",
    ),
    "far layers": (
        lambda tree: packed(
            tree
            | {
                "multimodal_encoder": {
                    f"x_layers_{number}": tree["multimodal_encoder"][f"x_layers_{place}"]
                    for place, number in enumerate((0, 10**6))
                }
            }
        ),
        "layers 0, 1000000 of multimodal_encoder",
    ),
    "heads that do not fit": (
        lambda tree: packed(
            tree
            | {
                "multimodal_encoder": {
                    "x_layers_0": {
                        **tree["multimodal_encoder"]["x_layers_0"],
                        "self_attention": {"query": {"w": np.ones((24, 5, 4), np.float32)}},
                    }
                }
            }
        ),
        "has 5 heads, which do not divide",
    ),
    "heads of one layer": (
        lambda tree: in_heads(tree, 3, *_LAYER_1, "self_attention", "query", "w"),
        "x_layers_1.self_attention.query.w has heads of 8 numbers and not of 12",
    ),
    "heads of the pooling": (
        lambda tree: in_heads(tree, 4, _POOLER, "pool_attn", "post", "w"),
        "pool_attn.post.w has heads of 24 numbers and not of 48",
    ),
    "heads of the towers": (
        lambda tree: in_heads(tree, 4, *_CLIP_ATTENTION, "key", "kernel"),
        "attn.key.kernel has heads of 32 numbers and not of 64",
    ),
    "keys of another width": (
        lambda tree: packed(
            changed(tree, np.ones((64, 2, 64), np.float32), *_CLIP_ATTENTION, "key", "kernel")
        ),
        "have the shapes .*, which differ",
    ),
    "our own name": (
        lambda tree: packed(
            without(tree, _POOLER, "pooling_attn_query")
            | {"asked": tree[_POOLER]["pooling_attn_query"]}
        ),
        "holds asked, which MagicLens has no place for",
    ),
    "a number of a layer that is too long": (
        lambda tree: packed(
            changed(
                tree,
                {"w": np.ones(1, np.float32)},
                "multimodal_encoder",
                "x_layers_" + "9" * 5000,
            )
        ),
        "which MagicLens has no place for",
    ),
    "two of one name": (
        lambda tree: packed(
            tree | {f"{_POOLER}.pooling_attn_query": tree[_POOLER]["pooling_attn_query"]}
        ),
        "two arrays of one name",
    ),
    "numbers and not bytes": (
        lambda tree: msgpack_of([[4], "float32", [0] * 16]),
        "an array holds list and not bytes",
    ),
    "no towers": (lambda tree: packed(without(tree, "clip")), "positional_embedding"),
    "no key": (
        lambda tree: packed(
            without(tree, "clip", "visual", "transformer", "resblocks_1", "attn", "key")
        ),
        "lacks key of visual.transformer.resblocks.1.attn",
    ),
    "no scales": (
        lambda tree: packed(
            without(tree, "contrastive_multimodal_pooler", "pool_attn", "per_dim_scale")
        ),
        "pooling.scales",
    ),
    "one more": (lambda tree: packed(tree | {"head": {"w": np.ones(3, np.float32)}}), "head.w"),
    "not finite": (
        lambda tree: packed(tree | {"clip": tree["clip"] | {"logit_scale": np.float32(np.nan)}}),
        "finite",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_file_that_is_damaged_or_another_one_is_refused(
    fault: str, tree: Tree, tmp_path: Path
) -> None:
    from models.composed.magiclens_files import published

    write, message = FAULTS[fault]
    file = tmp_path / "magic_lens.pkl"
    file.write_bytes(write(tree))
    with pytest.raises(UnusableCheckpoint, match=message):
        published(file, MagicLensSettings())


def test_a_folder_is_refused(tmp_path: Path) -> None:
    from models.composed.magiclens_files import published

    with pytest.raises(UnusableCheckpoint, match="is not a file; give the published file"):
        published(tmp_path, MagicLensSettings())


def test_others_without_ids_are_refused() -> None:
    import torch

    from models.training.contrastive import nce

    rows = torch.eye(2)
    with pytest.raises(ValueError, match="give target_ids too"):
        nce(rows, rows, 1.0, others=(rows, torch.arange(2)))


def take_share(share: slice) -> tuple[float, Any]:
    """Loss and gradients of queries, targets and others for some rows of a batch of four."""
    import torch

    from models.training.contrastive import nce

    generator = torch.Generator().manual_seed(0)
    whole = torch.randn(3, 4, 5, generator=generator)
    own = whole[:, share].clone().requires_grad_()
    target_ids, other_ids = torch.tensor([7, 8, 7, 9]), torch.tensor([1, 9, 8, 2])
    loss = nce(own[0], own[1], 3.0, target_ids[share], others=(own[2], other_ids[share]))
    loss.backward()
    return loss.item(), own.grad


def in_process(rank: int, folder: Path) -> None:
    """One of two real processes, which talk over gloo."""
    import torch
    from torch import distributed

    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder / 'meeting'}", rank=rank, world_size=2
    )
    torch.save(take_share(slice(2 * rank, 2 * rank + 2)), folder / f"rank{rank}.pt")
    distributed.destroy_process_group()


@pytest.mark.slow
def test_further_negatives_of_two_processes_equal_those_of_one(tmp_path: Path) -> None:
    """A process's gradient of its own rows is that of the sum of both losses."""
    import torch
    from torch import multiprocessing

    multiprocessing.spawn(in_process, (tmp_path,), nprocs=2)
    ranks = [torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in (0, 1)]
    loss, gradients = take_share(slice(None))
    assert sum(found for found, _ in ranks) / 2 == pytest.approx(loss, abs=1e-6)
    both = torch.cat([found for _, found in ranks], dim=1) / 2
    torch.testing.assert_close(both, gradients, atol=1e-6, rtol=1e-5)


def network(folder: Path, **settings: Any) -> Any:
    from models.composed.magiclens_network import build

    spec = EncoderSpec(name=str(write_clip(folder)), preprocess="clip", device="cpu")
    own = {"heads": 4, "layers": 1, "feedforward": 16, "scale": 10.0}
    return build(spec, MagicLensSettings(**own | settings), seed=0)


@pytest.mark.parametrize("negatives", [True, False])
def test_references_without_a_text_are_negatives(tmp_path: Path, negatives: bool) -> None:
    """The loss by hand; a reference that is the query's own target is left out."""
    import torch

    made = network(tmp_path / "clip", query_negatives=negatives)
    batch = {
        "references": pixels(3),
        "targets": pixels(3, seed=2),
        "target_ids": torch.tensor([7, 8, 7]),
        "reference_ids": torch.tensor([1, 7, 2]),
        **made.tokenised(TEXTS[:3]),
    }
    with torch.no_grad():
        unit = torch.nn.functional.normalize
        queries = unit(made.query(batch["references"], batch), dim=-1).double()
        targets = unit(made.target(batch["targets"]), dim=-1).double()
        others = unit(made.target(batch["references"]), dim=-1).double()
        losses = []
        for row in range(3):
            own, same = 10 * queries[row] @ targets[row], batch["target_ids"][row]
            chosen = [own]
            chosen += [
                10 * queries[row] @ targets[column]
                for column in range(3)
                if column != row and batch["target_ids"][column] != same
            ]
            if negatives:
                chosen += [
                    10 * queries[row] @ others[column]
                    for column in range(3)
                    if batch["reference_ids"][column] != same
                ]
            losses.append(torch.logsumexp(torch.stack(chosen), 0) - own)
        found = made.loss(batch)
    assert found.item() == pytest.approx(torch.stack(losses).mean().item(), abs=1e-5)


@pytest.mark.parametrize("trained", ["both", "neither"])
def test_what_is_trained(tmp_path: Path, trained: str) -> None:
    import torch

    made = network(tmp_path / "clip", trained=trained).train()
    batch = {
        "references": pixels(3),
        "targets": pixels(3, seed=2),
        "target_ids": torch.arange(3),
        "reference_ids": torch.arange(3, 6),
        **made.tokenised(TEXTS[:3]),
    }
    made.loss(batch).backward()
    assert all(parameter.grad is not None for parameter in made.head.parameters())
    moved = {
        name.split(".")[1]
        for name, parameter in made.named_parameters()
        if name.startswith("towers.") and parameter.grad is not None
    }
    assert moved == ({"image", "text"} if trained == "both" else set())
    with pytest.raises(ValueError, match="heads is 5, which does not divide"):
        network(tmp_path / "other", heads=5)


def _saved(zipped: bool) -> bytes:
    import torch

    file = io.BytesIO()
    torch.save({"a": torch.ones(2)}, file, _use_new_zipfile_serialization=zipped)
    return file.getvalue()


def _archive() -> bytes:
    file = io.BytesIO()
    np.savez(file, a=np.ones(2))
    return file.getvalue()


def _safetensors() -> bytes:
    from safetensors.numpy import save

    return save({"a": np.ones(2, np.float32)})


@pytest.mark.parametrize(
    ("written", "given"),
    [
        (lambda: _saved(zipped=True), r"is a file of PyTorch \(a ZIP archive\)"),
        (lambda: _saved(zipped=False), r"is a file of PyTorch \(several pickles\)"),
        (_archive, "is a ZIP archive"),
        (lambda: _saved(zipped=True)[:200], "is a ZIP archive"),  # cut off
        (_safetensors, "is a file of safetensors"),
    ],
)
def test_a_file_of_another_kind_is_named_by_its_first_bytes(
    written: Callable[[], bytes], given: str, tmp_path: Path
) -> None:
    from models.composed.magiclens_files import published

    file = tmp_path / "magic_lens.pkl"
    file.write_bytes(written())
    with pytest.raises(UnusableCheckpoint, match=f"{given} and not parameters of Flax") as refused:
        published(file, MagicLensSettings())
    assert "magic_lens.pkl" in str(refused.value)
    assert str(refused.value).endswith("give the published file itself")
