"""The GPU benchmark's plan, its processes and its files; parts run in small on a CPU."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ONLY_THESE = '''
"""Nothing can be imported but the standard library, what the benchmark asks for, and its needs."""
import importlib.metadata as metadata, re, sys

asked = ["torch", "transformers", "open_clip_torch", "safetensors", "pillow", "pyarrow", "numpy"]
names, open_ones = set(), list(asked)
while open_ones:
    name = re.sub(r"[-_.]+", "-", open_ones.pop()).lower()
    if name in names or name.startswith("pydantic"):
        continue
    names.add(name)
    try:
        needs = metadata.requires(name) or []
    except metadata.PackageNotFoundError:
        continue
    open_ones += [re.match(r"[\\w.-]+", need)[0] for need in needs if "extra ==" not in need]
allowed = {"bench", "models", "sitecustomize", "usercustomize", "triton", "torchgen", "functorch"}
for top, owners in metadata.packages_distributions().items():
    if {re.sub(r"[-_.]+", "-", owner).lower() for owner in owners} & names:
        allowed.add(top)
allowed |= set(sys.stdlib_module_names)


class Only:
    def __init__(self, finder):
        self.finder = finder

    def __getattr__(self, name):
        return getattr(self.finder, name)

    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top not in allowed and not top.startswith("_"):
            return None
        return self.finder.find_spec(name, path, target)


sys.meta_path[:] = [Only(finder) for finder in sys.meta_path]
'''


@pytest.fixture
def bare_environment(tmp_path: Path, repository: Path) -> dict[str, str]:
    """Environment of a Python, and of those it starts, that has the asked packages alone."""
    folder = tmp_path / "only"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(ONLY_THESE)
    return {**os.environ, "PYTHONPATH": f"{folder}{os.pathsep}{repository}"}


def test_shares_use_up_what_is_left() -> None:
    from bench.gpu.plan import Part, refusal, share, stop_after

    one, two, three = (Part(f"{seconds}", "", seconds, 5) for seconds in (10, 20, 10))
    assert share(one, (two, three), 80) == 20
    assert share(two, (three,), 75) == 50  # the first left five seconds over
    assert share(three, (), 7) == 7
    assert refusal(one, 5, small=False) == ""
    assert "it needs 5 s" in refusal(one, 4.9, small=False)
    assert refusal(one, 0.1, small=True) == ""
    assert stop_after(20, 80) == 30
    assert stop_after(20, 25) == 25


def test_settings_without_pydantic() -> None:
    from bench.gpu.bare_pydantic import BaseModel, _field

    class Base(BaseModel):
        device: str = "auto"
        steps: int = _field(3, ge=1)

    class More(Base):
        name: str
        device: str = "cpu"

    made = More(name="n")
    assert (made.name, made.device, made.steps) == ("n", "cpu", 3)
    assert More.model_validate({**dict(made), "steps": 4}).steps == 4
    with pytest.raises(TypeError, match="needs name"):
        More()
    with pytest.raises(TypeError, match="has no colour"):
        More(name="n", colour=1)


def test_files_hold_rows_gaps_and_ratios(tmp_path: Path) -> None:
    from bench.gpu.records import Gap, Row, Work, from_message, to_message
    from bench.gpu.results import Results

    results = Results({"card": "NVIDIA H100", "driver": ""}, tmp_path)
    row = Row(
        part="ViT-B-32",
        what="images",
        unit="images",
        rate=5000.0,
        bare=10_000.0,
        work=Work(flops=1e10, dtype="bf16"),
        memory=3 * 2**30,
        note="host-bound | slow",
    )
    gap = Gap("edits", "LLaMA", "left out", "it does not fit")
    for each in ({"matmul bf16": 5e14, "copy": 3e12}, row, gap):
        results.add(from_message(json.loads(json.dumps(to_message(each)))))
    said = json.loads((tmp_path / "gpu.json").read_text())
    assert said["rows"][0]["of_bare"] == 0.5
    assert said["rows"][0]["of_limit"] == said["rows"][0]["mfu"] == pytest.approx(0.1)
    assert said["gaps"] == [
        {"part": "edits", "what": "LLaMA", "kind": "left out", "reason": "it does not fit"}
    ]
    head, limits, table = (tmp_path / "gpu.md").read_text().strip().split("\n\n")
    assert head == "card NVIDIA H100."
    assert limits == "Measured limits: matmul bf16 500.0 TFLOP/s, copy 3,000 GB/s."
    assert table.splitlines()[2:] == [
        "| ViT-B-32 | images | 5,000 images/s | 10,000 | 0.50 | matmul bf16 | 10.0 % | 10.0 % | "
        "3.0 | host-bound / slow |",
        "| edits | LLaMA |  |  |  |  |  |  |  | left out: it does not fit |",
    ]
    assert not list(tmp_path.glob("*.aside"))


def test_a_process_that_hangs_or_dies_keeps_what_it_said(tmp_path: Path) -> None:
    from bench.gpu.run import messages

    hangs = 'import time; print(\'{"limits": {"copy": 1}}\', flush=True); time.sleep(600)'
    found = list(messages([sys.executable, "-c", hangs], 3.0, tmp_path / "log"))
    assert found[0] == {"limits": {"copy": 1}}
    assert found[1]["ended"].startswith("stopped after 3 s")
    dies = "import os; print('{}', flush=True); os.write(2, b'why\\nbecause'); os._exit(9)"
    found = list(messages([sys.executable, "-c", dies], 60.0, tmp_path / "log"))
    assert found == [{}, {"ended": "its process ended with status 9: because"}]
    killed = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    (found,) = messages([sys.executable, "-c", killed], 60.0, tmp_path / "log")
    assert found["ended"].startswith("its process was ended by SIGKILL (mostly since the host's")


def test_a_part_is_stopped_with_the_command(tmp_path: Path, repository: Path) -> None:
    """A scheduler's SIGTERM leaves no part behind that holds the card."""
    code = f"""
import sys
from pathlib import Path
from bench.gpu import __main__, run
def one(parts, results, *others):
    sleeps = "import os, time; print(os.getpid(), flush=True); time.sleep(600)"
    for found in run.messages([sys.executable, "-c", sleeps], 600, Path({str(tmp_path / "log")!r})):
        print(found, flush=True)
__main__.run = one
__main__.main(["--device", "cpu", "--small", "--out", {str(tmp_path)!r}])
"""
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=repository, stdout=subprocess.PIPE, text=True
    ) as command:
        assert command.stdout is not None
        part = int(command.stdout.readline())
        command.terminate()
        assert command.wait(timeout=60) == 128 + signal.SIGTERM
    with pytest.raises(ProcessLookupError):
        os.kill(part, 0)


