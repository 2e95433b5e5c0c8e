"""Plausible mistakes on the command line, each with the words that its answer must hold.

`python -m tests.deployments.mistakes FOLDER` makes the files that they name and prints, for each,
the answer and the processor time of a process of its own.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Final, NamedTuple

from PIL import Image

from tests.fakes.benchmark_layouts import write_circo, write_circo_listing

REPOSITORY: Final = Path(__file__).resolve().parents[2]


class Mistake(NamedTuple):
    """A command, split at its spaces, and words of the answer."""

    command: str
    said: tuple[str, ...]
    environment: dict[str, str] = {}  # noqa: RUF012 - never changed

    @property
    def arguments(self) -> list[str]:
        """The command's words."""
        return self.command.split()


KEYS: Final = {
    "AWS_ACCESS_KEY_ID": "a",
    "AWS_SECRET_ACCESS_KEY": "b",
    "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
    "AWS_MAX_ATTEMPTS": "1",
}
NO_KEYS: Final = {"AWS_EC2_METADATA_DISABLED": "true", "AWS_CONFIG_FILE": "/dev/null"}
SCORE: Final = "run score-benchmark --set benchmark=circo"
SEARCH: Final = "search --root tables --image a.png --text red"
EMBED: Final = "run embed-gallery --root tables --set collection=photos"
VIT: Final = "--set encoder.name=ViT-B-32 --set encoder.pretrained="
NO_SERVER: Final = "engine=openai --set X.model=q --set X.base_url=http://127.0.0.1:9/v1"
OFFLINE: Final = ("must be downloaded, but HF_HUB_OFFLINE forbids downloads", "hf download ")
RERUN: Final = "run rerun-backbone --set benchmarks.name=circo --set benchmarks.folder=world"

