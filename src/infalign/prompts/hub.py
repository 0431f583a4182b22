"""The table of a dataset on the Hugging Face Hub, or of a local folder in its place."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from infalign.config import Prompts
from infalign.errors import DataError, MissingExtraError, install

from .saved import is_saved, saved_table
from .table import Row, Rows, Table

__all__ = ["hub_table"]


class _Numbered(Sequence):
    """The rows of a part of a data set, numbered from 0 and read when they are needed."""

    def __init__(self, data: Any):
        self.data = data

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index):
        return index, self.data[index]

    def __iter__(self) -> Iterator[Row]:
        return enumerate(self.data)


def hub_table(source: Prompts) -> Table:
    """The splits of a dataset.

    Raises DataError for a dataset that cannot be read, with the configurations that there are if
    one must be named, and MissingExtraError without `datasets`.
    """
    folder = Path(str(source.dataset))
    if is_saved(folder):
        return saved_table(folder, str(source.dataset))
    try:
        import datasets
    except ImportError:
        raise MissingExtraError(
            f"Reading a data set needs `datasets`. Install it with: {install('train')}"
        ) from None
    name = "/".join(filter(None, (source.dataset, source.config)))
    try:
        # Anthropic/hh-rlhf stores its parts in folders; most other datasets use configurations.
        configs = datasets.get_dataset_config_names(source.dataset)
        if source.config is None and len(configs) > 1 and "default" not in configs:
            raise DataError(
                f"Data set {name!r} has {len(configs)} configurations: "
                f"{', '.join(configs[:20])}{', …' if len(configs) > 20 else ''}. Name one with "
                "`prompts.config`."
            )
        part = {"name": source.config} if source.config in configs else {"data_dir": source.config}
        if any(c in source.split for c in "[+"):  # a part of a split, such as train[:1000]
            parts = {
                source.split: datasets.load_dataset(source.dataset, **part, split=source.split)
            }
        else:
            parts = dict(datasets.load_dataset(source.dataset, **part))
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        words = " ".join(str(error).split()) or type(error).__name__
        raise DataError(
            f"Data set {name!r}, split {source.split!r}, cannot be read: {words[:300]} Check "
            "`prompts.dataset`, `config` and `split`."
        ) from error
    columns = dict.fromkeys(n for data in parts.values() for n in data.column_names)
    rows: dict[str | None, Rows] = {str(s): _Numbered(data) for s, data in parts.items()}
    return Table(name, "row", rows, list(columns))
