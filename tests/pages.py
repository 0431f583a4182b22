"""The Python of a page: its blocks, and what the page says that they print."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]


def python_blocks(page: str) -> list[tuple[str, str]]:
    """(code, expected output) of each Python block. Blocks of a page share their names.

    The output is the text block that follows, or the comments behind `print(...)`.
    """
    pairs = re.findall(
        r"```python\n(.*?)```(?:\n\n```text\n(.*?)```)?", (ROOT / page).read_text(), re.S
    )
    return [
        (code, shown or "".join(s + "\n" for s in re.findall(r"print\(.*\)\s+# (.+)", code)))
        for code, shown in pairs
    ]
