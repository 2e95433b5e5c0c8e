"""Vocabularies, phrases, and the concepts that are nearest to an image."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from models.protocols import SplicedText
from models.textual_inversion.concepts import (
    ConceptError,
    read_concepts,
    read_phrases,
    spliced_phrase,
    usable,
)


def test_a_vocabulary_is_a_name_a_line_or_open_images_classes(tmp_path: Path) -> None:
    lines = tmp_path / "names.txt"
    lines.write_text("\ufeff cat \n\nred   hat\ncat\n", encoding="utf-8")
    assert read_concepts(lines) == ("cat", "red hat")
    classes = tmp_path / "classes.csv"
    classes.write_text('LabelName,DisplayName\n/m/1,Tortoise\n/m/2,"Cup, small"\n')
    assert read_concepts(classes) == ("Tortoise", "Cup, small")


def test_what_is_no_vocabulary_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConceptError, match=r"vocabulary of concepts .* does not exist"):
        read_concepts(tmp_path / "none.txt")
    (tmp_path / "empty.txt").write_text("\n \n")
    with pytest.raises(ConceptError, match="holds no concept"):
        read_concepts(tmp_path / "empty.txt")
    (tmp_path / "other.csv").write_text("id,name\n1,cat\n")
    with pytest.raises(ConceptError, match=r"DisplayName.*columns are id, name"):
        read_concepts(tmp_path / "other.csv")


def test_phrases_that_do_not_name_their_concept_are_left_out(tmp_path: Path) -> None:
    given = ["a photo of cat that\n\nsleeps", "a catalogue", "A CAT", "a photo of cat that\nsleeps"]
    assert usable("cat", given) == ("a photo of cat that. sleeps", "A CAT")
    path = tmp_path / "phrases.json"
    path.write_text(json.dumps({"cat": given, "dog": ["a cow"]}))
    assert read_phrases(path) == {"cat": ("a photo of cat that. sleeps", "A CAT"), "dog": ()}
    path.write_text(json.dumps({"cat": "a cat"}))
    with pytest.raises(ConceptError, match="concept -> list of phrases"):
        read_phrases(path)


def test_the_token_replaces_the_first_occurrence() -> None:
    text = "my cat sees your cat, the catalogue and a cat"
    assert spliced_phrase(text, "cat") == SplicedText(
        "my", "sees your cat, the catalogue and a cat"
    )
    all_gone = spliced_phrase(text, "cat", "all_as_code")
    assert all_gone.before == "my"
    assert " ".join(all_gone.after.split()) == "sees your $ , the catalogue and a $"
    assert spliced_phrase("a photo of red hat", "red hat") == SplicedText("a photo of", "")
    with pytest.raises(ValueError, match="does not occur"):
        spliced_phrase("a dog", "cat")


def test_nearest_concepts_by_hand() -> None:
    from models.textual_inversion.nearest import nearest_concepts

    concepts = np.array([[1, 0], [0, 1], [-1, 0], [1, 0]], np.float32)
    images = np.array([[10, 1], [-1, 2]], np.float32)
    assert nearest_concepts(images, concepts, 3).tolist() == [[0, 3, 1], [1, 2, 0]]
    assert nearest_concepts(images, concepts, 9).shape == (2, 4)


@pytest.mark.parametrize("images", [1, 3, 40])
def test_equal_concepts_come_in_their_order_wherever_they_stand(images: int) -> None:
    from models.textual_inversion.nearest import nearest_concepts

    rng = np.random.default_rng(images)
    for dim in (7, 128, 640):
        asked = rng.standard_normal((images, dim)).astype(np.float32)
        concepts = np.repeat(rng.standard_normal((1, dim)).astype(np.float32), 149, axis=0)
        assert (nearest_concepts(asked, concepts, 149) == np.arange(149)).all()


def test_concept_vectors_are_means_over_templates() -> None:
    from models.textual_inversion.nearest import concept_vectors

    class Lengths:
        """f_t = (letters, words, 1)."""

        dim = 3

        def encode_texts(self, texts: list[str]) -> np.ndarray:
            return np.array([[len(t), len(t.split()), 1] for t in texts], np.float32)

    from models.textual_inversion.templates import TEMPLATES, filled

    found = concept_vectors(Lengths(), ["cat", "old dog"])  # type: ignore[arg-type]
    for row, name in zip(found, ("cat", "old dog"), strict=True):
        total = np.zeros(3)
        for template in TEMPLATES:
            text = filled(template, name)
            assert name in text
            vector = np.array([len(text), len(text.split()), 1.0])
            total += vector / np.linalg.norm(vector)
        np.testing.assert_allclose(row, total / np.linalg.norm(total), rtol=1e-6)
    assert len(set(TEMPLATES)) == 24


def test_concept_sets_by_hand() -> None:
    """Images belong to their nearest concept; members are repeated in turn, or the first taken."""
    from models.textual_inversion.concept_sets import concept_sets, concepts_of

    class Lengths:
        """f_t is the number of letters."""

        def encode_texts(self, texts: list[str]) -> np.ndarray:
            return np.array([[len(text)] for text in texts], np.float32)

    concepts = np.array([[1, 0], [0, 1], [-1, 0]], np.float32)
    images = np.array([[2, 1], [0, 3], [1, 0], [5, 1], [9, 1]], np.float32)
    own = concepts_of(images, concepts)
    assert own.tolist() == [0, 1, 0, 0, 0]
    phrases = (("a", "bb"), ("ccc",), ("dddd",))
    found = concept_sets(Lengths(), images, images * 10, own, phrases, 3)  # type: ignore[arg-type]
    rows = {int(number): row for row, number in enumerate(found["concepts"])}
    assert set(rows) == {0, 1}  # no image belongs to the third
    np.testing.assert_array_equal(found["images"][rows[0]], images[[0, 2, 3]])
    np.testing.assert_array_equal(found["images"][rows[1]], images[[1, 1, 1]])
    np.testing.assert_array_equal(found["captions"], found["images"] * 10)
    assert found["texts"][rows[0]].flatten().tolist() == [1, 2, 1]
    assert found["texts"][rows[1]].flatten().tolist() == [3, 3, 3]
