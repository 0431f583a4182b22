"""Plain RLHF on the raw reward as a candidate: a second road to probit, and the files it reads."""

import gzip
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from contracts import law, rank_procedures
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import ndtri

import infalign as ia
from infalign.calibration.reward_files import read_raw
from infalign.core import at_kl
from infalign.stores import StoreWriter

ROWS = np.array([[0.5, -1.0, 2.0, 0.1], [3.0, 3.5, 1.0, 2.0], [9.0, 7.0, 8.0, 5.0]])


@pytest.mark.parametrize("procedure", rank_procedures, ids=lambda p: p.spec)
def test_normal_rewards_are_the_probit_transform(procedure):
    # 20 000 evenly spaced normal quantiles; what is beyond the last ones shows in the third digit
    # where 32 are drawn.
    normal = ia.RawRewards(ndtri((np.arange(20_000) + 0.5) / 20_000)[None])
    ours = at_kl(normal, 0.5).win_rate(procedure)
    assert abs(ours - at_kl(ia.Probit(), 0.5).win_rate(procedure)) < 1e-3


@pytest.mark.parametrize(
    "against", ["sampling", "best-of-n:4", "rewind:0.9:8", "soft-best-of-n:4:0.02"]
)
def test_the_win_rate_is_that_of_a_fine_riemann_sum(against):
    against, procedure = ia.parse_procedure(against), ia.WorstOfN(3)
    policy = at_kl(ia.RawRewards(ROWS), 0.4)
    u = (np.arange(20_000) + 0.5) / 20_000
    wins = []
    for row in np.sort(ROWS):
        weights = np.exp(row / policy.beta) / np.exp(row / policy.beta).sum()
        cdf = np.interp(u, np.arange(5) / 4, np.append(0, np.cumsum(weights)))
        wins.append(1 - np.mean(procedure.cdf(cdf) * against.density(u)))
    assert abs(policy.win_rate(procedure, against) - np.mean(wins)) < 1e-6


@law
@given(st.floats(-1e3, 1e3), st.floats(1e-3, 1e3), st.floats(0.01, 1.2))
def test_offset_and_scale_of_the_reward_change_nothing_but_beta(offset, scale, kl):
    plain, moved = ia.RawRewards(ROWS), ia.RawRewards(scale * ROWS + offset)
    a, b = at_kl(plain, kl), at_kl(moved, kl)
    assert abs(b.beta / a.beta / scale - 1) < 1e-6
    assert abs(a.win_rate(ia.BestOfN(4)) - b.win_rate(ia.BestOfN(4))) < 1e-6


def test_an_offset_of_each_prompt_changes_nothing_but_its_scale_does():
    # One β serves all prompts, so a prompt with larger rewards moves more.
    def wins(rewards):
        return at_kl(ia.RawRewards(rewards), 0.5).win_rate(ia.Sampling())

    assert abs(wins(ROWS + np.array([[0.0], [50.0], [-7.0]])) - wins(ROWS)) < 1e-9
    assert abs(wins(ROWS * np.array([[1.0], [5.0], [0.1]])) - wins(ROWS)) > 0.01


def test_compare_takes_raw_rewards_beside_transforms():
    best, raw, probit = ia.compare(ia.BestOfN(4), [ia.RawRewards(ROWS), ia.Probit()], kl=0.5)
    assert (raw.transform, probit.transform) == ("raw", "probit")
    assert abs(raw.kl - 0.5) < 1e-9 and raw.win_rate < best.win_rate
    assert abs(raw.loss - (best.win_rate - raw.win_rate)) < 1e-12


def test_prompts_may_have_different_numbers_of_samples():
    rows = np.full((2, 6), np.nan)
    rows[0], rows[1, 2:5] = [1, 5, 2, 3, 4, 9], [1, 2, 3]
    policy = at_kl(ia.RawRewards(rows), 0.3)
    parts = [ia.RawRewards(row[np.isfinite(row)][None]).tilted(policy.beta) for row in rows]
    assert abs(policy.kl - np.mean([p.kl for p in parts])) < 1e-12
    expected = np.mean([p.win_rate(ia.BestOfN(2)) for p in parts])
    assert abs(policy.win_rate(ia.BestOfN(2)) - expected) < 1e-12


def test_the_most_that_samples_can_express():
    raw = ia.RawRewards([[1.0, 2.0, 3.0, 4.0], [1.0, 1.0, 2.0, 2.0]])
    assert abs(raw.most_kl - (np.log(4) + np.log(2)) / 2) < 1e-12
    assert abs(raw.tilted(1e-6).kl - raw.most_kl) < 1e-12
    with pytest.raises(
        ia.SolveError, match=r"4 reference samples per prompt express at most 1\.04 nats"
    ):
        at_kl(raw, 1.1)


@pytest.mark.parametrize("procedure", [ia.Rewind(0.9, 8), ia.SoftBestOfN(4, 0.1)], ids=repr)
def test_a_procedure_that_reads_calibrated_rewards_is_refused(procedure):
    with pytest.raises(ValueError, match=r"`procedure` must be .* selects by rank.* Probit\(\)"):
        at_kl(ia.RawRewards(ROWS), 0.5).win_rate(procedure)


