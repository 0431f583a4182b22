"""Hostile texts as responses, prompts, names and errors, in every output.

Nothing raw may reach a terminal, no table may gain cells or commands, and no page may run, ask for
or overflow with what it shows.
"""

import json
import random
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from . import browser
from .hostile import PAYLOADS
from .outcomes import ALLOWED, Case, Outcome, Verdict, Wanted, judge
from .processes import Ended, infalign
from .servers import impatient, url
from .world import EVALUATE, World

CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
BIDI = re.compile("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\u2028\u2029]")
PLACES = ("response", "prompt", "policy name", "gold name", "model", "reward", "override", "error")
"""Where a text is put. Texts that the system cannot pass are left out."""

FORMS = ("table", "json", "markdown", "latex")


def cases(world: World, rng: random.Random, wanted: Wanted) -> Iterator[Case]:
    """Every text in every place, and the pages and tables with them."""
    for name in PAYLOADS:
        for place in PLACES:
            if place in ("response", "prompt", "error") or on_a_command_line(name):
                try_ = partial(_terminal, world, name, place)
                yield Case("texts on the terminal", f"{name} as {place}", try_)
        if on_a_command_line(name):
            for form in FORMS:
                yield Case(
                    f"texts in {form}", f"{name}, {form}", partial(_table, world, name, form)
                )
        yield Case("texts in stores", f"{name} in a store", partial(_store, world, name))
        if browser.available():
            yield Case("texts in reports", f"{name} in a report", partial(_report, world, name))
            yield Case("texts in the explorer", f"{name} in a fragment", partial(_explorer, name))


def on_a_command_line(name: str) -> bool:
    """Whether a shell can pass this text."""
    text = PAYLOADS[name]
    return "\0" not in text and "\ud800" not in text and len(text) < 100_000


def _raw(ended: Ended, json_lines: bool = False) -> list[str]:
    """What of a command's output acts on a terminal."""
    outputs = {"stdout": ended.stdout, "stderr": ended.stderr}
    found = []
    for stream, text in outputs.items():
        acting = CONTROLS.findall(text)
        if not (json_lines and stream == "stdout"):  # JSON is read by machines
            acting += BIDI.findall(text)
        if acting:
            found.append(f"raw {acting[0]!r} in {stream} ({len(acting)} in all)")
    return found


def _shown(ended: Ended, json_lines: bool = False, names: tuple[str, ...] = ()) -> Verdict:
    verdict = judge(ended, names=names)
    if verdict.outcome in ALLOWED and (raw := _raw(ended, json_lines)):
        return Verdict(Outcome.silent, "; ".join(raw))
    return verdict


def _terminal(world: World, name: str, place: str, scratch: Path) -> Verdict:
    text, few = PAYLOADS[name], ("--max-new-tokens", "4")
    sample = ("sample", "--procedure", "sampling", *few)
    setup = world.setup(before=impatient)
    match place:
        case "response" | "error":
            behavior = f"{'say' if place == 'response' else 'complain'}/{name}"
            words = (*sample, "--model", url(behavior, "policy"), "ab")
        case "prompt":
            path = scratch / "prompts.jsonl"
            path.write_text(json.dumps({"prompt": f"ab{text}"}) + "\n")
            words = (*sample, "--model", "model", "--prompts", path)
        case "policy name":
            words = (*EVALUATE, "--policy", f"{text}=other", "--out", scratch / "out")
        case "gold name":
            gold = f"{text}=python:rewards:late"
            words = (*EVALUATE, "--gold", gold, "--out", scratch / "out")
        case "model":
            words = (*sample, "--model", text, "ab")
        case "reward":
            words = (*sample[:2], "best-of-n:2", "--model", "model", "--reward", text, "ab")
        case "override":
            words = ("run", "config.yaml", f"procedure={text}", "--out", scratch / "out")
    ended = infalign(*words, setup=setup)
    verdict = _shown(ended)
    if verdict.outcome in ALLOWED and place in ("response", "prompt"):
        again = infalign(*words, "--json", setup=setup)
        verdict = _shown(again, json_lines=True)
        if verdict.outcome == Outcome.survived and place == "response":
            said = [json.loads(own)["text"] for own in again.stdout.splitlines()]
            if not all(own.strip().startswith(text.strip()) for own in said):
                return Verdict(Outcome.silent, "the response is not the text that was sent")
    return verdict


def _named(world: World, text: str, form: str, scratch: Path) -> Ended:
    """An evaluation whose policy and gold reward have this name."""
    words = [w.replace("mine=", f"{text}=").replace("late=", f"{text}=") for w in EVALUATE]
    return world.run(*words, "--format", form, "--out", scratch / "out")


