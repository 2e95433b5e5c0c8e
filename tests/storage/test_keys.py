import hashlib

import numpy as np
import pytest

from storage.tables.keys import canonical_json, content_key, sha256_hex


def test_canonical_json_is_sorted_tight_and_readable() -> None:
    value = {"b": [1, 2.5, None, True], "a": {"ü": "\n"}, "c": ("x",)}
    assert canonical_json(value) == '{"a":{"ü":"\\n"},"b":[1,2.5,null,true],"c":["x"]}'


def test_content_key_is_the_head_of_the_sha256_of_the_json() -> None:
    by_hand = hashlib.sha256(b'{"a":1,"b":2}').hexdigest()
    assert content_key({"b": 2, "a": 1}) == by_hand[:20]
    assert content_key({"a": 1, "b": 2}, length=64) == by_hand
    assert sha256_hex(b"abc") == hashlib.sha256(b"abc").hexdigest()


def test_values_that_differ_have_keys_that_differ() -> None:
    values = [None, False, 0, 0.0, "", "0", [], {}, [[]], {"": None}, ["a", "b"], ["ab"], "é"]
    assert len({content_key(value) for value in values}) == len(values)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "\ud800", {"\udcff": 1}])
def test_values_without_a_json_text_are_refused(value: object) -> None:
    with pytest.raises(ValueError, match=r"value\b"):
        content_key({"deep": [value]})


@pytest.mark.parametrize("value", [np.float64(1.0), np.int64(1), {1}, b"x", {1: 2}, object()])
def test_types_that_are_not_plain_are_refused_with_their_place(value: object) -> None:
    with pytest.raises(TypeError, match=r"value\['deep'\]\[1\]"):
        content_key({"deep": [0, value]})


@pytest.mark.parametrize("length", [0, 7, 65])
def test_unreasonable_lengths_are_refused(length: int) -> None:
    with pytest.raises(ValueError, match="8 to 64"):
        content_key(1, length=length)