MISTAKES: Final = (
    Mistake("serch --text x", ("unknown command 'serch'", "'search'")),
    Mistake("run", ("name a flow", "score-benchmark")),
    Mistake("run score-benchmrk", ("unknown flow", "did you mean 'score-benchmark'")),
    Mistake("run rerun-backbone --set benchmark=cirrr", ("did you mean 'benchmarks'", "--list")),
    Mistake(f"{RERUN.replace('circo', 'cirrr')}", ("benchmarks.name", "did you mean 'cirr'")),
    Mistake("run score-benchmark", ("--set benchmark=...", "--set folder=...")),
    Mistake(
        "run score-benchmark --set benchmark=cirrr --set folder=world",
        ("unknown benchmark 'cirrr'", "did you mean 'cirr'"),
    ),
    Mistake(f"{SCORE} --set folder=wrld", ("wrld: no such folder", "Give the folder of the circo")),
    Mistake(f"{SCORE} --set folder=world", ("images", "missing", "published layout")),
    Mistake(f"{SCORE} --set folder=world --set split=dev", ("unknown split", "val, test1, test")),
    Mistake(f"{SCORE} --set folder=world --set split=test1", ("split of circo", "val, test")),
    Mistake(f"{SCORE} --set folder=whole --set methods=cvsy", ("methods", "did you mean 'cvsi'")),
    Mistake(
        f"{SCORE} --set folder=whole --set methods=searle",
        ("searle does not", "mapping.searle"),
    ),
    Mistake(
        f"{SCORE} --set folder=whole --set mapping.checkpoint=phi.pt",
        ("there is nothing at mapping.checkpoint=phi.pt",),
    ),
    Mistake(
        f"{SCORE} --set folder=whole --set captioner.model=/models/blip2",
        ("captioner.model=/models/blip2",),
    ),
    Mistake(
        f"{SCORE} --set folder=whole --set prompts.objects=objcts",
        ("unknown prompt", "did you mean 'objects'"),
    ),
    Mistake(
        f"{SCORE} --set folder=whole --set encoder.nme=ViT-B-32",
        ("encoder.nme", "did you mean 'encoder.name'"),
    ),
    Mistake(f"{SCORE} --set folder=whole --profile prodction", ("did you mean 'production'",)),
    Mistake(f"{SCORE} --set folder=whole --profile bad.toml", ("bad.toml is not TOML", "line 1")),
    Mistake(f"{SCORE} --set folder=whole --profile half.toml", ("extends", "'tiny'")),
    Mistake(f"{SCORE} --set folder=whole --set allow_gaps=2", ("allow_gaps", "equal to 1")),
    Mistake(f"{SCORE} --set folder=whole --set allow_gaps", ("key=value",)),
    Mistake(f"{SCORE} --set folder=whole --root file/tables", ("file is not a folder", "root=DIR")),
    Mistake(f"{SCORE} --set folder=whole --root /proc/tables", ("/proc says", "root=DIR")),
    Mistake(f"{SCORE} --set folder=whole --set out=file/out", ("file is not a folder", "out=DIR")),
    Mistake("demo --out file/demo", ("file is not a folder", "out=DIR")),
    Mistake("up --gpus many", ("auto or a number of GPUs, not 'many'",)),
    Mistake(f"{SCORE} --set folder=whole --root gs://bucket", ("s3://bucket/prefix", "gs://")),
    Mistake(
        f"{SCORE} --set folder=whole --root s3://bucket/t",
        ("s3://bucket/t cannot be used", "AWS_ACCESS_KEY_ID", "AWS_PROFILE"),
        NO_KEYS,
    ),
    Mistake(
        f"{SCORE} --set folder=whole --root s3://bucket/t",
        ("no server answers at http://127.0.0.1:9", "AWS_ENDPOINT_URL"),
        KEYS,
    ),
    Mistake(
        f"{RERUN.replace('world', 'whole')} --set backbone.name=ViT-B-23",
        ("open_clip knows no 'ViT-B-23'", "Did you mean 'ViT-B-32'"),
    ),
    Mistake(
        f"{RERUN.replace('world', 'whole')} --set backbone.pretrained=openai",
        ("pretrained=openai needs the backbone's name",),
    ),
    Mistake(
        f"{RERUN.replace('world', 'whole')} --set backbone.name=ViT-B-32 "
        "--set backbone.pretrained=openai --set methods=lincir",
        ("a mapping network for ViT-B-32 is missing", "backbone.mapping", "mapping_captions"),
    ),
    Mistake(
        "export features --root tables --features abcd1234 --collection photos --out f.npy",
        ("no image_features of the key 'abcd1234'", "`cirflow cache ls`"),
    ),
    Mistake("run embed-gallery --root tables --set collection=photo", ("did you mean 'photos'",)),
    Mistake(
        "run backfill-captions --root tables --set collection=cats", ("'cats'", "photos", "ingest")
    ),
    Mistake("run backfill-captions --root tables --set kind=single", ("single_caption=greedy",)),
    Mistake("run train-mapping", ("captions=FILE", "collection=NAME")),
    Mistake("run train-mapping --set captions=latin.txt", ("latin.txt, line 2 is not UTF-8",)),
    Mistake("run train-mapping --set captions=none.txt", ("none.txt: no such file",)),
    Mistake("run train-mapping --set captions=latin.txt --set steps=many", ("steps", "integer")),
    Mistake(
        "run train-composed --set system=covrr --set triplets=t.json", ("did you mean 'covr'",)
    ),
    Mistake(
        "run train-compodiff --set triplets=t.json --set network.heds=8", ("did you mean 'heads'",)
    ),
    Mistake(
        "run train-reformulation --set triplets=triplts.json",
        ("triplts.json: no such file", "generate-triplets"),
    ),
    Mistake(
        "run train-reformulation --set triplets=t.json --set network.gat=none",
        ("network", "did you mean 'gate'"),
    ),
    Mistake(
        "run generate-triplets --root tables --set collections=photo --set count=9",
        ("did you mean 'photos'",),
    ),
    Mistake(
        "run evaluate-world --set seeds=0 --set subsets=0", ("subsets", "or equal to 1, not 0")
    ),
    Mistake("run finetune-rewriter", ("nothing to learn from", "pairs=FILE")),
    Mistake("ingest photo --name photos --root tables", ("photo", "there is nothing at")),
    Mistake("ingest photos --name my/photos --root tables", ("'my/photos' is not a name",)),
    Mistake("ingest notes --name notes --root tables", ("no input in", "'notes' was not made")),
    Mistake(f"{SEARCH} --gallery photo", ("did you mean 'photos'",)),
    Mistake(f"{SEARCH} --gallery photos", ("not embedded", "cirflow run embed-gallery")),
    Mistake(f"{SEARCH} --gallery photos --method cvsy", ("did you mean 'cvsi'",)),
    Mistake(f"{SEARCH} --gallery photos --family cir", ("did you mean 'cirr'",)),
    Mistake(
        "search --root tables --gallery photos --image notes/n.jpg --text red",
        ("notes/n.jpg is not an image",),
    ),
    Mistake(
        "search --root tables --gallery photos --image b.png --text red",
        ("b.png: no such file or directory",),
    ),
    # Models, devices and servers are looked for before anything that runs them is imported.
    Mistake(f"{SEARCH} --gallery photos --method image-only {VIT}openai", OFFLINE),
    Mistake(
        f"{SEARCH} --gallery photos --method image-only {VIT}opnai",
        ("'ViT-B-32' has no weights 'opnai'", "did you mean 'openai'", "laion2b_s34b_b79k"),
    ),
    Mistake(f"{SEARCH} --gallery photos --method image-only {VIT}random:x", ("random: and a num",)),
    Mistake(f"{SEARCH} --gallery photos --set generator.model=Qwen/none", OFFLINE),
    Mistake(
        f"{SEARCH} --gallery photos --method image-only+verify --set verify.verifier.model=a/b",
        OFFLINE,
    ),
    Mistake(f"{EMBED} --set methods=image-only {VIT}openai", OFFLINE),
    Mistake(f"{EMBED} --set captioner.model=Salesforce/blip2-opt-2.7b", OFFLINE),
    Mistake(f"{EMBED} --set captioner.model=photos", ("'photos' holds no weights", "hub id")),
    Mistake(f"{EMBED} --set captioner.device=xpu", ("captions of photos", "'xpu'", "use 'cpu'")),
    Mistake(
        f"{EMBED} --set captioner.{NO_SERVER.replace('X', 'captioner')}",
        ("captions of photos: the LLM server at http://127.0.0.1:9/v1 does not answer", "start it"),
    ),
    Mistake(
        f"{SCORE} --set folder=whole --set generator.{NO_SERVER.replace('X', 'generator')}",
        ("the LLM server at http://127.0.0.1:9/v1 does not answer", "correct base_url"),
    ),
    Mistake(f"{SCORE} --set folder=whole --set encoder.device=xpu", ("'xpu'", "use 'cpu'")),
    Mistake(f"{SCORE} --set folder=whole --set methods=image-only {VIT}openai", OFFLINE),
    Mistake(f"run train-mapping --set captions=dogs.txt {VIT}openai", OFFLINE),
    Mistake(f"run train-compodiff --set triplets=t.json {VIT}openai", OFFLINE),
    Mistake("run finetune-rewriter --set pairs=dogs.jsonl --set base=Qwen/none", OFFLINE),
    Mistake(
        "run finetune-rewriter --set pairs=dogs.txt", ("dogs.txt is not a ref", "triplets.json")
    ),
    Mistake(
        "run train-reformulation --set triplets=t.json",
        ("t.json is not a reference to triplets", "root: Field required", "generate-triplets"),
    ),
    Mistake("run demo --set seed=-1", ("a seed is 0, 1, 2, ..., not -1",)),
    Mistake("demo --seed -1", ("a seed is 0, 1, 2, ..., not -1",)),
    Mistake("run evaluate-world --set seeds=-1", ("a seed is 0, 1, 2, ..., not -1",)),
    Mistake("run ingest --set source=s3://b/p --set name=p", ("s3://b/p", "AWS_ACCESS"), NO_KEYS),
    Mistake("ingest s3://b/p --name p", ("s3://b/p", "AWS_ACCESS_KEY_ID"), NO_KEYS),
    Mistake("import network covr a.png --out n --zero-shot", ("a.png cannot be read as weights",)),
    Mistake("import network covr photos --out n --zero-shot", ("photos is a folder",)),
    Mistake(
        "import network clip4cir photos --out n --zero-shot",
        ("photos holds 0 files tuned_clip*.pt", "combiner*.pt"),
    ),
    Mistake("import network magiclens a.png --out n --zero-shot", ("a.png", "of Flax")),
    Mistake("import network tuned-embedding photos --out n --zero-shot", ("no config.json",)),
    Mistake("import network transagg odd.pt --out photos --zero-shot", ("photos holds something",)),
    Mistake("export network photos --out n", ("photos holds no config.json", "give the folder")),
    Mistake(
        "import features odd.safetensors --names t.json --collection photos --root tables",
        ("odd.safetensors", "not what its name says"),
    ),
    Mistake("leaderboard --root s3://bucket/t", ("AWS_ACCESS_KEY_ID",), NO_KEYS),
    Mistake(
        "score --benchmark circo --split val --annotations world --predictions p.json",
        ("p.json",),
    ),
)


