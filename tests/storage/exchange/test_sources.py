"""Files of others are hashed, and those that may run code are refused or read as data."""

from __future__ import annotations

import collections
import hashlib
import json
import pickle
from pathlib import Path
from typing import Any

import pytest

from storage.exchange.plain_pickle import main, read_plain
from storage.exchange.sources import ExchangeError, open_sources

PLAIN: dict[str, Any] = {
    "all_captions": [["a red cat", "ein Häschen \U0001f407"], []],
    "numbers": [0, 1, 255, 256, -7, 2**31, 2**70, -(2**40), 0.5, 1e-300],
    "others": (None, True, False, (), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4)),
    "x" * 300: {1: {"deep": [[[]]]}},
}


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_plain_containers_are_read_as_pickle_reads_them(protocol: int) -> None:
    again = [PLAIN, PLAIN["others"], list(range(2000)), PLAIN]
    assert read_plain(pickle.dumps(again, protocol)) == again


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_what_names_a_class_or_a_function_is_refused_and_does_not_run(
    protocol: int, tmp_path: Path
) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (tmp_path / "ran",)

    for value in ([Trap()], collections.OrderedDict(a=1), {1, 2}):
        with pytest.raises(ExchangeError, match="more than plain containers"):
            read_plain(pickle.dumps(value, protocol))
    assert not (tmp_path / "ran").exists()


def test_a_cut_pickle_is_refused() -> None:
    whole = pickle.dumps(PLAIN, 4)
    for length in range(len(whole)):
        with pytest.raises(ExchangeError):
            read_plain(whole[:length])


def _repeated(part: Any, times: int) -> Any:
    for _ in range(times):
        part = [part, part]
    return part


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (pickle.dumps(_repeated([], 40)), "larger than 256 MiB"),
        (pickle.dumps(["x" * 1_000_000] * 300), "larger than 256 MiB"),
        (b"\x80\x04" + b"]" * 5000 + b"a" * 4999 + b".", "nested too deeply"),
        (b"\x80\x04" + b"(" * 200_000 + b"t" * 200_000 + b".", "nested too deeply"),
        (pickle.dumps(["\ud800"]), "surrogates not allowed"),
    ],
    ids=["lists", "texts", "depth", "marks", "half a character"],
)
def test_a_pickle_that_is_no_file_of_texts_is_refused_and_leaves_nothing(
    data: bytes, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, target = tmp_path / "in.pkl", tmp_path / "out.json"
    source.write_bytes(data)
    assert main([str(source), str(target)]) == 2
    assert message in capsys.readouterr().err
    assert not target.exists()


def test_a_pickle_is_refused_with_the_command_that_converts_it(tmp_path: Path) -> None:
    named, hidden = tmp_path / "circo_captions.pkl", tmp_path / "mods.json"
    for place in (named, hidden):
        place.write_bytes(pickle.dumps(PLAIN["all_captions"]))
        with pytest.raises(
            ExchangeError, match=f"storage.exchange.plain_pickle {place} "
        ) as refused:
            open_sources([place])
        assert f"{place} {place}" not in str(refused.value)
    out = tmp_path / "captions.json"
    assert main([str(named), str(out)]) == 0
    assert json.loads(out.read_text()) == PLAIN["all_captions"]
    assert main([str(named), str(out)]) == 2  # nothing is overwritten


def test_sources_have_the_hash_of_their_bytes(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("[1]")
    (source,) = open_sources([tmp_path / "a.json"])
    assert source.sha256 == hashlib.sha256(b"[1]").hexdigest()
    assert source.title == f"a.json, sha256 {source.sha256[:12]}"
    with pytest.raises(ExchangeError, match="no such file"):
        open_sources([tmp_path / "b.json"])
    with pytest.raises(ExchangeError, match="it is not a file"):
        open_sources([tmp_path])
    (tmp_path / "copy.json").write_text("[1]")
    with pytest.raises(ExchangeError, match=r"the same file as .*a\.json"):
        open_sources([tmp_path / "a.json", tmp_path / "copy.json"])