def test_the_card_is_the_one_that_torch_uses(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Torch counts the cards of CUDA_VISIBLE_DEVICES; the driver's tool counts all."""
    (tmp_path / "torch.py").write_text("""
import os, types
chosen = os.environ["CUDA_VISIBLE_DEVICES"].split(",")
found = lambda n: types.SimpleNamespace(name=f"card {chosen[n]}", total_memory=80 * 2**30)
cuda = types.SimpleNamespace(get_device_properties=found)
""")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,3")
    from bench.gpu.machine import machine_facts

    assert machine_facts("cuda:1", small=False)["card"] == "card 3, 80 GiB"
    assert machine_facts("cuda", small=False)["card"] == "card 5, 80 GiB"
    assert machine_facts("cuda:2", small=False)["card"] == "unknown"


def test_a_gpu_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from bench.gpu.timing import Clock

    seen: list[str] = []

    class Event:
        def __init__(self, enable_timing: bool) -> None:
            assert enable_timing

        def record(self) -> None:
            seen.append("event")

        def synchronize(self) -> None:
            seen.append("event reached")

        def elapsed_time(self, other: Event) -> float:
            return 500.0  # milliseconds

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "device", lambda device: contextlib.nullcontext())
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: seen.append("wait"))
    monkeypatch.setattr(
        torch.cuda, "reset_peak_memory_stats", lambda device: seen.append("forget peak")
    )
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 7)
    clock = Clock(torch.device("cuda", 0))
    clock.seconds(lambda: seen.append("work"))
    assert seen == ["wait", "work", "wait"]
    seen.clear()
    assert clock.peak_of(lambda: seen.append("work")) == 7
    assert seen == ["wait", "forget peak", "work", "wait"]
    seen.clear()
    assert clock.kernel_seconds(lambda: seen.append("work"), 2) == 0.25
    assert seen == ["wait", "event", "work", "work", "event", "event reached"]


