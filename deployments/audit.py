"""The dependencies: each pinned and hashed, each installed at its pin, each under a known licence.

    make audit        # asks no network

Exit status 1 and a line for each fault otherwise."""

from __future__ import annotations

import fnmatch
import importlib.metadata
import re
import sys
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packaging.markers import InvalidMarker, Marker

from models.spelling import agreed

PROJECT = Path(__file__).resolve().parents[1]
BUILT_IN = frozenset({"cirflow", "pip"})
"""Installed without a lock file: the project itself, and what comes with Python."""

_PIN = re.compile(
    r"([A-Za-z0-9][\w.-]*)(?:\[[\w,.-]+\])?==([\w.!+-]+)(?: ; ([^;]+?))?((?: --hash=\S+)*)"
)
_HASH = re.compile(r"--hash=sha256:[0-9a-f]{64}")


@dataclass(frozen=True)
class Installed:
    """A package as it says itself to be.

    Attributes:
        licence: An SPDX expression, or what the package writes in its place.
    """

    name: str
    version: str
    licence: str


def read_lock(text: str, file: str) -> tuple[dict[str, str], list[str]]:
    """Name -> version of the pins of a lock file that hold for this machine, and all its faults."""
    pins: dict[str, str] = {}
    faults: list[str] = []
    for line in re.sub(r"\s*\\\n\s*", " ", text).splitlines():
        line = re.sub(r"(^|\s)#.*", "", line).strip()
        if not line:
            continue
        pin = _PIN.fullmatch(line)
        if pin is None:
            faults.append(f"{file}: {line.split(' --hash')[0]!r} is not NAME==VERSION with hashes")
            continue
        name = _canonical(pin[1])
        try:
            holds = pin[3] is None or Marker(pin[3]).evaluate()
        except InvalidMarker:
            faults.append(f"{file}: {name} is pinned where {pin[3]!r}, which is not a marker")
            continue
        if holds:
            pins[name] = pin[2]
        if not pin[4]:
            faults.append(f"{file}: {name} has no hash; make them with `make lock`")
        elif not all(_HASH.fullmatch(each) for each in pin[4].split()):
            faults.append(f"{file}: {name} has a hash that is not sha256")
    return pins, faults


def installed_faults(found: Iterable[Installed], pins: Mapping[str, str]) -> list[str]:
    """Packages that no lock file names, or that lie there in another version."""
    faults = []
    for package in found:
        pin = pins.get(package.name)
        if package.name in BUILT_IN or pin == package.version:
            continue
        said = f"pinned to {pin}" if pin else "in no lock file"
        faults.append(f"{package.name} {package.version} is installed and {said}")
    return faults


def licence_faults(found: Iterable[Installed], rules: Mapping[str, Any]) -> list[str]:
    """Packages under a licence that is not allowed, and exceptions without a reason."""
    exceptions: Mapping[str, str] = rules["exceptions"]
    faults = [f"the exception {name} has no reason" for name, why in exceptions.items() if not why]
    for package in found:
        if any(fnmatch.fnmatchcase(package.name, pattern) for pattern in exceptions):
            continue
        if not _is_allowed(package.licence, rules):
            faults.append(
                f"{package.name}: licence {package.licence or '(none)'!r} is not allowed; see "
                "requirements/licences.toml"
            )
    return faults


def _is_allowed(licence: str, rules: Mapping[str, Any]) -> bool:
    """Whether an expression holds: all of its AND, one of its OR."""
    text = rules["written"].get(licence.strip(), licence).strip()
    if text in rules["allowed"] or not text:
        return bool(text)
    if text.startswith("(") and text.endswith(")") and text.count("(") == 1:
        return _is_allowed(text[1:-1], rules)
    for word, holds in ((" AND ", all), ("; ", all), (" OR ", any)):
        parts = _split(text, word)
        if len(parts) > 1:
            return holds(_is_allowed(part, rules) for part in parts)
    return False


def _split(text: str, word: str) -> list[str]:
    """Parts of an expression between a word that stands in no bracket."""
    parts, depth, start = [], 0, 0
    for place, sign in enumerate(text):
        depth += (sign == "(") - (sign == ")")
        if depth == 0 and text.startswith(word, place):
            parts.append(text[start:place])
            start = place + len(word)
    return [*parts, text[start:]]


def installed() -> list[Installed]:
    """Every package of this environment, by name."""
    found = {}
    for distribution in importlib.metadata.distributions():
        name = _canonical(distribution.name)
        found[name] = Installed(name, distribution.version, _licence(distribution.metadata))
    return [found[name] for name in sorted(found)]


def _licence(about: Any) -> str:
    if expression := about.get("License-Expression"):
        return str(expression)
    classified = [
        line.rpartition(" :: ")[2]
        for line in about.get_all("Classifier") or []
        if line.startswith("License :: ") and not line.endswith(("OSI Approved", "DFSG approved"))
    ]
    return "; ".join(classified) or str(about.get("License") or "").strip().split("\n")[0]


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def missing_pins(project: Mapping[str, Any], pins: Iterable[str]) -> list[str]:
    """Dependencies of pyproject.toml, its extras and groups, that no lock file pins."""
    groups = [project["project"]["dependencies"]]
    groups += project["project"].get("optional-dependencies", {}).values()
    groups += project.get("dependency-groups", {}).values()
    named = {_canonical(re.split(r"[\s\[<>=!~;]", d)[0]) for group in groups for d in group}
    return [f"{name} of pyproject.toml is in no lock file" for name in sorted(named - set(pins))]


def main() -> int:
    """Audit this checkout and its environment; returns the exit status."""
    folder = PROJECT / "requirements"
    pins: dict[str, str] = {}
    faults: list[str] = []
    for file in sorted(folder.glob("*.txt")):
        here, wrong = read_lock(file.read_text(encoding="utf-8"), file.name)
        faults += wrong
        apart = [n for n, version in here.items() if pins.get(n, version) != version]
        faults += [f"{file.name}: {n} is pinned to another version elsewhere" for n in apart]
        pins |= here
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))
    rules = tomllib.loads((folder / "licences.toml").read_text(encoding="utf-8"))
    found = installed()
    faults += missing_pins(project, pins)
    faults += installed_faults(found, pins) + licence_faults(found, rules)
    for fault in faults:
        print(f"audit: {fault}", file=sys.stderr)
    said = f"{len(faults)} {agreed(len(faults), 'fault')}"
    print(f"{len(pins)} pins, {len(found)} installed packages, {said}")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
