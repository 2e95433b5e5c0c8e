"""Fashion200k and NLVR2 by their label files, in the published layouts with drawn images."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from storage.collections.collection import Collection, ingest
from storage.collections.sources.fashion200k import product_of
from storage.collections.sources.named import LabelFault
from storage.collections.sources.nlvr2 import set_of
from storage.locations.location import Location
from tests.fakes.pictures import jpeg

FASHION = {
    "dress_train": ["dresses/casual/91/91_0.jpeg", "dresses/casual/91/91_1.jpeg"],
    "dress_test": ["dresses/gowns/92/92_0.jpeg"],
    "jacket_train": ["jackets/blazers/93/93_0.jpeg"],
    "pants_train": ["pants/jeans/94/94_0.jpeg", "pants/jeans/94/94_3.jpeg"],
    "skirt_train": ["skirts/mini/95/95_0.jpeg"],
    "top_test": ["tops/blouses/96/96_0.jpeg", "dresses/casual/91/91_0.jpeg"],
}


def write(path: Path, content: str | bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)


@pytest.fixture
def fashion(tmp_path: Path) -> Path:
    """Six label files; one image that they name is absent, one that they do not name is there."""
    root = tmp_path / "fashion200k"
    names = sorted({name for own in FASHION.values() for name in own})
    for seed, name in enumerate(names):
        if name != "skirts/mini/95/95_0.jpeg":
            write(root / "women" / name, jpeg(seed))
    write(root / "women/tops/blouses/97/97_0.jpeg", jpeg(99))
    write(root / "image_urls.txt", "women/tops/blouses/96/96_0.jpeg\thttp://example.org\n")
    for stem, own in FASHION.items():
        lines = "".join(f"women/{name}\t0.98{n}\ta caf\u00e9 dress\n" for n, name in enumerate(own))
        write(root / "labels" / f"{stem}_detect_all.txt", lines)
    return root


def test_fashion200k_is_what_its_label_files_name(location: Location, fashion: Path) -> None:
    summary = ingest(location, fashion, "f200k", layout="fashion200k")
    assert (summary.files, summary.images, summary.failed) == (9, 7, {"missing_file": 1})
    assert summary.unusable == (
        (
            "women/skirts/mini/95/95_0.jpeg",
            "missing_file",
            "labels/skirt_train_detect_all.txt names it, and it is not there",
        ),
    )
    rows = Collection.open(location, "f200k").rows()
    found = sorted(zip(rows["path"], rows["meta_class"], strict=True))
    assert found == sorted(
        (f"women/{name}", stem.partition("_")[0]) for stem, own in FASHION.items() for name in own
    )
    assert summary.notes == (
        "meta classes: dress 3, jacket 1, pants 2, skirt 1, top 2",
        "label files that are not here: jacket_test_detect_all.txt, pants_test_detect_all.txt, "
        "skirt_test_detect_all.txt, top_train_detect_all.txt",
        "train: 6 images named, the published files name 172,049",
        "test: 3 images named, the published files name 29,789",
        "1 image lies in the folder of another class than its label file's",
        "9 images named, 8 there, 1 missing",
    )
    assert ingest(location, fashion, "f200k", layout="fashion200k").new_files == 0
    write(fashion / "women/skirts/mini/95/95_0.jpeg", jpeg(50))
    again = ingest(location, fashion, "f200k", layout="fashion200k")
    assert (again.new_files, again.new_images, again.failed) == (1, 1, {})


def test_the_same_folder_without_the_layout_keeps_its_own_classes(
    location: Location, fashion: Path
) -> None:
    """Rows of a plain ingest of the folder do not lend their class to those of the layout."""
    ingest(location, fashion, "plain")
    assert set(Collection.open(location, "plain").rows()["meta_class"]) == {"women", "labels", ""}
    named = ingest(location, fashion, "f200k", layout="fashion200k")
    assert named.new_images == 0
    classes = Counter(Collection.open(location, "f200k").rows()["meta_class"])
    assert classes == {"dress": 3, "pants": 2, "top": 2, "jacket": 1, "skirt": 1}


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("women/dresses/casual/91/91_0.jpeg 0.9 a dress", "line 2: not women/CLASS/STYLE/PRODUCT"),
        ("women/dresses/casual/91/91_0.jpeg\ta dress\t0.9", "line 2: the score 'a dress' is not a"),
        ("women/../../etc/91/91_0.jpeg\t0.9\tx", "line 2: not women/CLASS/STYLE/PRODUCT"),
        ("men/dresses/casual/91/91_0.jpeg\t0.9\tx", "line 2: not women/CLASS/STYLE/PRODUCT"),
    ],
)
def test_a_wrong_line_is_refused_with_its_number(
    location: Location, fashion: Path, line: str, said: str
) -> None:
    file = fashion / "labels/dress_train_detect_all.txt"
    file.write_text("women/dresses/casual/91/91_0.jpeg\t0.9\tx\n" + line + "\n")
    with pytest.raises(LabelFault, match=f"labels/dress_train_detect_all.txt, {said}"):
        ingest(location, fashion, "f200k", layout="fashion200k")


def test_folders_without_labels_or_images_are_refused(location: Location, tmp_path: Path) -> None:
    write(tmp_path / "x" / "women/dresses/casual/91/91_0.jpeg", jpeg(0))
    with pytest.raises(LabelFault, match="no label file of Fashion200k is here"):
        ingest(location, tmp_path / "x", "f200k", layout="fashion200k")
    with pytest.raises(LabelFault, match="no file of NLVR2 is here"):
        ingest(location, tmp_path / "x", "nlvr", layout="nlvr2")
    write(tmp_path / "y" / "labels/top_test_detect_all.txt", "women/tops/a/1/1_0.jpeg\t1\tx\r\n")
    with pytest.raises(LabelFault, match=r"none of the 1 image .* is there, such as women/tops/a"):
        ingest(location, tmp_path / "y", "f200k", layout="fashion200k")


def test_products_are_read_from_paths() -> None:
    assert product_of("women/dresses/casual/91422080/91422080_0.jpeg") == "91422080"
    assert product_of("women.tar!women/pants/jeans/7/7_12.jpeg") == "7"
    assert product_of("women/dresses/casual/91422080/12345_0.jpeg") is None
    assert product_of("cat/1.jpg") is None


def nlvr_line(split: str, pair: str, **more: object) -> str:
    return json.dumps({"identifier": f"{split}-{pair}-0", "sentence": "Two dogs.", **more}) + "\n"


@pytest.fixture
def nlvr(tmp_path: Path) -> Path:
    """Train and dev; the train images lie in directories, one dev image is a dead address."""
    root = tmp_path / "nlvr2"
    train = [nlvr_line("train", "10-0", directory=39), nlvr_line("train", "11-1", directory=2)]
    write(root / "data/train.json", "".join(train))
    dev = nlvr_line("dev", "7-0") + nlvr_line("dev", "7-0").replace("7-0-0", "7-0-1")
    write(root / "data/dev.json", dev + "\n")
    for seed, name in enumerate(
        ["39/train-10-0-img0", "39/train-10-0-img1", "2/train-11-1-img0", "2/train-11-1-img1"]
    ):
        write(root / "images/train" / f"{name}.png", jpeg(seed))  # JPEG inside, as there
    write(root / "dev/dev-7-0-img1.png", jpeg(8))
    return root


def test_nlvr2_is_one_class_of_the_images_that_its_lines_name(
    location: Location, nlvr: Path
) -> None:
    summary = ingest(location, nlvr, "nlvr", layout="nlvr2")
    assert (summary.files, summary.images, summary.failed) == (6, 5, {"missing_file": 1})
    rows = Collection.open(location, "nlvr").rows()
    assert set(rows["meta_class"]) == {""}
    assert dict(zip(rows["path"], rows["status"], strict=True)) == {
        "dev/dev-7-0-img0.png": "missing_file",
        "dev/dev-7-0-img1.png": "ok",
        "images/train/2/train-11-1-img0.png": "ok",
        "images/train/2/train-11-1-img1.png": "ok",
        "images/train/39/train-10-0-img0.png": "ok",
        "images/train/39/train-10-0-img1.png": "ok",
    }
    assert summary.notes == (
        "dev: 2 lines name 2 images; the published file has 6,982 and 8,102",
        "train: 2 lines name 4 images",
        "6 images named, 5 there, 1 missing",
    )


def test_other_corpora_are_refused(location: Location, nlvr: Path) -> None:
    write(nlvr / "data/dev.json", json.dumps({"identifier": "23-0", "structured_rep": [[]]}))
    with pytest.raises(LabelFault, match=r"data/dev.json, line 1: this is NLVR \(2017"):
        ingest(location, nlvr, "nlvr", layout="nlvr2")
    write(nlvr / "data/dev.json", nlvr_line("test1", "7-0"))
    with pytest.raises(LabelFault, match="no identifier dev-SET-PAIR-SENTENCE, but 'test1-7-0-0'"):
        ingest(location, nlvr, "nlvr", layout="nlvr2")
    write(nlvr / "data/dev.json", "[\n" + nlvr_line("dev", "7-0"))
    with pytest.raises(LabelFault, match=r"data/dev.json, line 1: NLVR2's files are JSON lines"):
        ingest(location, nlvr, "nlvr", layout="nlvr2")


def test_sets_of_eight_are_read_from_names() -> None:
    assert set_of("dev-244-0-img0") == set_of("dev-244-3-img1") == "dev-244"
    assert set_of("test1-24-0-img0") == "test1-24"
    assert set_of("dev-24-img0") is None
    assert set_of("000000123") is None
