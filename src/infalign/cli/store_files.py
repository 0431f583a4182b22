"""`infalign store merge`, `export` and `import`: stores into one, into tables, and back."""

from pathlib import Path
from typing import Annotated

import typer

from .store import Folder, held_in
from .usage import Command

Out = Annotated[
    Path, typer.Option(help="A file that ends in .parquet, or a folder for several. Not replaced.")
]
NewStore = Annotated[Path, typer.Option(help="Folder of the new store. Not replaced.")]
Rewards = Annotated[str, typer.Option(help="Column of the rewards, a list for each prompt.")]
Key = Annotated[str, typer.Option(help="Column of the prompt ids.")]


def add_to(app: typer.Typer) -> None:
    """Add the commands to those of `infalign store`."""
    app.command(cls=Command)(merge)
    app.command(cls=Command)(export)
    app.command("import", cls=Command)(import_)


def merge(
    folders: Annotated[list[Path], typer.Argument(help="Folders of finished stores, two or more.")],
    out: NewStore,
):
    """Make one store of several that hold different prompts and were made alike.

    Parts of a collection that several machines drew, say. A prompt that stands in two of them, or
    another model, reward or sampling, is refused by name. Killed, it leaves nothing.

    Example: infalign store merge runs/first/calibration runs/second/calibration --out merged
    """
    from infalign.stores.merge import merge

    merge(folders, out)
    print(f"{out}: {held_in(out)}")


def export(
    folder: Folder,
    out: Out,
    samples: Annotated[
        bool,
        typer.Option("--samples", help="Each response, with text, log-probability and reward."),
    ] = False,
    rewards: Rewards = "reference_rewards",
    key: Key = "prompt_id",
):
    """Write a store as Parquet: one row for each prompt, its rewards as a list.

    datasets.load_dataset, pandas and any other reader of Parquet take it.

    Example: infalign store export runs/demo/calibration --out rewards.parquet
    """
    from infalign.stores.exchange import export_rewards, export_samples

    if samples:
        export_samples(folder, out)
    else:
        export_rewards(folder, out, rewards=rewards, key=key)
    print(f"{out}: {held_in(folder)}")


def import_(
    source: Annotated[Path, typer.Argument(help="A Parquet file, or a folder of them.")],
    out: NewStore,
    rewards: Rewards = "reference_rewards",
    key: Key = "prompt_id",
    provenance: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE", help="What the rewards were made with; repeatable: model=…"
        ),
    ] = None,
):
    """Make a store of a column of rewards, one list for each prompt.

    Example: infalign store import rewards.parquet --out mine
    """
    from infalign.stores.exchange import import_rewards

    made_with = None if provenance is None else dict(map(_pair, provenance))
    import_rewards(source, out, rewards=rewards, key=key, provenance=made_with)
    print(f"{out}: {held_in(out)}")


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise typer.BadParameter(f"`--provenance` must be NAME=VALUE; got {text!r}.")
    return name, value
