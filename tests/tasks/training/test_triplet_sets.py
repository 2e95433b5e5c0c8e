"""Sets of triplets: order, prefixes, and validation triplets that share no image with training."""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path
from random import Random

import polars as pl
import pytest

from models.triplets import Triplet, triplet_id
from storage.tables.table import IncompleteTable
from tasks.training.triplet_sets import (
    TripletSet,
    joined_triplets,
    parse_triplet_set,
    split_triplets,
)

PAIRS = 60


@pytest.fixture(scope="module")
def whole(triplets: TripletSet) -> TripletSet:
    """The triplets of all tests here."""
    return triplets


def test_ok_rows_come_in_the_order_of_the_sample(whole: TripletSet) -> None:
    rows = whole.table().read().filter(pl.col("status") == "ok").sort("position")
    triplets = whole.triplets()
    assert [t.triplet_id for t in triplets] == rows["triplet_id"].to_list()
    assert [t.position for t in triplets] == [n for n in range(PAIRS) if n % 10 != 9]
    assert all(t.triplet_id == triplet_id(t.reference, t.target) for t in triplets)
    assert all(getattr(triplets[7], name) == rows[name][7] for name in Triplet.__dataclass_fields__)


def test_fewer_pairs_are_a_prefix(whole: TripletSet) -> None:
    part = whole.first(25)
    assert part.triplets() == tuple(t for t in whole.triplets() if t.position < 25)
    assert len(part.triplets()) == 23
    for count in (0, PAIRS + 1):
        with pytest.raises(ValueError, match="pairs of a set of 60: take 1 to all"):
            whole.first(count)


def test_a_set_that_is_not_finished_is_refused(whole: TripletSet) -> None:
    more = whole.model_copy(update={"count": PAIRS + 5})
    with pytest.raises(IncompleteTable, match="holds 60 of the first 65 pairs"):
        more.triplets()


def test_no_image_is_on_both_sides_and_no_triplet_is_lost(whole: TripletSet) -> None:
    triplets = whole.triplets()
    split = whole.split(4)
    assert split.validation == triplets[:4]
    held = {image for t in split.validation for image in (t.reference, t.target)}
    trained = {image for t in split.training for image in (t.reference, t.target)}
    assert not held & trained
    naive = [t for t in triplets[4:] if t.reference not in held and t.target not in held]
    assert list(split.training) == naive
    assert split.left_out == len(triplets) - 4 - len(naive) > 0
    assert split.image_ids() == sorted(held | trained)


def test_nested_sets_hold_out_the_same_triplets_and_nest_in_training(whole: TripletSet) -> None:
    small, large = whole.first(40).split(3), whole.split(3)
    assert small.validation == large.validation
    assert large.training[: len(small.training)] == small.training
    assert len(small.training) < len(large.training)


def test_holding_out_everything_is_refused(whole: TripletSet) -> None:
    with pytest.raises(ValueError, match=r"54 triplets held out.*hold out fewer"):
        whole.split(54)
    with pytest.raises(ValueError, match="must not be negative"):
        split_triplets([], -1)


def test_the_content_key_sees_texts_and_sides(whole: TripletSet) -> None:
    triplets = whole.triplets()
    keys = {
        split_triplets(triplets, 0).content,
        split_triplets(triplets, 1).content,
        split_triplets(triplets[:-1], 0).content,
        split_triplets([*triplets[:-1], retold(triplets[-1])], 0).content,
    }
    assert len(keys) == 4
    assert split_triplets(list(triplets), 0).content in keys


def retold(triplet: Triplet) -> Triplet:
    values = {name: getattr(triplet, name) for name in Triplet.__dataclass_fields__}
    return Triplet(**(values | {"text": "told in other words"}))


def hop(reference: str, target: str, position: int, text: str) -> Triplet:
    name = triplet_id(reference, target)
    return Triplet(name, position, reference, target, "drawn", "", reference, target, text)


def test_triplets_that_follow_one_another_are_joined() -> None:
    chain = [hop("a", "b", 0, "red"), hop("b", "c", 1, "small"), hop("c", "a", 4, "striped")]
    back, known = hop("b", "a", 7, "blue"), hop("a", "c", 9, "moved")
    found = {(t.reference, t.target): t for t in joined_triplets(chain, 3)}
    assert {pair: t.text for pair, t in found.items()} == {
        ("a", "c"): "red and small",
        ("b", "a"): "small and striped",
        ("c", "b"): "striped and red",
    }
    assert sorted(t.position for t in found.values()) == [5, 6, 7]
    assert found["a", "c"].triplet_id == triplet_id("a", "c")
    # A pair with a text of its own keeps it, and no picture is its own target.
    given = [*chain, back, known]
    assert [(t.reference, t.target, t.text) for t in joined_triplets(given, 1)] == [
        ("c", "b", "striped and red")
    ]
    with pytest.raises(
        ValueError, match=r"joined=2: of the 5 .* at most 1 can be joined; .*a larger n"
    ):
        joined_triplets(given, 2)


def test_joined_triplets_are_trained_on_and_validate_nothing(whole: TripletSet) -> None:
    plain, more = whole.split(3), whole.model_copy(update={"joined": 5}).split(3)
    assert (more.validation, more.left_out) == (plain.validation, plain.left_out)
    assert more.training[: len(plain.training)] == plain.training
    joined = more.training[len(plain.training) :]
    assert joined == tuple(joined_triplets(plain.training, 7)[:5])
    assert set(more.image_ids()) == set(plain.image_ids())
    assert more.content != plain.content


def test_images_come_by_id(whole: TripletSet) -> None:
    ids = Random(0).sample(whole.split(2).image_ids(), 9)
    read = dict(whole.images().read_images(ids))
    assert set(read) == set(ids)
    assert all(sha256(data).hexdigest() == image_id for image_id, data in read.items())


def test_a_reference_survives_json_and_a_file(whole: TripletSet, tmp_path: Path) -> None:
    value = json.loads(whole.model_dump_json())
    (tmp_path / "triplets.json").write_text(json.dumps(value))
    assert parse_triplet_set(value) == whole
    assert parse_triplet_set(str(tmp_path / "triplets.json")) == whole
    with pytest.raises(ValueError, match="no such file"):
        parse_triplet_set(str(tmp_path / "nothing.json"))
    (tmp_path / "bad.json").write_text('{"root": 1}')
    with pytest.raises(ValueError, match=r"bad\.json is not a reference to triplets"):
        parse_triplet_set(str(tmp_path / "bad.json"))
