"""What a name stands for: refreshed, moved with its images, and never silently given away."""

import json
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from storage.collections import names as collection_names
from storage.collections.collection import Collection, ingest
from storage.collections.known import UnknownCollection, require_collection
from storage.collections.names import Change, NameTaken
from storage.collections.pointers import Pointer
from storage.locations.location import Location
from tests.fakes.pictures import jpeg


@pytest.fixture
def root(tmp_path: Path) -> Location:
    """An empty place for tables."""
    return Location(str(tmp_path / "root"))


def drawn(folder: Path, **pictures: int) -> Path:
    """A folder with one picture for each name."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, seed in pictures.items():
        (folder / f"{name}.jpg").write_bytes(jpeg(seed))
    return folder


def counts(change: Change) -> tuple[int, int, int, int]:
    return change.added, change.changed, change.gone, change.unchanged


def paths(root: Location, name: str, source: str = "") -> list[str]:
    rows = Collection.open(root, name, source).rows()
    return sorted(f"{where}/{path}" for where, path in rows.select("source", "path").iter_rows())


def test_the_same_folder_refreshes_and_says_what_changed(root: Location, tmp_path: Path) -> None:
    folder = drawn(tmp_path / "a", one=1, two=2, three=3)
    first = ingest(root, folder, "pets").change
    assert (counts(first), first.places, first.places_before) == ((3, 0, 0, 0), (str(folder),), ())
    assert first.in_words() == ""
    drawn(folder, two=22, four=4, five=5)
    (folder / "one.jpg").unlink()
    second = ingest(root, folder, "pets").change
    assert counts(second) == (2, 1, 1, 1)
    assert second.in_words() == "2 added, 1 changed, 1 gone, 1 unchanged"
    pointer = (tmp_path / "root" / "collections" / "pets.json").read_bytes()
    assert counts(ingest(root, folder, "pets").change) == (0, 0, 0, 4)
    assert (tmp_path / "root" / "collections" / "pets.json").read_bytes() == pointer


def test_other_images_are_refused_with_what_stands_there(root: Location, tmp_path: Path) -> None:
    mine, other = drawn(tmp_path / "mine", one=1, two=2), drawn(tmp_path / "other", three=3)
    ingest(root, mine, "pets")
    before = paths(root, "pets")
    with pytest.raises(NameTaken) as refused:
        ingest(root, other, "pets")
    said = str(refused.value)
    assert f"stands for {mine} (2 inputs, 2 images, since 20" in said
    for flag in ("--add", "--replace"):
        assert f"cirflow ingest {other} --name pets --root {root} {flag}" in said
    assert paths(root, "pets") == before
    assert len(Collection.open(root, "pets").images.parts()) == 1  # nothing of it was read


def test_equal_names_with_other_content_are_refused_too(root: Location, tmp_path: Path) -> None:
    ingest(root, drawn(tmp_path / "mine", one=1, two=2), "pets")
    with pytest.raises(NameTaken, match="holds others"):
        ingest(root, drawn(tmp_path / "other", one=1, two=3), "pets")


def test_the_same_images_in_another_place_move_the_name(root: Location, tmp_path: Path) -> None:
    old, new = drawn(tmp_path / "old", one=1, two=2), tmp_path / "new"
    ingest(root, old, "pets")
    ids = Collection.open(root, "pets").image_ids()
    shutil.copytree(old, new)
    change = ingest(root, new, "pets").change
    assert counts(change) == (0, 0, 0, 2)
    assert change.in_words() == (
        f"0 added, 0 changed, 0 gone, 2 unchanged; the name stands for {new} now, for {old} before"
    )
    assert Collection.open(root, "pets").image_ids() == ids
    drawn(new, three=3)  # and grows where it is now
    assert counts(ingest(root, new, "pets").change) == (1, 0, 0, 2)
    # Whoever wants the images by the paths of the old place still finds them.
    assert paths(root, "pets", str(old)) == [f"{old}/one.jpg", f"{old}/two.jpg"]


def test_replace_and_add_do_what_they_say(root: Location, tmp_path: Path) -> None:
    a, b = drawn(tmp_path / "a", one=1, two=2), drawn(tmp_path / "b", two=2, three=3)
    ingest(root, a, "pets")
    both = ingest(root, b, "pets", if_taken="add")
    assert (both.files, counts(both.change)) == (2, (2, 0, 0, 2))
    assert paths(root, "pets") == [f"{a}/one.jpg", f"{a}/two.jpg", f"{b}/three.jpg", f"{b}/two.jpg"]
    assert len(Collection.open(root, "pets").image_ids()) == 3
    drawn(a, four=4)
    (b / "three.jpg").unlink()
    assert counts(ingest(root, a, "pets").change) == (1, 0, 0, 4)  # of one place; the other stays
    assert counts(ingest(root, b, "pets").change) == (0, 0, 1, 4)
    alone = ingest(root, b, "pets", if_taken="replace").change
    assert (counts(alone), alone.places) == ((0, 0, 3, 1), (str(b),))
    assert paths(root, "pets") == [f"{b}/two.jpg"]
    ingest(root, a, "again")  # what was ingested is stored
    assert len(Collection.open(root, "again").image_ids()) == 3


def test_a_folder_around_the_old_one_refreshes(root: Location, tmp_path: Path) -> None:
    inner = drawn(tmp_path / "outer" / "inner", one=1)
    ingest(root, inner, "pets")
    drawn(tmp_path / "outer", two=2)
    change = ingest(root, tmp_path / "outer", "pets").change
    # The first folder level is a picture's class: it has become `inner`.
    assert (counts(change), change.places) == ((1, 1, 0, 0), (str(tmp_path / "outer"),))
    assert Collection.open(root, "pets", str(inner)).rows().height == 2
    with pytest.raises(NameTaken):
        ingest(root, inner, "pets")


def test_a_pointer_of_an_earlier_version_is_read(root: Location, tmp_path: Path) -> None:
    a, b = drawn(tmp_path / "a", one=1), drawn(tmp_path / "b", two=2)
    ingest(root, a, "pets")
    path = tmp_path / "root" / "collections" / "pets.json"
    said = json.loads(path.read_text())
    said["source"] = said.pop("places")[0]
    path.write_text(json.dumps(said))
    shutil.rmtree(tmp_path / "root" / "collections" / "places")
    with pytest.raises(NameTaken):
        ingest(root, b, "pets")
    ingest(root, b, "pets", if_taken="add")
    assert paths(root, "pets") == [f"{a}/one.jpg", f"{b}/two.jpg"]


def test_the_same_images_from_two_places_at_once(root: Location, tmp_path: Path) -> None:
    """Both go on, and each finds its own paths, whatever the name points to at that moment."""
    places = [drawn(tmp_path / name, one=1, two=2, three=3) for name in "ab"]
    barrier = threading.Barrier(2)

    def work(place: Path) -> None:
        barrier.wait()
        for _ in range(6):
            ingest(root, place, "world")
            own = [f"{place}/{name}.jpg" for name in ("one", "three", "two")]
            assert paths(root, "world", str(place)) == own

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(work, places))


def test_of_two_that_take_a_new_name_one_is_refused(
    root: Location, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither sees a name when it looks first: the name is taken once."""
    a, b = drawn(tmp_path / "a", one=1), drawn(tmp_path / "b", two=2)
    real = collection_names.read_pointer
    between = threading.Event()

    def late(location: Location, name: str) -> Pointer | None:
        found = real(location, name)
        if not between.is_set() and found is None:
            looked.append(name)
            if len(looked) == 2:  # it has looked before and after reading, and saw nothing
                between.set()
                ingest(root, a, "pets")
        return found

    looked: list[str] = []
    monkeypatch.setattr(collection_names, "read_pointer", late)
    with pytest.raises(NameTaken, match=f"stands for {a} "):
        ingest(root, b, "pets")
    assert paths(root, "pets") == [f"{a}/one.jpg"]


