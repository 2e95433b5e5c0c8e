"""The pieces of vision training: towers that agree, labels, batches, losses, scores."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

import numpy as np
import pytest

from embedded_world.captions import caption
from embedded_world.drawing import draw_batch
from embedded_world.recipes.caption_scores import attribute_accuracy, is_free_of_error
from embedded_world.recipes.clip_tokenizer import write_merges
from embedded_world.scenes import Thing, make_scene, sample_scenes

if TYPE_CHECKING:
    from torch import nn
    from transformers import Blip2VisionConfig

pytestmark = pytest.mark.slow


def random_tower(seed: int, kind: str = "shared") -> nn.Module:
    """A tower whose every weight is random, weights that start at zero or one included."""
    import torch
    from torch import nn

    from embedded_world.recipes.vision_tower import KINDS, new_tower

    torch.manual_seed(seed)
    tower = new_tower(KINDS[kind])
    for parameter in tower.parameters():
        nn.init.normal_(parameter, std=0.2)
    return tower.eval()


def test_converted_tower_gives_open_clips_tokens() -> None:
    import torch
    from transformers import Blip2VisionModel

    from embedded_world.recipes.blip2 import blip2_config
    from embedded_world.recipes.captioner_tokenizer import build_captioner_tokenizer
    from embedded_world.recipes.tower_conversion import blip2_vision_state

    tower = random_tower(0)
    config: Blip2VisionConfig = blip2_config(build_captioner_tokenizer()).vision_config
    converted = Blip2VisionModel(config).eval()
    converted.load_state_dict(blip2_vision_state(tower.state_dict()))
    images = torch.randn(3, 3, 96, 96)
    with torch.no_grad():
        _, tokens = tower(images)
        ours = converted(images).last_hidden_state[:, 1:]
    assert torch.allclose(ours, tokens, atol=1e-5)
    assert tokens.std() > 0.1, "a constant output would agree with anything"


def test_llavas_tower_gives_the_tokens_of_the_block_that_was_trained() -> None:
    import torch
    from transformers import CLIPVisionModel

    from embedded_world.recipes.llava import build_llava_tokenizer, llava_config
    from embedded_world.recipes.tower_conversion import clip_vision_state
    from embedded_world.recipes.vision_tower import KINDS, read_tower

    tower = random_tower(1, "llava")
    config = llava_config(build_llava_tokenizer())
    converted = CLIPVisionModel(config.vision_config).eval()
    converted.load_state_dict(clip_vision_state(tower.state_dict()))
    images = torch.randn(3, 3, 96, 96)
    with torch.no_grad():
        pooled, tokens = read_tower(tower, KINDS["llava"].tokens_of, images)
        out = converted(images, output_hidden_states=True)
        naive = tower._embeds(images)
        for block in tower.transformer.resblocks[:4]:
            naive = block(naive)
        whole, _ = tower(images)
    theirs = out.hidden_states[config.vision_feature_layer][:, 1:]
    assert torch.allclose(theirs, tokens, atol=1e-4 * float(tokens.abs().max()))
    assert torch.allclose(naive[:, 1:], tokens, atol=1e-4 * float(tokens.abs().max()))
    assert torch.allclose(
        out.pooler_output @ tower.proj, whole, atol=1e-4 * float(whole.abs().max())
    )
    assert torch.equal(pooled, whole)
    assert tokens.std() > 0.1, "a constant output would agree with anything"


def test_only_the_caption_and_its_end_are_predicted() -> None:
    from embedded_world.recipes.captioner_training import token_batch

    batch = token_batch([7, 7, 1], [[5, 6], [4]], pad=0, end=2)
    assert batch["input_ids"].tolist() == [[7, 7, 1, 5, 6, 2], [7, 7, 1, 4, 2, 0]]
    assert batch["labels"].tolist() == [[-100] * 3 + [5, 6, 2], [-100] * 3 + [4, 2, -100]]
    assert batch["attention_mask"].tolist() == [[1] * 6, [1] * 5 + [0]]


def test_cell_means_are_means_of_four_patches() -> None:
    import torch

    from embedded_world.recipes.scene_tensors import cell_means

    tokens = torch.randn(2, 36, 5)
    naive = torch.stack(
        [
            torch.stack(
                [tokens[:, (2 * r + i) * 6 + 2 * c + j] for i in range(2) for j in range(2)]
            ).mean(0)
            for r in range(3)
            for c in range(3)
        ],
        dim=1,
    )
    assert torch.allclose(cell_means(tokens), naive, atol=1e-6)


def test_labels_of_a_known_scene() -> None:
    from embedded_world.recipes.scene_tensors import SLOTS, labels

    scene = make_scene("beige", {4: Thing("large", "striped", "green", "star")})
    cells, grounds = labels([scene])
    assert cells[0, 4].tolist() == [4, 3, 1, 1]  # star is shape 3, and 0 means nothing
    assert cells[0, 0].tolist() == [0, -100, -100, -100]
    assert grounds.tolist() == [3]
    assert list(SLOTS) == ["shape", "colour", "size", "fill"]


def test_pixels_are_normalised_by_the_shipped_constants() -> None:
    from embedded_world.recipes.scene_tensors import to_tensor

    drawn = draw_batch(sample_scenes(Random(0), 2, held_out=True), np.random.default_rng(0))
    expected = (drawn.astype(np.float64) / 255 - 0.5) / 0.25
    assert np.allclose(to_tensor(drawn).numpy(), expected.transpose(0, 3, 1, 2), atol=1e-5)


def test_varied_captions_come_late() -> None:
    from embedded_world.recipes.blip2 import varied_share

    assert varied_share(0.2) == 0
    assert varied_share(0.45) == pytest.approx(0.5)
    assert varied_share(0.99) == 0.9


def test_cropped_text_encoding_is_open_clips(tmp_path: Path) -> None:
    import torch
    from open_clip.tokenizer import SimpleTokenizer

    from embedded_world.recipes.clip import encode_texts, new_clip
    from embedded_world.recipes.vision_tower import new_tower

    torch.manual_seed(1)
    tokenizer = SimpleTokenizer(str(write_merges(tmp_path)), context_length=77)
    model = new_clip(tokenizer.vocab_size, new_tower().state_dict()).eval()
    texts = [caption(s) for s in sample_scenes(Random(0), 20, held_out=True)]
    texts += ["a", "a photo of " + ", ".join(texts[:3])]  # the last one is cut at 77 tokens
    with torch.no_grad():
        whole = model.encode_text(tokenizer(texts))
        ours = encode_texts(model, tokenizer, texts)
    assert torch.allclose(ours, whole, atol=1e-5)


def test_contrastive_loss_is_the_mean_of_both_directions() -> None:
    import torch

    from embedded_world.recipes.clip import contrastive_loss

    images, texts = torch.randn(5, 7), torch.randn(5, 7)
    a = images / images.norm(dim=1, keepdim=True)
    b = texts / texts.norm(dim=1, keepdim=True)
    scores = 3.0 * a @ b.T
    rows = -torch.log_softmax(scores, 1).diag().mean()
    columns = -torch.log_softmax(scores, 0).diag().mean()
    assert contrastive_loss(images, texts, torch.tensor(3.0)) == pytest.approx(
        float(rows + columns) / 2, abs=1e-6
    )


def test_recall_counts_ties_against_the_right_one() -> None:
    import torch

    from embedded_world.recipes.vision_measures import recalls

    queries = torch.tensor([[1.0, 0], [0, 1], [1, 0]])
    gallery = torch.tensor([[1.0, 0], [1, 0.1], [2, 0]])
    # Query 0 ties with row 2; query 1 finds row 1; query 2 ties with row 0.
    assert recalls(queries, gallery, at=(1, 2)) == {
        "R@1": pytest.approx(1 / 3),
        "R@2": 1.0,
    }


def test_caption_scores_of_hand_made_captions() -> None:
    red = Thing("small", "solid", "red", "circle")
    blue = Thing("large", "striped", "blue", "star")
    scene = make_scene("white", {0: red, 4: blue})
    right = caption(scene)
    one_colour_off = right.replace("blue", "green")
    one_missing = caption(scene.put(4, None))
    accuracy = attribute_accuracy([right, one_colour_off, one_missing, "gibberish"], [scene] * 4)
    assert accuracy["colour"] == 4 / 8
    assert accuracy["shape"] == 5 / 8
    assert accuracy["background"] == 3 / 4
    assert accuracy["whole"] == 1 / 4
    verdicts = [is_free_of_error(t, scene) for t in (right, one_colour_off, one_missing)]
    assert verdicts == [True, False, True]  # leaving a thing out is allowed, inventing one is not
    assert not is_free_of_error(right, scene.put(4, None))
    assert not is_free_of_error("gibberish", scene)
