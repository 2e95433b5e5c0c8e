"""Check libraries, GPU, disk, storage, checkpoints and servers; each fault has a remedy."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.add_argument("--profile", default="tiny", help="tiny, production or a TOML file")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--json", action="store_true", help="print as JSON")


def run(arguments: argparse.Namespace) -> int:
    """Run every check; the status is 1 if one finds something broken."""
    from deployments.checks import all_checks
    from flows.profiles import parse_assignments, resolve_profile

    profile = resolve_profile(arguments.profile, parse_assignments(arguments.set))
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
