"""`cirflow import texts` and `cirflow export texts` as a user meets them."""

from __future__ import annotations

import json
import pickle
import re
from pathlib import Path

import pytest

from deployments.cli import main
from tests.fakes.ldre_file import ldre_records


def test_what_is_imported_is_printed_with_its_use_and_exported_equal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from embedded_world.benchmarks import WorldSize, write_circo

    folder = tmp_path / "circo"
    write_circo(folder, WorldSize(circo_queries=3, distractors=0, siblings=0), seed=1)
    file = tmp_path / "val.json"
    file.write_text(json.dumps(ldre_records(folder / "annotations" / "val.json")))
    place = ["--benchmark", "circo", "--split", "val", "--folder", str(folder)]
    place += ["--root", str(tmp_path / "tables")]
    assert main(["import", "texts", str(file), *place]) == 0
    said = capsys.readouterr().out
    found = re.search(r"key: (\w{20})\n", said)
    assert found, said
    assert "3 queries and 0 gallery images joined; 3 new rows" in said
    assert f"--set generator.texts={found[1]} --set cvsi.captions_per_image=15" in said

    out = tmp_path / "again.json"
    export = ["export", "texts", *place, "--texts", found[1], "--form", "ldre", "--out", str(out)]
    assert main(export) == 0
    assert json.loads(out.read_text()) == json.loads(file.read_text())

    kept = tmp_path / "captions.pkl"
    kept.write_bytes(pickle.dumps({"all_captions": []}))
    for wrong, message in (
        ([str(kept), *place], "python -m storage.exchange.plain_pickle"),
        ([str(file), *place, "--benchmark", "coco"], "'coco'"),
        ([str(file), *place, "--split", "test1"], "'test1'"),
        ([str(file), *place, "--field", "edit=x"], "'edit'"),
    ):
        assert main(["import", "texts", *wrong]) == 2
        assert message in capsys.readouterr().err
