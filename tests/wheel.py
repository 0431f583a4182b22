"""Build sdist and wheel, install the wheel alone into an empty environment, and use it there.

    make wheel

The environment has no extras: no torch, no transformers. The commands and the README's Python run
in a folder outside the repository, so that only the wheel can answer.
"""

import os
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

from pages import python_blocks

ROOT = Path(__file__).parents[1]


def run(*command, cwd: Path) -> str:
    """The command's stdout; its stderr and an exception when it fails."""
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(list(map(str, command)), cwd=cwd, env=clean, stdout=-1, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))} ended with {done.returncode}:\n{done.stdout}")
    return done.stdout


def require(condition: bool, expected: str) -> None:
    """Stop with what was expected; `assert` would vanish under `python -O`."""
    if not condition:
        sys.exit(f"The wheel failed: {expected}.")
    print(f"ok: {expected}", flush=True)


def build(folder: Path) -> Path:
    """The wheel that is built from the sdist, as an index would receive both."""
    run(sys.executable, "-m", "build", "--outdir", folder, ROOT, cwd=folder)
    (wheel,) = folder.glob("*.whl")
    (sdist,) = folder.glob("*.tar.gz")
    print(f"built {sdist.name} and {wheel.name} ({wheel.stat().st_size / 1e6:.1f} MB)")
    return wheel


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "dist").mkdir()
        wheel = build(folder / "dist")
        venv.create(folder / "env", with_pip=True)
        bin_, here = folder / "env" / "bin", folder / "empty"
        here.mkdir()
        python = bin_ / "python"
        run(python, "-m", "pip", "install", "--quiet", wheel, cwd=here)

        code = "import importlib.util as u; print(u.find_spec('torch'))"
        require(run(python, "-c", code, cwd=here) == "None\n", "torch is not installed")
        version = run(python, "-c", "import infalign; print(infalign.__version__)", cwd=here)
        require(
            version.strip() in wheel.name, f"the wheel is named after version {version.strip()}"
        )
        for command in ([bin_ / "infalign"], [python, "-m", "infalign"]):
            said = run(*command, "--version", cwd=here)
            require(version.strip() in said, f"`{command[-1]} --version` prints the version")
            require("design" in run(*command, "--help", cwd=here), "help lists the commands")
        design = ("design", "--procedure", "best-of-n:8", "--kl", "0.5")
        require("0.9299" in run(bin_ / "infalign", *design, cwd=here), "`infalign design` designs")
        require(
            "best-of-n:N" in run(bin_ / "infalign", "list", "procedures", cwd=here), "list lists"
        )
        first = run(bin_ / "infalign", "init", "--yes", cwd=here).split()
        require(first == ["reward.py", "config.yaml"], "`infalign init` writes a configuration")
        run(bin_ / "infalign", "explore", "--out", "explorer.html", cwd=here)
        page = (here / "explorer.html").read_text(encoding="utf-8")
        require(page.startswith("<!doctype html>"), "`infalign explore` writes its page")
        blocks = [block for block in python_blocks("README.md") if "trl" not in block[0]]
        (here / "readme.py").write_text("\n".join(code for code, _ in blocks))
        printed = run(python, "readme.py", cwd=here)
        require(printed == "".join(shown for _, shown in blocks), "the README's Python runs")


if __name__ == "__main__":
    main()