def write_files(folder: Path) -> None:
    """The files that the mistakes name."""
    (folder / "photos").mkdir(parents=True)
    (folder / "notes").mkdir()
    Image.new("RGB", (32, 32), "red").save(folder / "a.png")
    Image.new("RGB", (32, 32), "red").save(folder / "photos" / "a.png")
    (folder / "notes" / "n.jpg").write_text("notes", encoding="utf-8")
    (folder / "file").write_text("a file", encoding="utf-8")
    (folder / "bad.toml").write_text("extends = tiny\n", encoding="utf-8")
    (folder / "half.toml").write_text('[encoder]\nname = "x"\n', encoding="utf-8")
    (folder / "t.json").write_text("{}", encoding="utf-8")
    (folder / "dogs.txt").write_text("a dog\n", encoding="utf-8")
    (folder / "dogs.jsonl").write_text('{"prompt": "a dog", "answer": "a cat"}\n', encoding="utf-8")
    (folder / "odd.pt").write_bytes(b"PK\x03\x04")
    (folder / "odd.safetensors").write_bytes(b"odd" * 9)
    (folder / "latin.txt").write_bytes("a dog\na café\n".encode("latin-1"))
    write_circo(folder / "world")
    write_circo_listing(folder / "world", range(1, 61))
    write_circo(folder / "whole")
    for number in range(1, 61):
        place = folder / "whole" / "COCO2017_unlabeled" / "unlabeled2017" / f"{number:012}.jpg"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (32, 32), "blue").save(place)
    write_circo_listing(folder / "whole", range(1, 61))
    from storage.collections.collection import ingest
    from storage.locations.location import Location

    ingest(Location(str(folder / "tables")), folder / "photos", "photos")


def surroundings(folder: Path) -> dict[str, str]:
    """The environment of all mistakes: no credentials, no downloads, nothing known from before."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    empty = str(folder.parent / "empty")
    here = {"HF_HUB_OFFLINE": "1", "HF_HOME": empty, "XDG_CACHE_HOME": empty}
    return {**kept, **here, "PYTHONPATH": str(REPOSITORY)}


def main(folder: Path) -> None:
    """Print each answer with its processor time."""
    write_files(folder)
    for mistake in MISTAKES:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run(
            [sys.executable, "-m", "deployments.cli", *mistake.arguments],
            cwd=folder,
            env=surroundings(folder.resolve()) | mistake.environment,
            capture_output=True,
            text=True,
            timeout=300,
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        fits = all(word in done.stderr for word in mistake.said) and done.returncode == 2
        print(f"{seconds:5.2f} s  {'' if fits else 'UNEXPECTED '}cirflow {mistake.command}")
        for line in done.stderr.strip().splitlines()[-4:]:
            print(f"         {line[:400]}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
