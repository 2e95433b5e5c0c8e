"""`cirflow import network`, as typed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from deployments.cli import main
from tests.fakes.published_clips import published_combiner_state, residual_clip


def test_published_files_become_a_folder_that_loads(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import torch

    from models.composed.checkpoint import load_composed
    from models.composed.clip4cir_network import published_combiner
    from models.composed.clip4cir_settings import CombinerSettings
    from tasks.networks import network_facts
    from tests.fakes.small_networks import TEXTS, pixels

    source, out = tmp_path / "published", tmp_path / "network"
    source.mkdir()
    torch.save({"CLIP": residual_clip().state_dict()}, source / "tuned_clip_best.pt")
    torch.save({"Combiner": published_combiner_state(24, 12, 20)}, source / "combiner.pt")
    given = ["import", "network", "clip4cir", str(source), "--out", str(out)]
    given += ["--set", "projection=12", "--set", "hidden=20"]
    reason = "trained on CIRR's train split"
    assert main([*given, "--not-zero-shot", reason]) == 0
    said = capsys.readouterr().out
    assert "tuned_clip_best.pt: sha256 " in said
    assert f"--set composed.clip4cir={out}" in said

    facts = network_facts(str(out))
    assert (facts.system, facts.dim, facts.zero_shot) == ("clip4cir", 24, False)
    assert facts.zero_shot_reason == reason
    assert facts.trained_on == "published combiner.pt and tuned_clip_best.pt"
    loaded = load_composed(out).network
    expected = published_combiner(source, CombinerSettings(projection=12, hidden=20))
    read = loaded.tokenised(TEXTS)
    with torch.no_grad():
        for one, other in (
            (loaded.query(pixels(4, size=64), read), expected.query(pixels(4, size=64), read)),
            (loaded.target(pixels(4, size=64)), expected.target(pixels(4, size=64))),
        ):
            torch.testing.assert_close(one, other)
    assert loaded.preprocess.fingerprint == expected.preprocess.fingerprint

    assert main([*given, "--zero-shot"]) == 2
    assert "holds something already" in capsys.readouterr().err


def test_what_is_given_wrongly_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import torch

    file = tmp_path / "weights.pt"
    torch.save({"CLIP": residual_clip().state_dict()}, file)
    empty = tmp_path / "empty.pkl"
    empty.touch()
    out = ["--out", str(tmp_path / "network"), "--zero-shot"]
    for arguments, message in (
        (["clip4cirr", str(file)], "unknown system 'clip4cirr'; did you mean 'clip4cir'"),
        (["clip4cir-sum", str(tmp_path / "none.pt")], "none.pt: no such file or folder"),
        (["magiclens", str(empty)], "empty.pkl is empty; give a published checkpoint"),
        (["case", str(file)], "no checkpoint of CASE-style is public"),
        (["transagg", str(file), "--set", "masks=none"], "did you mean 'mask'"),
        (["transagg", str(file), "--set", "mask"], "'mask' is not NAME=VALUE"),
        (["transagg", str(file)], "holds more than tensors: CLIP"),
    ):
        assert main(["import", "network", *arguments, *out]) == 2
        assert message in capsys.readouterr().err
        assert not (tmp_path / "network").exists()


def test_a_label_is_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["import", "network", "transagg", str(tmp_path), "--out", str(tmp_path / "network")]
    with pytest.raises(SystemExit):
        main(given)
    assert "--zero-shot --not-zero-shot is required" in capsys.readouterr().err
    assert main([*given, "--not-zero-shot", " "]) == 2
    assert "a reason in words" in capsys.readouterr().err


def test_a_folder_to_export_that_is_missing_is_named_before_torch_is_imported(
    tmp_path: Path, repository: Path
) -> None:
    code = (
        "import sys; from deployments.cli import main; code = main(sys.argv[1:]); "
        "print(code, 'torch' in sys.modules)"
    )
    given = ["export", "network", str(tmp_path / "none"), "--out", str(tmp_path / "out")]
    done = subprocess.run(
        [sys.executable, "-c", code, *given],
        cwd=repository,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "2 False\n"
    assert "none: no such folder; give that of a tuned-embedding" in done.stderr
    assert not (tmp_path / "out").exists()
