"""Train and judge every method of the trained study, from nothing; takes days, and can be ended.

    python evidence/trained.py --data DATA --work work

Fetches the real model, trains the rewards, writes the prompts and calls `infalign compare` on every
configuration in `studies/`, in the order of `WAVES`: what carries the claims comes first. Finished
cells are archived in `cells/`, so another machine goes on from there. The page `trained.md` is
written after every wave, from whatever is finished. The same command continues.
"""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import hacking_page
import trained_cells
import trained_page
import typer
from preferences import TASKS
from trained_cells import BUNDLED, REAL

HERE = Path(__file__).parent.resolve()


@dataclass(frozen=True)
class Wave:
    """A part of the cells of some studies. Empty: all that the configuration lists."""

    studies: tuple[str, ...]
    methods: str = ""
    kl: str = ""
    seeds: str = ""

    def options(self) -> list[str]:
        """The options of `infalign compare` that select it."""
        given = {"--methods": self.methods, "--kl": self.kl, "--seeds": self.seeds}
        return [text for name, value in given.items() if value for text in (name, value)]


CLAIM, FIVE = "rlhf,identity,rloo", "rlhf,identity,rloo,group,pkpo"
WAVES = (
    Wave(REAL[:2], CLAIM, seeds="0"),
    Wave(BUNDLED, kl="0.5", seeds="0"),
    Wave((hacking_page.STUDY,)),
    Wave(REAL[2:], CLAIM, seeds="0"),
    Wave(REAL, FIVE, seeds="0"),
    Wave(BUNDLED, kl="0.5"),
    Wave(REAL, seeds="0"),
    Wave(REAL, FIVE),
    Wave((*BUNDLED, *REAL)),
)


def script(name: str, *arguments: str) -> None:
    """Run one of the scripts beside this one."""
    subprocess.run([sys.executable, str(HERE / f"{name}.py"), *arguments], check=True)


def prepare(work: Path, source: list[str]) -> None:
    """The models, rewards and prompts of the studies; what exists is not made again."""
    script("real_model", "--out", str(work / "models"))
    script("prompts", "--out", str(work / "prompts"), *source)
    out = ["--out", str(work / "rewards"), *source]
    for task in TASKS:
        script("rewards", task, "minilm", "--models", str(work / "models"), *out)
        script("ngrams", task, *out)


def compare(study: str, wave: Wave, work: Path) -> bool:
    """Bring a part of a study to its end, and whether all of its cells are finished."""
    command = [sys.executable, "-m", "infalign", "compare", f"{HERE}/studies/{study}.yaml"]
    command += ["--out", study, "--archive", f"{trained_cells.CELLS}/{study}", *wave.options()]
    return subprocess.run(command, cwd=work, check=False).returncode == 0


def write_pages() -> None:
    """All pages, from what is finished."""
    trained_page.write()
    script("claims_page")
    script("headline")


def main(
    work: Annotated[Path, typer.Option(help="Folder for models, rewards and studies.")],
    data: Annotated[Path | None, typer.Option(help="Folder with preferences/.")] = None,
    hub: Annotated[bool, typer.Option(help="Download the pairs instead.")] = False,
):
    """Run what is not finished; write trained.md, trained.json and the pictures."""
    if (data is None) != hub:
        raise typer.BadParameter("give either --data FOLDER or --hub")
    work.mkdir(parents=True, exist_ok=True)
    prepare(work.resolve(), ["--hub"] if data is None else ["--data", str(data.resolve())])
    whole = {}
    for wave in WAVES:
        for study in wave.studies:
            whole[study] = compare(study, wave, work)  # in its last wave: of every cell
            write_pages()
    script("worst_of_n/real", "--work", str(work))
    write_pages()
    if not all(whole.values()):
        sys.exit("Some cells failed; the messages above say why. The same command tries them again")


if __name__ == "__main__":
    typer.run(main)