@pytest.mark.parametrize(
    ("rewards", "words"),
    [
        ([[1.0, np.inf]], r"`rewards` must hold finite rewards; got inf at prompt 0"),
        ([1.0, 2.0], r"`rewards` must be a non-empty array of shape \(prompts, samples\)"),
        ([[1.0, 2.0], [3.0, np.nan]], r"at least 2 rewards of every prompt; prompt 1 has fewer"),
        ([[2.0, 2.0], [3.0, 3.0]], r"`rewards` are constant on each of the 2 prompts"),
    ],
)
def test_rewards_that_cannot_be_used_are_refused(rewards, words):
    with pytest.raises(ValueError, match=words):
        ia.RawRewards(rewards)


def write(path):
    """`ROWS` in the form that the file's name asks for."""
    ids = [f"p{i}" for i in range(3)]
    match path.name:
        case "store":
            writer = StoreWriter(path, {}, 3)
            writer.add(ids, [["text"] * 4] * 3, ROWS)
        case "lists.json":
            path.write_text(json.dumps(ROWS.tolist()))
        case "object.json":
            path.write_text(json.dumps(dict(zip(ids, ROWS.tolist(), strict=True))))
        case "array.npy":
            np.save(path, ROWS)
        case "lists.parquet":
            pq.write_table(pa.table({"prompt_id": ids, "rewards": list(ROWS)}), path)
        case "long.parquet":
            flat = {"reward": ROWS.ravel(), "prompt_id": np.repeat(ids, 4)}
            pq.write_table(pa.table(flat), path)
        case "lists.jsonl" | "lists.jsonl.gz" | "long.jsonl":
            rows = [{"prompt_id": i, "rewards": r} for i, r in zip(ids, ROWS.tolist(), strict=True)]
            if path.name == "long.jsonl":
                rows = [
                    {"prompt_id": d["prompt_id"], "reward": r} for d in rows for r in d["rewards"]
                ]
            data = "".join(json.dumps(row) + "\n" for row in rows).encode()
            path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
        case "rows.txt":
            path.write_text("\n".join(" ".join(map(str, row)) for row in ROWS) + "\n\n")
        case "rows.csv":
            path.write_text("\n".join(",".join(map(str, row)) for row in ROWS))
    return path


FORMS = ["store", "lists.json", "object.json", "array.npy", "lists.parquet", "long.parquet"]
FORMS += ["rows.txt", "rows.csv", "lists.jsonl", "long.jsonl", "lists.jsonl.gz"]


@pytest.mark.parametrize("name", FORMS)
def test_every_form_of_the_same_rewards_reads_alike(tmp_path, name):
    raw = read_raw(write(tmp_path / name))
    np.testing.assert_array_equal(raw.rewards, np.sort(ROWS))
    assert raw.spec == f"raw:{tmp_path / name}"


@pytest.mark.parametrize(
    ("name", "text"), [("a.txt", "1\n2\n\n4\n"), ("a.json", "[4, 1, 2]"), ("b.txt", "4 1 2")]
)
def test_one_distribution_for_all_prompts(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    np.testing.assert_array_equal(read_raw(tmp_path / name).rewards, [[1, 2, 4]])


def test_one_distribution_in_parquet_and_npy(tmp_path):
    pq.write_table(pa.table({"reward": [4.0, 1.0, 2.0]}), tmp_path / "a.parquet")
    np.save(tmp_path / "a.npy", [4.0, 1.0, 2.0])
    for name in ("a.parquet", "a.npy"):
        np.testing.assert_array_equal(read_raw(tmp_path / name).rewards, [[1, 2, 4]])


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("none.txt", None, "does not exist"),
        ("a.txt", b"1\ntwo\n", r"a\.txt, line 2: not numbers: 'two'"),
        ("a.txt", b"", "it holds nothing"),
        ("a.txt", b"\xff\xfe\x00", "the file is in UTF-16"),
        ("a.txt", b"1 nan 2", "line 1 holds one that is not"),
        ("a.txt", b"1 2 3\n4\n", "prompt 1 has fewer"),
        ("a.json", b"[1, ", "is not valid JSON"),
        ("a.json", b"3", "it holds 3"),
        (
            "a.json",
            b'["x", "y"]',
            r"row 0: `rewards` must be an array of numbers; got 'x' at index 0",
        ),
        ("a.json", b"[[1, 2], 3]", "it holds lists within lists"),
        ("a.json", b"[[1, 2], [3, null]]", "row 1 holds one that is not"),
        ("a.npy", b"no array", "is not an array that can be read"),
        ("a.parquet", b"no table", "is not a readable Parquet file"),
        ("folder", None, "manifest.json"),
    ],
)
def test_files_that_hold_no_rewards_say_so(tmp_path, name, content, words):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    elif name == "folder":
        path.mkdir()
    with pytest.raises(ia.DataError, match=words) as told:
        read_raw(path)
    assert str(path) in str(told.value)