def _table(world: World, name: str, form: str, scratch: Path) -> Verdict:
    ended = _named(world, PAYLOADS[name], form, scratch)
    verdict = _shown(ended, json_lines=form == "json")
    if verdict.outcome != Outcome.survived:
        return verdict
    if form == "json":
        names = {p["method"] for p in json.loads(ended.stdout)["policies"]}
        return verdict if names == {PAYLOADS[name]} else Verdict(Outcome.silent, f"named {names}")
    if form in ("markdown", "latex"):
        plain = _named(world, "plain", form, scratch / "plain")
        structure = {"markdown": _markdown, "latex": _latex}[form]
        own, expected = structure(ended.stdout), structure(plain.stdout)
        if own != expected:
            new = [x for x in own if x not in expected]
            return Verdict(Outcome.silent, f"another structure: {new[:5]}")
    return verdict


def _markdown(text: str) -> list[str]:
    """The kinds of elements of a page of Markdown, in their order; texts are left out."""
    from markdown_it import MarkdownIt

    def kinds(tokens) -> Iterator[str]:
        for token in tokens:
            if token.type not in ("text", "text_special", "inline", "softbreak"):
                yield token.type
            yield from kinds(token.children or ())

    return list(kinds(MarkdownIt("commonmark", {"html": True}).enable("table").parse(text)))


TEXT_COMMANDS = r"\\(?:text\w+|[_&%$#{}]|ensuremath|symbol|char\d*)"


def _latex(text: str) -> list[str]:
    """Commands and special characters of LaTeX that are no escaped text, in their order."""
    escaped = re.sub(TEXT_COMMANDS + r"(?:\{\})?", "", text)
    return re.findall(r"\\\\|\\[A-Za-z]+|\\.|[&%$#_^~]", escaped)


def _store(world: World, name: str, scratch: Path) -> Verdict:
    """The text as a prompt's id, a response and the provenance of a store."""
    text = PAYLOADS[name]

    def write() -> None:
        import numpy as np
        from infalign.calibration.store import StoreWriter

        provenance = {"reward": text, text: text[:200]}
        with StoreWriter(scratch / "store", provenance, prompts=1) as writer:
            writer.add([text], None, np.arange(4.0)[None])

    made = infalign("--version", setup=world.setup(before=write))
    if made.code:  # refused by the library; its words are an error's, not the command line's
        return Verdict(Outcome.named, made.stderr.strip()[-300:])
    for words in (("show",), ("check",), ("show", "--json")):
        ended = infalign("store", words[0], scratch / "store", *words[1:], setup=world.setup())
        verdict = _shown(ended, json_lines="--json" in words)
        if verdict.outcome not in ALLOWED:
            return verdict
    return verdict


def _report(world: World, name: str, scratch: Path) -> Verdict:
    """A report whose policies, rewards, prompts and responses are the text."""
    text = PAYLOADS[name]
    label = text if on_a_command_line(name) and "=" not in text else "mine"
    path = scratch / "prompts.jsonl"
    rows = [{"prompt": f"ab{text}{i}", "prompt_id": f"{i}{text[:300]}"} for i in range(2)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = [
        w.replace("mine=other", f"{label}={url(f'say/{name}', 'policy')}")
        .replace("late=", f"{label}=")
        .replace("prompts.jsonl", str(path))
        for w in EVALUATE
    ]
    ended = infalign(*words, "--out", scratch / "out", setup=world.setup(before=impatient))
    verdict = _shown(ended)
    if verdict.outcome != Outcome.survived:
        return verdict
    with browser.chromium() as driver:
        found = browser.complaints(driver, browser.page(scratch / "out" / "report.html"))
    return Verdict(Outcome.silent, "; ".join(found)) if found else verdict


def _explorer(name: str, scratch: Path) -> Verdict:
    """The explorer with the text in its address and in its fields."""
    from urllib.parse import quote

    ended = infalign("explore", "--out", scratch / "e.html")
    assert ended.code == 0, ended.stderr
    text = PAYLOADS[name][:2000].encode(errors="replace").decode()  # as a keyboard would
    address = browser.page(scratch / "e.html")
    encoded = quote(text)
    with browser.chromium() as driver:
        found = []
        for fragment in (encoded, f"procedure={encoded}&transform={encoded}&kl={encoded}"):
            found += browser.complaints(driver, f"{address}#{fragment}")
        driver.execute_script(FILL, text)
        found += [f"ran {words}" for words in driver.execute_script("return window.__ran")]
    return Verdict(Outcome.silent, "; ".join(found)) if found else Verdict(Outcome.survived)


FILL = """
for (const e of document.querySelectorAll("input, textarea")) {
  if (e.type === "range" || e.type === "checkbox" || e.type === "radio") continue;
  e.value = arguments[0];
  for (const kind of ["input", "change", "blur"]) e.dispatchEvent(new Event(kind, {bubbles: true}));
}
"""
