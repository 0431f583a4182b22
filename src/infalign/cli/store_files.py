"""`infalign store merge`, `export` and `import`: merging stores, and conversion to and from
tables."""

from pathlib import Path
from typing import Annotated

import typer

from . import store_check
from .store import Folder, held_in
from .usage import Command, named_values, refuse

Out = Annotated[
    Path,
    typer.Option(help="New file ending in .parquet, or new folder for several files."),
]
NewStore = Annotated[Path, typer.Option(help="Folder for the new store. It must not exist.")]
Rewards = Annotated[str, typer.Option(help="Column with the rewards, one list per prompt.")]
Key = Annotated[str, typer.Option(help="Column with the prompt ids.")]


MERGE_HELP = (
    "Merge stores of different prompts that were made with the same settings.\n\n"
    "Use it for parts of a collection that several machines drew. Stores that share a prompt or "
    "differ in model, reward or sampling are refused. An interrupted merge leaves no files.\n\n"
    "Example: infalign store merge runs/first/calibration runs/second/calibration --out merged"
)
EXPORT_HELP = (
    "Write a store as Parquet, with one row per prompt and its rewards as a list.\n\n"
    "datasets.load_dataset, pandas and other Parquet readers can read it.\n\n"
    "Example: infalign store export runs/demo/calibration --out rewards.parquet"
)
IMPORT_HELP = (
    "Make a store from a Parquet column of rewards, with one list per prompt.\n\n"
    "Example: infalign store import rewards.parquet --out mine"
)


def add_to(app: typer.Typer) -> None:
    """Add the commands to those of `infalign store`."""
    app.command(cls=Command, help=store_check.HELP)(store_check.check)
    app.command(cls=Command, help=MERGE_HELP)(merge)
    app.command(cls=Command, help=EXPORT_HELP)(export)
    app.command("import", cls=Command, help=IMPORT_HELP)(import_)


def merge(
    folders: Annotated[list[Path], typer.Argument(help="Folders of two or more finished stores.")],
    out: NewStore,
):
    from infalign.stores.merge import merge

    merge(folders, out)
    print(f"{out}: {held_in(out)}")


def export(
    context: typer.Context,
    folder: Folder,
    out: Out,
    samples: Annotated[
        bool,
        typer.Option(
            "--samples", help="Write one row per response, with text, log-probability and reward."
        ),
    ] = False,
    rewards: Rewards = "reference_rewards",
    key: Key = "prompt_id",
):
    from infalign.stores.exchange import export_rewards, export_samples

    if samples:
        refuse(context, "is not used with --samples.", "rewards", "key")
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
            metavar="NAME=VALUE", help="Provenance of the rewards, such as model=… Repeatable."
        ),
    ] = None,
):
    from infalign.stores.exchange import import_rewards

    made_with = None if provenance is None else named_values("--provenance", provenance)
    import_rewards(source, out, rewards=rewards, key=key, provenance=made_with)
    print(f"{out}: {held_in(out)}")
