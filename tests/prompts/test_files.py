"""Prompts files as people have them: what is valid is read, anything else is refused by name."""

import gzip
import json

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infalign import DataError, storage
from infalign.config import Prompts
from infalign.json_lines import read_rows
from infalign.prompts import load_prompts


def line(value, **more):
    return json.dumps({"prompt": value, **more}, ensure_ascii=False) + "\n"


def read(path, data, **source):
    path.write_bytes(data)
    return load_prompts(Prompts(file=str(path), **source))


SEPARATORS = ("\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c", "\x1d", "\x1e")


@pytest.mark.parametrize("separator", SEPARATORS, ids=ascii)
def test_only_a_newline_ends_a_line(tmp_path, separator):
    text = f"one{separator}two"
    written = f'{{"prompt": "{text}"}}\n' if separator > "\x20" else line(text)
    prompts = read(tmp_path / "a.jsonl", (written + line("b")).encode())
    assert [p.text for p in prompts] == [text, "b"]


TEXTS = st.text(st.characters(exclude_categories=["Cs"])).filter(str.strip)


@given(st.lists(TEXTS.filter(lambda text: not text.lstrip().startswith("[")), min_size=1))
def test_every_text_comes_back_as_it_was_written(tmp_path_factory, texts):
    path = tmp_path_factory.mktemp("files") / "a.jsonl"
    prompts = read(path, "".join(map(line, texts)).encode())
    assert [p.text for p in prompts] == texts


ROWS = line("a") + line("b", split=None) + line("c", split="test", prompt_id=7)
AS = {
    "plain": ROWS.encode(),
    "byte order mark": ROWS.encode("utf-8-sig"),
    "carriage returns": ROWS.replace("\n", "\r\n").encode(),
    "no last newline": ROWS.rstrip().encode(),
    "blank lines": ("\n \n" + ROWS + "\n\t\n").encode(),
    "escapes": ROWS.replace('"a"', '"\\u0061"').encode(),
    "gzip": gzip.compress(ROWS.encode()),
    "gzip in parts": gzip.compress(ROWS[:20].encode()) + gzip.compress(ROWS[20:].encode()),
}


@pytest.mark.parametrize("data", AS.values(), ids=AS)
def test_forms_of_json_lines_are_read_alike(tmp_path, data):
    prompts = read(tmp_path / "rows.jsonl", data, split="test")
    assert [p.text for p in prompts] == ["a", "b", "c"] and prompts[2].id == "7"
    assert [p.text for p in read(tmp_path / "rows.jsonl", data, split="train")] == ["a", "b"]


def test_a_packed_file_has_the_ids_of_the_plain_one(tmp_path):
    plain = read(tmp_path / "rows.jsonl", ROWS.encode())
    assert read(tmp_path / "rows.jsonl.gz", gzip.compress(ROWS.encode())) == plain


def test_parquet_is_read_like_json_lines(tmp_path):
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    rows = [{"prompt": [*turns, {"role": "user", "content": "c "}]}, {"prompt": [turns[0]]}]
    storage.write_table(tmp_path / "rows.parquet", pa.Table.from_pylist(rows))
    found = load_prompts(Prompts(file=str(tmp_path / "rows.parquet")))
    text = "".join(json.dumps(row) + "\n" for row in rows)
    assert found == read(tmp_path / "rows.jsonl", text.encode())


