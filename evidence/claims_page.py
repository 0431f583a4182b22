"""The page docs/evidence.md: each claim of the paper beside what the studies of this folder show.

    make evidence-page

Every number is read from the committed results. A study that is not there, or has cells that are
not finished, leaves its claim open.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import exact_page
import hacking_page
import typer
from claims import CLAIMS, OPEN, Row, filled
from hacking_page import KL
from trained_cells import BEYOND, is_current
from trained_claims import CTRL, GROUP, PLAIN, Trained, trained
from trained_page import GAIN, MARGIN, accuracy

from infalign import storage

FOLDER = Path(__file__).parent
PAGE = FOLDER.parent / "docs" / "evidence.md"

FILES: Mapping[str, str] = {
    "exact": "exact.json",
    "hacking": "hacking.json",
    "hacked": hacking_page.TRAINED,
    "ablations": "ablations.json",
    "worst_of_n": "worst_of_n/trained.json",
    "seen": "worst_of_n/real.json",
    "targets": "worst_of_n/targets.json",
    "trained": "trained.json",
}
SIZES = ("training prompts", "samples of each", "new tokens", "on-policy steps", "responses a step")
"""The settings that say how large a training is."""

TEXT = """# Evidence

Each claim of the paper (InfAlign, arXiv:2412.19792), the command that tests it, and the result.
`make evidence-page` writes this page from the results in [evidence/](../evidence/README.md); no
number on it is entered by hand. The claims come from the paper's abstract, its reviews and its
authors' summary; results from its figures are not repeated here.

{summary}

- **Units.** Win rates are in percent and gains in percentage points, by default at {kl:g} nats,
  with 95 % intervals over prompts. In trained studies, the intervals also cover the training seeds.
  ‡ marks one seed: such an interval is too narrow for a verdict.
- **Exact** studies compute the optimum of a training objective on real responses. They show the
  target of training, without an optimizer's errors.
- **Verdicts.** A claim is *reproduced* if the whole interval supports it, *not reproduced* if the
  whole interval contradicts it, and *undecided* otherwise. *In part*: in only some of the cases or,
  between trained policies, by less than {gain:g} points. (The paper's abstract reports 3 to 8
  points.) *At least equal*: the whole interval is above -{margin:g}. Claims that are not the
  paper's *hold* or *do not hold*, by the same rules.
- **Baselines** are the methods that the paper compares with, and its calibration without a
  transform (`identity`). A lead over the best of them must be significant at the level of 97.5 %,
  because two methods, `rloo` and `group`, are tried.
- **KL efficiency** is the share of a policy's KL that moves responses up or down in the reward's
  ranking.
- **Gold rewards** are rewards that no policy was trained on.

{claims}

Trained policies, at matched KL:

{trained}

## Claims that need no long training

{rows}

## Trained policies

[The trained study](../evidence/trained.md) has all methods, budgets and rewards.

{tasks}

## Tasks that the paper does not report

{beyond}

{beyond_tasks}

## What differs from the paper

- **Models.** The bundled policy has 2 million parameters, and SmolLM2 has 135 million. The paper
  trains larger models.
{budgets}
- **Rewards.** Gold rewards are reward models too, not people.
- **Matched KL.** All methods are compared at the same KL to the reference, as in theory. A method
  may do better or worse at the KL that suits it best.
