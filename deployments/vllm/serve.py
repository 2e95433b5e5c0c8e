"""Start vLLM under a name that says which weights answer, and print lines for the profile.

A server cannot prove which weights stand behind a model's name. Here the name carries the start of
the weights' fingerprint: other weights have another name, and a client that asks for the old one is
refused instead of getting answers of another model.

    export VLLM_API_KEY=...          (needed unless the server listens on loopback)
    python -m deployments.vllm.serve --model /models/vicuna-13b --name vicuna --dtype bfloat16
    python -m deployments.vllm.serve --model lmsys/vicuna-13b-v1.5 --revision COMMIT --name vicuna
        --dtype bfloat16 --adapter rewriter=/models/rewriter-v1 -- --max-model-len 2048

Words after `--` go to vLLM unchanged. `--show` prints everything and starts nothing. Run it on the
machine that holds the model's files, in the environment that vLLM is installed in."""

from __future__ import annotations

import argparse
import os
import re
import shlex
import sys
import tempfile
from collections.abc import Sequence
from ipaddress import ip_address

from deployments.errors import UserError
from deployments.vllm.names import DTYPES, Named, named_adapter, named_base, needed_rank


def main(argv: Sequence[str] | None = None) -> int:
    """Start the server in place of this process; returns only if that was not possible."""
    arguments = _parse(sys.argv[1:] if argv is None else argv)
    try:
        check_key(arguments.host)
        base = named_base(arguments.model, arguments.revision, arguments.dtype, arguments.name)
        adapters = [
            named_adapter(base, name, folder) for name, folder in map(_pair, arguments.adapter)
        ]
        command = vllm_command(arguments, base, adapters)
    except (UserError, ValueError, OSError) as error:
        print(f"serve: {error}", file=sys.stderr)
        return 2
    print(profile_lines(arguments, [base, *adapters]), flush=True)
    print(f"# {shlex.join(command)}", flush=True)
    return 0 if arguments.show else _become(command)


def check_key(host: str) -> None:
    """Refuse a server that other machines can reach without a key.

    Raises:
        UserError: the address is not loopback, and there is no key.
    """
    try:
        loopback = host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        loopback = False
    if not loopback and not os.environ.get("VLLM_API_KEY"):
        raise UserError(
            f"{host} can be reached from other machines: put a key into the environment as "
            "VLLM_API_KEY (clients send it as OPENAI_API_KEY), or listen on 127.0.0.1"
        )


def vllm_command(
    arguments: argparse.Namespace, base: Named, adapters: Sequence[Named]
) -> list[str]:
    """The command that starts vLLM; the key is not in it, since vLLM reads VLLM_API_KEY itself."""
    command = [
        *(sys.executable, "-m", "vllm.entrypoints.openai.api_server"),
        *("--model", base.source, "--served-model-name", base.served),
        *("--host", arguments.host, "--port", str(arguments.port)),
        *("--dtype", arguments.dtype),
        # A request says how to sample; the checkpoint's defaults would change the answers.
        *("--generation-config", "vllm"),
    ]
    if base.revision:
        command += ["--revision", base.revision, "--tokenizer-revision", base.revision]
    if adapters:
        rank = max(needed_rank(adapter.source) for adapter in adapters)
        command += ["--enable-lora", "--max-lora-rank", str(rank), "--lora-modules"]
        command += [f"{adapter.served}={adapter.source}" for adapter in adapters]
    if arguments.images:
        # Images come inside the request. No address is ever fetched for a client.
        command += ["--limit-mm-per-prompt", '{"image": 1}']
        command += ["--allowed-media-domains", "none.invalid"]
    if arguments.cpu:
        # A seeded request whose prompt is processed in pieces kills vLLM 0.32's CPU engine.
        command += ["--no-enable-chunked-prefill", "--max-num-batched-tokens", "8192"]
    return command + list(arguments.rest)


def profile_lines(arguments: argparse.Namespace, models: Sequence[Named]) -> str:
    """Lines for a profile: one block for each served name."""
    section = "instructcir.captioner" if arguments.images else "generator"
    host = "HOST" if arguments.host in ("0.0.0.0", "::") else arguments.host
    blocks = [
        f"[{section}]\n"
        'engine = "openai"\n'
        f'base_url = "http://{host}:{arguments.port}/v1"\n'
        f'model = "{model.served}"\n'
        f'identity = "{model.identity}"\n'
        for model in models
    ]
    return "\n".join(blocks)


def _become(command: Sequence[str]) -> int:
    """Run vLLM in place of this process, so that it gets the signals of its supervisor."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}
    # From a folder that holds no packages of this project: vLLM must not import them for its own.
    os.chdir(tempfile.gettempdir())
    os.execve(command[0], list(command), environment)


def _pair(text: str) -> tuple[str, str]:
    name, separator, folder = text.partition("=")
    if not separator or not re.fullmatch(r"[A-Za-z0-9._-]+", name):
        raise UserError(f"--adapter takes NAME=FOLDER, not {text!r}")
    return name, folder


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    words = list(argv)
    cut = words.index("--") if "--" in words else len(words)
    parser = argparse.ArgumentParser(
        prog="python -m deployments.vllm.serve",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--model", required=True, help="folder of a checkpoint, or a hub id")
    parser.add_argument("--revision", default="", help="full commit of a hub id")
    parser.add_argument("--name", required=True, help="beginning of the served name")
    parser.add_argument("--dtype", required=True, choices=DTYPES)
    parser.add_argument("--adapter", action="append", default=[], metavar="NAME=FOLDER")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--images", action="store_true", help="the model takes one image")
    parser.add_argument("--cpu", action="store_true", help="vLLM's CPU build (tests only)")
    parser.add_argument("--show", action="store_true", help="print, start nothing")
    arguments = parser.parse_args(words[:cut])
    arguments.rest = words[cut + 1 :]
    return arguments


if __name__ == "__main__":
    sys.exit(main())
