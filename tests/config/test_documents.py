"""YAML files and overrides: what is no small, plain document is refused with its place."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infalign import ConfigError
from infalign.config import load_config
from infalign.config.documents import parse, read_document

PLAIN = "model: m\nreward: r\nprompts: {file: f}\nkl: 0.5\n"

LAUGHS = "a: &a0 [lol]\n" + "".join(
    f"b{i}: &a{i + 1} [{', '.join([f'*a{i}'] * 9)}]\n" for i in range(9)
)
MERGED = "a: &a0 {k: 1}\n" + "".join(
    f"b{i}: &a{i + 1} {{<<: [{', '.join([f'*a{i}'] * 9)}]}}\n" for i in range(9)
)

REFUSED = {
    "aliases in aliases": (LAUGHS, r"line \d+, column \d+: it stands for more than 20,000 values"),
    "merges in merges": (MERGED, "it stands for more than 20,000 values"),
    "a list in itself": ("kl: &a [*a]", "line 1, column 5: it holds itself"),
    "deep lists": ("[" * 1000, "line 1, column 32: nested more than 30 deep"),
    "deep sections": ("".join(" " * i + "a:\n" for i in range(40)), "nested more than 30 deep"),
    "a chain": (
        "a: &a0 [1]\n" + "".join(f"b: &a{i + 1} [*a{i}]\n" for i in range(40)).replace("b", "a"),
        "the key 'a' is given twice",
    ),
    "a key given twice": (
        "kl: 1\nmodel: x\nkl: 2\n",
        "line 3, column 1: the key 'kl' is given twi",
    ),
    "an object": ("a: !!python/object/apply:os.system [ls]", "could not determine a constructor"),
    "two documents": ("a: 1\n---\nb: 2\n", "expected a single document .* found another document"),
    "a null": ("a: 1\nb: \0", r"line 2 holds '\\x00', which YAML forbids"),
    "an escape": ("a: \x1b[31m", r"line 1 holds '\\x1b', which YAML forbids"),
    "half a pair": ("a: \ud83d", r"line 1 holds '\\ud83d'"),
    "a month": ("a: 2026-13-45", r"a value cannot be read \('month must be in 1..12'\)"),
    "many digits": ("a: " + "1" * 5000, "a value cannot be read"),
    "a list as a key": ("{[1]: 2}", "unhashable key"),
    "a tab": ("a:\n\t- 1", "line 2, column 1"),
    "an open list": ("a: [", "line 1, column 5"),
}


@pytest.mark.parametrize(("text", "words"), REFUSED.values(), ids=REFUSED)
def test_a_document_that_is_not_plain_is_refused_with_its_place(text, words):
    with pytest.raises(ConfigError, match=words) as caught:
        parse(text, "config.yaml")
    assert str(caught.value).startswith("config.yaml is not valid YAML: ")
    assert len(str(caught.value)) < 300 and "\n" not in str(caught.value)


def test_what_an_alias_shares_is_changed_alone(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(PLAIN.replace("prompts: ", "prompts: &p ") + "evaluate: {prompts: *p}\n")
    config = load_config(path, ("prompts.limit=3",))
    assert config.prompts.limit == 3 and config.evaluate.prompts.limit is None


def test_a_byte_order_mark_is_no_part_of_the_first_key(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + PLAIN.encode())
    assert load_config(path).model == "m"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("model: m".encode("utf-16"), r"line 1 is not UTF-8 \(byte 0xff\). Save the file as UTF-8"),
        (b"a: 1\nb: \xe9\n", r"line 2 is not UTF-8 \(byte 0xe9\)"),
        (b"a: 1\n" * 100_000, "more than 262,144 bytes"),
        (b"", "must hold `key: value` lines; got NoneType"),
        (b"[1]", "must hold `key: value` lines; got list"),
    ],
)
def test_a_file_that_is_no_configuration_is_named(tmp_path, content, words):
    path = tmp_path / "config.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=words) as caught:
        load_config(path)
    assert str(caught.value).startswith(str(path))


def test_folders_pipes_and_missing_files_are_named_at_once(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for path, words in (
        (tmp_path, "is a folder"),
        (pipe, "is not a regular file"),
        (tmp_path / "none", "does not exist"),
        (tmp_path / ("x" * 300), "cannot be read: File name too long|does not exist"),
    ):
        with pytest.raises(ConfigError, match=words):
            read_document(path)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("..=1", "The override '..=1' must read `section.key=value`"),
        ("=", "The override '=' must read `section.key=value`"),
        ("train.=x", "The override 'train.=x' must read"),
        (".kl=1", "The override '.kl=1' must read"),
        ("kl", "The override 'kl' must read"),
        ("a.b.c=1", "Unknown key `a` in the configuration. Known keys"),
        ("kl.x=1", "The override 'kl.x=1': `kl` is a value, not a section"),
        ("procedure=[", r"The override 'procedure=\[' is not valid YAML: line 1, column 2"),
        ("kl=&a [*a]", "The override .* is not valid YAML: .* it holds itself"),
        ("kl={a: 1, a: 2}", "The override .* the key 'a' is given twice"),
        ("kl=.inf", "`kl` in the configuration: .* finite number; got inf"),
        ("train=5", "`train` in the configuration: must be a section of `key: value` lines; got 5"),
        ("evaluate.prompts.promt=x", "Unknown key `evaluate.prompts.promt`.*Known keys: column"),
        ("sampling={1: 2}", "`sampling.1` in the configuration"),
        ("x" * 10**5 + "=1", "Unknown key `xxx"),
        ("transform=" + "x" * 10**5, "`transform` must be"),
        ("kl=" + "x" * 10**5, "`kl` in the configuration"),
        ("train.baselines=[" + "x, " * 10**4 + "]", "and 9990 more"),
    ],
    ids=lambda text: text[:20],
)
def test_an_override_that_does_not_fit_is_one_short_message(tmp_path, override, words):
    path = tmp_path / "config.yaml"
    path.write_text(PLAIN)
    with pytest.raises(ConfigError, match=words) as caught:
        load_config(path, (override,))
    assert len(str(caught.value)) < 3000


@given(st.text("ab.=[]{}:&*!<>-|,'\"# \n\t\x00\x1b0159e~%@`", max_size=40))
def test_no_text_ends_in_another_error(text):
    try:
        parse(text, "it")
    except ConfigError as error:
        assert str(error).startswith("it is not valid YAML: ")