UTF16 = line("ä")
REFUSED = {
    "utf-16": (UTF16.encode("utf-16"), "line 1: the file is in UTF-16. .* iconv -f UTF-16 "),
    "utf-16 without mark": (UTF16.encode("utf-16-le"), "line 1: .* no text in UTF-8"),
    "utf-32": (UTF16.encode("utf-32"), "line 1: the file is in UTF-32"),
    "latin-1": (line("a").encode() + line("ä").encode("latin-1"), "line 2: byte 0xe4 .* iconv"),
    "cut gzip": (gzip.compress(line("a" * 99).encode())[:-9], "is damaged: gzip cannot unpack"),
    "parquet": (b"PAR1\x00\x84\xff", "is a Parquet file. Name it .parquet"),
    "zip": (b"PK\x03\x04\xff", "is a ZIP file. Unpack it"),
    "zstd": (b"(\xb5/\xfd\xff", "is compressed with zstd"),
    "cut array": (b'[{"prompt": "a"},\n{"prompt"', "line 2: not JSON .*column 10"),
    "array of numbers": (b"[1]", "row 1: neither an object nor a text: 1"),
    "object over lines": (json.dumps({"prompt": "a"}, indent=1).encode(), "line 1: not a JSON"),
    "a number": (b"3\n", "line 1: not a JSON object: '3'"),
    "no json": (line("a").encode() + b"prompt,b\n", "line 2: not a JSON object .*column 1"),
    "nan": (b'{"prompt": "a", "x": NaN}\n', "line 1: .*JSON has no NaN; write null"),
    "infinity": (b'{"prompt": "a", "x": -Infinity}\n', "JSON has no -Infinity"),
    "twice": (b'{"prompt": "a", "prompt": "b"}\n', "'prompt' occurs twice in one object"),
    "twice inside": (b'{"prompt": "a", "x": {"y": 1, "y": 2}}\n', "'y' occurs twice"),
    "deep": (b'{"prompt": ' + b"[" * 10**5 + b"]" * 10**5 + b"}\n", "line 1: .* nested too deep"),
    "long number": (b'{"prompt": "a", "x": ' + b"1" * 5000 + b"}\n", "line 1: not a JSON object"),
    "half pair": (b'{"prompt": "bad \\ud83d end"}\n', "line 1: .*half of a surrogate pair"),
    "half pair in an id": (b'{"prompt": "a", "prompt_id": "\\uDC00"}\n', "half of a surrogate"),
    "half pair in a name": (b'{"prompt": "a", "\\udfff": 1}\n', "half of a surrogate pair"),
    "number as split": (line("a", split=1).encode(), "line 1: `split` must be a text.* got 1"),
    "list as id": (line("a", prompt_id=[1]).encode(), r"line 1: `prompt_id` must .* got \[1\]"),
    "truth as id": (line("a", prompt_id=True).encode(), "`prompt_id` must .* got True"),
    "fraction as id": (line("a", prompt_id=1.5).encode(), "`prompt_id` must .* got 1.5"),
    "empty id": (line("a", prompt_id="").encode(), "`prompt_id` must .* got ''"),
    "nothing": (b"", "holds no prompts with split 'train'"),
    "another split": (line("a", split="dev").encode(), r"its splits are dev \(1\)\. Name one"),
    "one id for two": (line("a", prompt_id=1) + line("b", prompt_id="1")).encode(),
}  # fmt: skip
REFUSED["one id for two"] = (REFUSED["one id for two"], "'1' more than once .1 of 2")


@pytest.mark.parametrize(("data", "words"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_read_is_named_with_file_line_and_remedy(tmp_path, data, words):
    with pytest.raises(DataError, match=f"(?s)rows.jsonl.*{words}") as error:
        read(tmp_path / "rows.jsonl", data)
    assert len(str(error.value)) < 600


def test_whole_surrogate_pairs_are_characters(tmp_path):
    assert read(tmp_path / "a.jsonl", b'{"prompt": "\\ud83d\\ude00"}\n')[0].text == "\U0001f600"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("rows.xlsx", "got .xlsx. Save it as CSV"),
        ("rows.pkl", "got .pkl. Write it as JSON Lines or Parquet; a pickle can run code"),
        ("rows.feather", "got .feather. Write it as Parquet"),
        ("rows.tar.gz", "got .tar. Unpack it"),
        ("rows.parquet.gz", r"is \.parquet in gzip. Unpack it"),
    ],
)
def test_other_formats_are_refused_with_what_to_do(tmp_path, name, words):
    with pytest.raises(DataError, match=f"{name} .*{words}"):
        read(tmp_path / name, b"prompt\na\n")


def test_a_missing_file_is_refused_with_the_key_for_the_hub(tmp_path):
    with pytest.raises(DataError, match=r"no/such does not exist\. .*`prompts\.dataset`"):
        load_prompts(Prompts(file="no/such"))


def test_a_broken_parquet_file_and_a_folder_are_refused_by_name(tmp_path):
    with pytest.raises(DataError, match=r"rows\.parquet is not a readable Parquet file"):
        read(tmp_path / "rows.parquet", b"PAR1\x00\x84\xff")
    with pytest.raises(DataError, match=r"in it: rows\.parquet\. Name a file: JSON Lines"):
        load_prompts(Prompts(file=str(tmp_path)))


def test_a_repeated_id_is_found_in_a_large_file(tmp_path):
    text = "".join(line("a", prompt_id=i) for i in [*range(20_000), 19_999])
    with pytest.raises(DataError, match=r"'19999' more than once .1 of 20001 ids"):
        read(tmp_path / "a.jsonl", text.encode())


def test_rows_have_the_numbers_of_their_lines(tmp_path):
    (tmp_path / "a.jsonl").write_text('\n{"a": 1}\n\n{"b": 2}')
    assert list(read_rows(tmp_path / "a.jsonl")) == [(2, {"a": 1}), (4, {"b": 2})]