- **One recipe.** All methods of a study share the warm start, the step sizes and the number of
  steps. Each may gain from others, so worst-of-8 on the bundled models has two more studies: with
  another loss of the warm start ([log](log.md#2026-11-29-another-loss-for-the-warm-start)), and
  with fifteen times the steps on policy ([log](log.md#2026-11-29-a-controller-that-wound-up)).
- **Procedure on both sides.** Policy and reference are decoded alike, with the same n.

## Claims that cannot be tested here

Judgments by people, and by judges that are large language models, need data or servers that are not
part of this package. `evaluate.judge` takes such a judge.
"""


def rows(results: Mapping[str, Any]) -> list[Row]:
    """The claims that need no long training."""
    return [
        say(results) if study in results else Row(name, f"evidence/{FILES[study]}", "", OPEN)
        for study, say, name in CLAIMS
    ]


def summary(claims: Sequence[Row], tasks: Sequence[Trained]) -> str:
    """The verdicts in two sentences."""
    counted = Counter(row.verdict for row in claims)
    known = [task for task in tasks if task.said]
    ahead = Counter(task.said[CTRL][1] for task in known).most_common()
    return (
        f"**In short.** Of {counted.total()} claims that need no long training, "
        f"{_counts(counted.most_common())}. {len(known)} of {len(tasks)} tasks have finished "
        "trainings. The claim that InfAlign-CTRL, once trained, leads the best baseline is "
        f"{_on_tasks(ahead) if ahead else 'not tested yet'}."
    )


def _counts(counted: Sequence[tuple[str, int]]) -> str:
    """The verdicts with their numbers, such as: 6 are reproduced and 1 is undecided."""
    said = [f"{count} {'is' if count == 1 else 'are'} {verdict}" for verdict, count in counted]
    return " and ".join(filter(None, (", ".join(said[:-1]), said[-1])))


def _on_tasks(counted: Sequence[tuple[str, int]]) -> str:
    """The verdicts with their numbers of tasks, such as: *undecided* on 4 of them."""
    return ", ".join(f"*{verdict}* on {count} of them" for verdict, count in counted)


def of_tasks(tasks: Iterable[Trained]) -> str:
    """The verdicts on trained policies as a table."""
    head = ["task", CTRL, GROUP, PLAIN]
    table = exact_page.rows_of([head, *([task.name, *task.verdicts] for task in tasks)])
    return table.replace("--:", "---")


def budgets(results: Mapping[str, Any]) -> str:
    """The sizes of the trainings with finished cells."""
    known = [
        task["settings"]
        for study in results["trained"].values()
        for task in study["tasks"]
        if is_current(task) and any(arm.get("win_rates") for arm in task["arms"])
    ]
    if not known:
        return "No training is finished."
    said = ", ".join(
        f"{word} {' to '.join(dict.fromkeys(str(end) for end in (min(own), max(own))))}"
        for word in SIZES
        for own in [{settings[word] for settings in known}]
    )
    right = f"The training rewards are right on {accuracy(gold=False)} % of held-out pairs."
    return f"The budgets are small: {said}. {right}"


def page(folder: Path = FOLDER) -> str:
    """The page, from the results in a folder."""
    files = {name: folder / file for name, file in FILES.items()}
    results = {name: storage.read_json(file) for name, file in files.items() if file.is_file()}
    results = {"trained": {}, **results}
    claims, tasks = rows(results), list(trained(results))
    ours = [task for task in tasks if task.study == BEYOND]
    papers = [task for task in tasks if task.study != BEYOND]
    table = exact_page.rows_of(
        [["claim that needs no long training", "verdict"], *([c.claim, c.verdict] for c in claims)]
    )
    return TEXT.format(
        kl=KL,
        gain=100 * GAIN,
        margin=100 * MARGIN,
        summary=filled(summary(claims, papers)),
        claims=table.replace("--:", "---"),
        trained=of_tasks(papers),
        beyond=of_tasks(ours),
        rows="\n\n".join(row.text() for row in claims),
        tasks="\n\n".join(task.text() for task in papers if task.said or task.left),
        beyond_tasks="\n\n".join(task.text() for task in ours if task.said or task.left),
        budgets=filled(f"- **Training budgets.** {budgets(results)}", "  "),
    )


def main(out: Annotated[Path, typer.Option(help="The page.")] = PAGE):
    """Write the page."""
    storage.write_text(out, page())
    print(out)


if __name__ == "__main__":
    typer.run(main)
