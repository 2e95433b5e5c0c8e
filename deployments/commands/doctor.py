"""Check libraries, GPU, disk, storage, checkpoints and servers; each fault has a remedy."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict

from deployments.place import add_place, profile_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    add_place(parser)
    parser.add_argument("--json", action="store_true", help="print as JSON")


def run(arguments: argparse.Namespace) -> int:
    """Run every check; the status is 1 if one finds something broken."""
    from deployments.checks import all_checks

    profile = profile_of(arguments)
    findings = list(all_checks(profile))
    if arguments.json:
        print(json.dumps([asdict(finding) for finding in findings], indent=1))
    else:
        for finding in findings:
            print(f"{finding.state:7} {finding.what}: {finding.found}")
            if finding.remedy:
                print(f"        -> {finding.remedy}")
    sys.stdout.flush()
    return 1 if any(finding.state == "broken" for finding in findings) else 0