def test_two_places_of_one_name_refreshed_at_once(
    root: Location, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of them is overtaken between looking and writing, and looks again."""
    a, b = drawn(tmp_path / "a", one=1), drawn(tmp_path / "b", two=2)
    ingest(root, a, "pets")
    ingest(root, b, "pets", if_taken="add")
    drawn(a, three=3)
    drawn(b, four=4)
    real = collection_names._write_pointer
    overtaken: list[bool] = []

    def slow(*arguments: object, **options: object) -> bool:
        if not overtaken:
            overtaken.append(True)
            ingest(root, b, "pets")
        return real(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(collection_names, "_write_pointer", slow)
    ingest(root, a, "pets")
    names = [f"{a}/one.jpg", f"{a}/three.jpg", f"{b}/four.jpg", f"{b}/two.jpg"]
    assert paths(root, "pets") == names


def test_a_refusal_repeats_little_of_what_was_given_and_of_what_exists(root: Location) -> None:
    for number in range(100):
        root.create(f"collections/{number:03}{'n' * 100}.json", b"{}")
    for given in ("x" * 128, "x" * 100_000, "/" * 100_000):
        with pytest.raises((UnknownCollection, ValueError)) as refused:
            require_collection(root, given)
        assert given[:80] in str(refused.value)
        assert len(str(refused.value)) < 80 * 110 + 500


def test_a_run_that_was_killed_before_the_copy_of_a_name_is_made_good(
    root: Location, tmp_path: Path
) -> None:
    folder = drawn(tmp_path / "a", one=1)
    ingest(root, folder, "pets")
    copy = root.read_bytes("collections/copies/pets.json")
    root.remove("collections/copies/pets.json")
    ingest(root, folder, "pets")
    assert root.read_bytes("collections/copies/pets.json") == copy
