"""Rows of a dataset on the Hugging Face Hub."""

from infalign.config import Prompts
from infalign.errors import DataError, MissingExtraError

from .files import Rows


def hub_rows(source: Prompts) -> tuple[str, Rows]:
    """The name of a dataset, and its rows, numbered from 0.

    Raises DataError for a dataset that cannot be read, and MissingExtraError without `datasets`.
    """
    try:
        import datasets
    except ImportError:
        raise MissingExtraError(
            'Reading a data set needs `datasets`. Install it with: pip install "infalign[train]"'
        ) from None
    name = "/".join(filter(None, (source.dataset, source.config)))
    try:
        # Anthropic/hh-rlhf stores its parts in folders; most other datasets use configurations.
        configs = datasets.get_dataset_config_names(source.dataset)
        part = {"name": source.config} if source.config in configs else {"data_dir": source.config}
        data = datasets.load_dataset(source.dataset, **part, split=source.split)
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        words = str(error).splitlines() or [type(error).__name__]
        raise DataError(
            f"Data set {name!r}, split {source.split!r}, cannot be read: "
            f"{words[0]} Check `prompts.dataset`, `config` and `split`."
        ) from error
    if source.limit:
        data = data.select(range(min(source.limit, len(data))))
    return name, [(i, {**row, "split": source.split}) for i, row in enumerate(data)]