def test_an_error_is_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from bench.gpu import child, search
    from bench.gpu.case import Case
    from bench.gpu.records import Gap

    def full(case: Case) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate\nmuch")

    case = Case(torch.device("cpu"), True, time.time())
    monkeypatch.setattr(search, "measure", full)
    (line,) = child.measure_part("search", case)
    assert isinstance(line, Gap)
    assert (line.kind, "does not fit" in line.reason) == ("left out", True)
    monkeypatch.setattr(search, "measure", lambda case: iter([1 / 0]))
    (line,) = child.measure_part("search", case)
    assert line == Gap("search", line.what, "failed", "ZeroDivisionError: division by zero")


def test_an_error_says_its_reason_and_its_place(capfd: pytest.CaptureFixture[str]) -> None:
    from bench.gpu.failures import failure

    try:
        raise RuntimeError("backend='inductor' raised:\nRuntimeError: no C compiler")
    except RuntimeError as error:
        line = failure("ViT-L-14", "compiled", error)
    assert line.reason.endswith("raised: RuntimeError: no C compiler")
    assert "test_gpu_run.py" in capfd.readouterr().err  # the part's log


def test_steps_are_measured_where_the_bare_form_does_not_fit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import torch

    from bench.gpu import child, instructcir
    from bench.gpu.case import Case
    from bench.gpu.records import Row

    def full(*given: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(instructcir.BareStep, "take", full)
    first, *_ = child.measure_part("instructcir", Case(torch.device("cpu"), True, time.time()))
    assert isinstance(first, Row), first
    assert first.rate > 0
    assert first.bare is None
    assert first.note.endswith("the bare form does not fit in the card's memory beside it")


def test_texts_are_measured_where_images_do_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from bench.gpu import child, towers
    from bench.gpu.case import Case
    from bench.gpu.records import Gap, Row

    def full(*given: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(towers, "_images", full)
    images, texts = child.measure_part("ViT-bigG-14", Case(torch.device("cpu"), True, time.time()))
    assert isinstance(images, Gap)
    assert (images.what, images.kind) == ("ViT-bigG-14 images", "left out")
    assert isinstance(texts, Row)
    assert texts.unit == "texts"


@pytest.mark.parametrize(
    "part",
    ["limits", "ViT-bigG-14", "captions", "edits", "search", "lincir", "instructcir"],
)
def test_parts_in_small(part: str) -> None:
    import torch

    from bench.gpu import child
    from bench.gpu.case import Case
    from bench.gpu.records import Row

    lines = list(child.measure_part(part, Case(torch.device("cpu"), True, time.time())))
    if part == "limits":
        assert {name for line in lines for name in line} >= {"matmul bf16", "matmul fp32", "copy"}
        return
    assert lines
    for line in lines:
        assert isinstance(line, Row), line
        assert line.part == part
        assert line.rate > 0
        assert line.work.flops > 0
    assert lines[0].bare


def test_ours_and_bare_agree_in_small() -> None:
    import torch

    from bench.gpu import captions, edits, search, towers
    from bench.gpu.case import Case

    case = Case(torch.device("cpu"), True, time.time())
    (found,) = search.measure(case)
    assert found.more["same_places"] == 1.0
    (found,) = edits.measure(case)
    assert found.more["equal"] == 6
    (found,) = captions.measure(case)
    assert found.more["greedy_equal"] == 2
    rows = list(towers.measure("ViT-B-32", case))
    assert [row.unit for row in rows] == ["images", "texts", "images", "images"]
    # The other forms ask for the same operations, one of them in TF32.
    assert {row.work.flops for row in rows if row.unit == "images"} == {rows[0].work.flops}
    assert [row.work.dtype for row in rows] == ["fp32", "fp32", "tf32", "fp32"]
    assert all(row.more["difference"] < 1e-5 for row in rows)


def test_lincir_bare_computes_the_same_loss() -> None:
    import torch

    from bench.gpu import made
    from bench.gpu.case import Case
    from bench.gpu.lincir import BareSteps
    from bench.gpu.towers import encoder_of
    from models.encoders.text_tower import pad_rows
    from models.textual_inversion.keywords import function_words
    from models.textual_inversion.masking import training_rows
    from models.textual_inversion.settings import LinCirConfig
    from models.textual_inversion.training import LinCirTraining

    encoder = encoder_of("ViT-L-14", Case(torch.device("cpu"), True, time.time()), 2)
    tower = encoder.tower
    rows = training_rows(made.captions(4), tower.tokens, function_words)
    training = LinCirTraining(LinCirConfig(batch_size=4), tower, rows)
    bare = BareSteps(encoder, training, rows, 4)
    tokens = torch.randn(4, tower.width, generator=torch.Generator().manual_seed(0))
    ids, lengths, holes = pad_rows([row.masked for row in rows])
    wanted = torch.from_numpy(tower.encode_rows([row.whole for row in rows]))
    ours = torch.nn.functional.mse_loss(tower(ids, lengths, holes, tokens), wanted)
    assert float(bare.loss(tokens)) == pytest.approx(float(ours), rel=1e-4)


def test_wrong_arguments_are_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import torch

    from bench.gpu import __main__
    from bench.gpu.__main__ import main

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit, match="torch sees no GPU; --device cpu --small"):
        main([])
    with pytest.raises(SystemExit, match="ViT-X is unknown; there are limits, ViT-B-32"):
        main(["--parts", "ViT-X"])
    with pytest.raises(SystemExit, match="give both"):
        main(["--device", "cpu"])
    with pytest.raises(SystemExit, match="is cuda, cuda:N or cpu, not 'cudo'"):
        main(["--device", "cudo", "--small"])
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(SystemExit, match="cuda:9: torch sees cuda:0 to cuda:1 only"):
        main(["--device", "cuda:9"])
    absent = {**__main__._NEEDED, "no_such_module": "its-package"}
    monkeypatch.setattr(__main__, "_NEEDED", absent)
    with pytest.raises(SystemExit, match=r"not installed: its-package; .* -m pip install its-pack"):
        main(["--device", "cpu", "--small"])
    with pytest.raises(SystemExit):
        main(["--minutes", "long"])
    assert "minutes are a positive number and less than a day, as 8, not 'long'" in (
        capsys.readouterr().err
    )


def test_nothing_else_is_imported(bare_environment: dict[str, str]) -> None:
    """All parts can be imported where the asked packages alone are installed, pydantic not."""
    code = """
import importlib, sys
from bench.gpu.child import _MODULES, _measure_of
for name in (*_MODULES, "ViT-L-14"):
    _measure_of(name)
for other in ("polars", "prefect", "lightning", "pydantic_settings"):
    try:
        importlib.import_module(other)
    except ModuleNotFoundError:
        continue
    sys.exit(f"{other} can be imported: the test proves nothing")
print(sys.modules["pydantic"].BaseModel.__module__)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], env=bare_environment, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout.strip()) == (0, "bench.gpu.bare_pydantic"), done.stderr


@pytest.mark.slow
def test_the_command_with_the_asked_packages_alone(
    bare_environment: dict[str, str], tmp_path: Path, repository: Path
) -> None:
    command = [sys.executable, "-m", "bench.gpu", "--device", "cpu", "--small", "--minutes", "30"]
    done = subprocess.run(
        [*command, "--out", str(tmp_path / "out")],
        env=bare_environment,
        cwd=repository,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    said = json.loads((tmp_path / "out" / "gpu.json").read_text())
    assert said["gaps"] == []
    from bench.gpu.plan import PARTS

    parts = {row["part"] for row in said["rows"]}
    assert parts == {part.name for part in PARTS} - {"limits"}
    assert {"card", "python", "torch", "transformers", "dtype", "date"} <= said["machine"].keys()
