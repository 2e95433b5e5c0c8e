"""Manifests of edited pictures: what is read, and every record that is refused."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from storage.exchange.edited_pictures import read_manifest, write_pictures
from storage.exchange.sources import ExchangeError
from tests.fakes.pictures import jpeg

REFERENCE = hashlib.sha256(jpeg(1)).hexdigest()


def record(folder: Path, seed: int = 2, **changes: Any) -> dict[str, Any]:
    """A record whose picture lies in the folder."""
    folder.mkdir(exist_ok=True)
    (folder / f"{seed}.jpg").write_bytes(jpeg(seed))
    return {
        "reference_sha256": REFERENCE,
        "text": "make it über-red",
        "image": f"{seed}.jpg",
        "image_sha256": hashlib.sha256(jpeg(seed)).hexdigest(),
        "editor": "by hand",
        "seed": 5,
    } | changes


def manifest(folder: Path, *records: Mapping[str, Any]) -> Path:
    place = folder / "manifest.jsonl"
    place.write_text("".join(json.dumps(each) + "\n" for each in records), encoding="utf-8")
    return place


def test_a_record_is_read_with_what_it_says_of_its_making(tmp_path: Path) -> None:
    own = record(tmp_path, text_sha256=hashlib.sha256("make it über-red".encode()).hexdigest())
    other = record(tmp_path, seed=3, text="bluer", revision=None)
    (first, second), repeated = read_manifest(manifest(tmp_path, own, other, own))
    assert (first.reference, first.text, first.making) == (
        REFERENCE,
        "make it über-red",
        {"editor": "by hand", "seed": 5},
    )
    assert second.picture_id == hashlib.sha256(jpeg(3)).hexdigest()
    assert first.key != second.key
    assert repeated == 1


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"reference_sha256": "12ab"}, "reference_sha256 is '12ab', expected 64 hex digits"),
        ({"image_sha256": None}, "image_sha256 is None"),
        ({"text": ""}, "text is '', expected a text"),
        ({"editor": None}, "editor is None, expected a text"),
        ({"text_sha256": "0" * 64}, "text_sha256 is not that of the text"),
        ({"image": "../2.jpg"}, "expected a path in"),
        ({"image": "/etc/passwd"}, "expected a path in"),
        ({"image": "4.jpg"}, "does not exist"),
        ({"image_sha256": "0" * 64}, "does not have the bytes"),
        ({"image_sha256": REFERENCE}, "is the unedited reference"),
    ],
)
def test_what_does_not_fit_is_refused_with_its_record(
    tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    own = record(tmp_path) | {"text": "another"} | changes
    place = manifest(tmp_path, record(tmp_path, seed=3), own)
    with pytest.raises(ExchangeError, match="line 2") as refused:
        read_manifest(place)
    assert said in str(refused.value)


def test_two_pictures_of_one_edit_are_refused(tmp_path: Path) -> None:
    place = manifest(tmp_path, record(tmp_path, seed=2), record(tmp_path, seed=3))
    with pytest.raises(ExchangeError, match=r"line 2: an earlier record has another picture"):
        read_manifest(place)


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    rows = [(REFERENCE, f"text {n}", jpeg(n), {"editor": "drawn", "steps": n}) for n in (4, 5)]
    place = manifest(tmp_path, *write_pictures(tmp_path, rows))
    found, _ = read_manifest(place)
    assert [(p.reference, p.text, p.path.read_bytes(), dict(p.making)) for p in found] == rows