def test_a_pickle_is_not_read(tmp_path):
    np.save(tmp_path / "a.npy", np.array([{"a": 1}], object), allow_pickle=True)
    with pytest.raises(ia.DataError, match="not an array that can be read"):
        read_raw(tmp_path / "a.npy")


def test_a_table_without_rewards_names_its_columns(tmp_path):
    pq.write_table(pa.table({"score": [1.0]}), tmp_path / "a.parquet")
    with pytest.raises(ia.DataError, match=r"`reward` .* its columns are \['score'\]"):
        read_raw(tmp_path / "a.parquet")


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.json", '{"rewards": [1, 2], "lengths": [30, 40]}', "'rewards' is the name of a column"),
        ("a.json", '{"prompt_id": [1, 2], "score": [3, 4]}', "'prompt_id' is .* Write the rewards"),
        ("a.json", '{"a": [1, 2], "a": [3, 4]}', "the name 'a' occurs twice .* remove one"),
        ("a.json", "[" + "9" * 400 + ", 1]", "row 0: .* at index 0, which is beyond the floats"),
        ("a.json", '{"a": [1, 2], "b": [1e400, 2]}', "prompt 'b' holds one that is not"),
        ("a.json", "[" + "9" * 5000 + ", 1]", "4300 digits"),
        ("a.csv", "prompt_id,reward\n1,0.5\n", "line 1: not numbers: .* JSON Lines or Parquet"),
        (
            "a.csv",
            "1,0.5\n2,0.7\n",
            "line 1: .* must be a reward; got 1, .* Remove the first column",
        ),
        ("a.csv", "0,5,3\n1,2,2\n2,1,4\n", "line 1: .* got 0, .*on each of 3 lines"),
        ("a.txt", "\n17 0.5 1e-2\n4 -.7 1.5\n", "line 2: .* got 17,"),
    ],
)
def test_numbers_that_are_no_rewards_are_refused(tmp_path, name, text, words):
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(ia.DataError, match=words) as refused:
        read_raw(path)
    assert str(refused.value).startswith(str(path))


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (
            [{"prompt_id": "a", "reward": 1}, {"reward": 2}, {"reward": 3}],
            r" 2: `prompt_id` must have a value in every row or in none; .* \(2 of 3 rows\)",
        ),
        ([{"reward": 1}, {"reward": None}], r" 2: `reward` must have a value .* \(1 of 2 rows\)"),
        ([{"rewards": [1, 2]}, {"reward": 2}], r" 2: `rewards` must have a value in every row"),
        (
            [{"prompt_id": "a", "rewards": [1, 2]}, {"prompt_id": "a", "rewards": [3, 4]}],
            " 2: `prompt_id` 'a' occurs twice. Write all rewards of a prompt in one list",
        ),
    ],
)
def test_rows_that_lack_what_others_have_are_refused(tmp_path, rows, words):
    lines, table = tmp_path / "a.jsonl", tmp_path / "a.parquet"
    lines.write_text("".join(json.dumps(row) + "\n" for row in rows))
    names = dict.fromkeys(name for row in rows for name in row)
    pq.write_table(pa.table({n: [row.get(n) for row in rows] for n in names}), table)
    for path, place in ((lines, "line"), (table, "row")):
        with pytest.raises(ia.DataError, match=f"{path}, {place}{words}"):
            read_raw(path)


def test_complex_numbers_and_texts_are_no_rewards(tmp_path):
    for values in (np.array([1 + 2j, 3]), np.array(["1.5", "2"])):
        np.save(tmp_path / "a.npy", values)
        with pytest.raises(
            ia.DataError, match=r"a\.npy, row 0: `rewards` must be an array of numb"
        ):
            read_raw(tmp_path / "a.npy")


@pytest.mark.parametrize(
    "text", ["1 0.5\n3 2\n", "2 1 5\n1 5 2\n", "1.0 0.5\n2.0 0.7\n", "1,0.5\n"]
)
def test_whole_numbers_may_be_rewards(tmp_path, text):
    (tmp_path / "a.csv").write_text(text)
    first = [float(line.replace(",", " ").split()[0]) for line in text.splitlines()]
    read = read_raw(tmp_path / "a.csv").rewards
    assert all(number in row for number, row in zip(first, read, strict=True))


def test_ids_that_look_alike_in_messages_are_different_prompts(tmp_path):
    # Messages show 60 characters of an id.
    rows = [{"prompt_id": "p" * 80 + str(i % 2), "reward": r} for i, r in enumerate([1, 3, 2, 5])]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    np.testing.assert_array_equal(read_raw(tmp_path / "a.jsonl").rewards, [[1, 2], [3, 5]])


def test_two_lines_of_zeros_and_ones_are_rewards(tmp_path):
    (tmp_path / "binary.txt").write_text("0 1 1\n1 0 0\n")
    assert read_raw(tmp_path / "binary.txt").rewards.tolist() == [[0, 1, 1], [0, 0, 1]]
