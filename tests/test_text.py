"""One call: a reward gets the same prompts, texts and columns for the same tokens, whatever path
they come by."""

import asyncio
import json
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers
from transformers import AutoTokenizer, GenerationConfig, GPT2Config, PreTrainedTokenizerFast

import infalign as ia
from infalign.collection.answers import answer
from infalign.comparison import sampling as evaluation
from infalign.comparison.comparison import Comparison
from infalign.config import SamplingSettings
from infalign.decoding import decode, draw_calibration
from infalign.demo import bundled
from infalign.errors import DataError
from infalign.frameworks import Asked, open_scorer, openrlhf, verl_manager
from infalign.frameworks.callback import TrainingStopped
from infalign.frameworks.prompt_text import PolicyText
from infalign.frameworks.score_request import Body
from infalign.models import reward_server
from infalign.models.hf import LanguageModel
from infalign.models.judges import RewardJudge, judge_pairs
from infalign.models.loading import prompt_text, tokenize
from infalign.models.model_server import ServerModel
from infalign.models.rewards import score
from infalign.models.server_replies import Said
from infalign.models.vllm import VLLMModel
from infalign.pipeline import stages
from infalign.prompts import Prompt
from infalign.red_team import campaign
from infalign.red_team.attack import SuccessTest, attack
from infalign.shaping import AsCalibrated
from infalign.text import in_form_of

TEXTS = ["Hi", " Ha\n", "def f():\n    "]
PROMPTS = [  # written as a text, as messages, and as a text
    Prompt(f"p{i}", ({"role": "user", "content": text},), {"answer": i, "tests": ["x"]}, i != 1)
    for i, text in enumerate(TEXTS)
]
NAMES = [prompt.id for prompt in PROMPTS]
MESSAGES = [list(prompt.messages) for prompt in PROMPTS]
VALUES, COLUMNS = [p.value for p in PROMPTS], [p.columns for p in PROMPTS]


def bundled_model():
    return AutoTokenizer.from_pretrained(bundled("bundled:language-model", "model"))


def without_template():
    tokenizer = bundled_model()
    tokenizer.chat_template = None
    return tokenizer


def byte_level():
    """A token for every byte, and special tokens with and without a role."""
    size = {c: i for i, c in enumerate(sorted(bytes_to_letters()))}
    tokenizer = Tokenizer(models.BPE(size, merges=[]))
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<end>", AddedToken("<reserved>", special=True)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>")


def bytes_to_letters():
    from tokenizers.pre_tokenizers import ByteLevel

    return ByteLevel.alphabet()


def sentence_piece():
    """As Llama 2: spaces are letters, the first one of a text is lost in decoding, bytes are the
    last resort."""
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{i:02X}>" for i in range(256))]
    pieces += ["▁", "▁▁", "a", "▁a", "H", "i", "\n", "def", "▁f", "():"]
    vocabulary = {piece: i for i, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.BPE(vocabulary, [], unk_token="<unk>", byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    tokenizer.add_special_tokens(["<unk>", "<s>", "</s>"])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>", bos_token="<s>")


KINDS = [bundled_model, without_template, byte_level, sentence_piece]


class Noted:
    """A reward that keeps what it is given."""

    __name__ = "noted"

    def __init__(self):
        self.seen = []

    def __call__(self, prompts, completions, prompt_id, answer, *, tests):
        self.seen += zip(prompts, completions, prompt_id, answer, tests, strict=True)
        return [0.0] * len(completions)


class Writes(torch.nn.Module):
    """A causal language model that answers each of its prompts with given tokens."""

    def __init__(self, responses, tokenizer):
        super().__init__()
        prompts = tokenize(tokenizer, [prompt_text(tokenizer, m) for m in MESSAGES])["input_ids"]
        self.responses = dict(zip(map(tuple, prompts), responses, strict=True))
        self.pad, self.embedding = tokenizer.pad_token_id, torch.nn.Embedding(len(tokenizer), 1)
        self.config = GPT2Config()
        self.generation_config = GenerationConfig()

    def get_input_embeddings(self):
        return self.embedding

    def generate(self, input_ids, attention_mask, logits_processor, **_):
        prompts = zip(input_ids, attention_mask.bool(), strict=True)
        rows = [self.responses[tuple(ids[mask].tolist())] for ids, mask in prompts]
        width = max(map(len, rows))
        logits_processor[-1].logprobs += [torch.zeros(len(rows))] * width
        padded = torch.tensor([[*ids, *[self.pad] * (width - len(ids))] for ids in rows])
        return torch.cat([input_ids, padded], 1)


class Paths:
    """All paths by which the texts of one tokenizer reach a reward.

    Each method gives the reward, in order, one response to each of `PROMPTS`.
    """

    def __init__(self, tokenizer, folder):
        tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
        tokenizer.save_pretrained(folder)
        GPT2Config().save_pretrained(folder)
        lines = [{"prompt_id": p.id, "prompt": p.value, **p.columns} for p in PROMPTS]
        (folder / "prompts.jsonl").write_text("\n".join(map(json.dumps, lines)))
        self.tokenizer, self.text, self.reward = tokenizer, PolicyText(str(folder)), Noted()
        pieces = {"raw": True, "reward": self.reward, "prompts": folder / "prompts.jsonl"}
        self.scorers = {strip: open_scorer(strip=strip, **pieces) for strip in (False, True)}
        self.openrlhf = {
            strip: openrlhf.reward_function(strip=strip, model=str(folder), window=1e-3, **pieces)
            for strip in (False, True)
        }

    def of(self, drawn, strip):
        """The same paths, for these responses as the model writes them."""
        self.drawn, self.strip = drawn, strip
        self.ids = [self.up_to_the_end(ids) for ids in drawn]
        # As TRL's trainers, verl and vLLM decode them.
        self.decoded = self.tokenizer.batch_decode(self.ids, skip_special_tokens=True)
        self.texts = [text.strip() if strip else text for text in self.decoded]
        return self

    def up_to_the_end(self, ids):
        end = self.tokenizer.eos_token_id
        return ids[: ids.index(end) + 1] if end in ids else ids

    @property
    def policy(self):
        model = Writes(self.drawn, self.tokenizer)
        longest = max(map(len, self.drawn))
        return LanguageModel.of(model, self.tokenizer, max_new_tokens=longest, strip=self.strip)

    def calibration(self):
        table = answer(PROMPTS, self.policy, self.reward, 1, 0)
        assert table["tokens"].to_pylist() == self.ids
        assert table["completion"].to_pylist() == self.texts

    def decoding(self):
        asked = {"seed": 0, "prompt_ids": NAMES, "columns": COLUMNS}
        chosen = decode(ia.Sampling(), self.policy, self.reward, VALUES, **asked)
        assert [c.kept.text for c in chosen] == self.texts

    def red_teaming(self):
        attack(self.policy, SuccessTest(self.reward, 0.0), PROMPTS, 1, names=(), seed=0)

    def judging(self):
        texts = [[text] for text in self.texts]
        named = [{"prompt_id": p.id, **p.columns} for p in PROMPTS]
        judge_pairs(RewardJudge(self.reward), VALUES, texts, texts, columns=named)
        # Each pair has two responses and two orders.
        self.reward.seen[:] = self.reward.seen[: 2 * len(PROMPTS) : 2]

    def on_policy_on_messages(self, prompts=MESSAGES):
        reward = AsCalibrated(self.reward, **self.known, tokenizer=self.tokenizer)
        # The trainer may decode in its own way.
        reward(prompts, ["?"] * len(prompts), prompt_id=NAMES, completion_ids=self.ids)

    @property
    def known(self):
        """What a run gives to a trainer's reward."""
        columns = {p.id: p.columns for p in PROMPTS}
        return {
            "prompts": dict(zip(NAMES, VALUES, strict=True)),
            "columns": columns,
            "strip": self.strip,
        }

    def on_policy_on_strings(self):
        self.on_policy_on_messages(TEXTS)

    def trl_on_messages(self):
        completions = [[{"role": "assistant", "content": t}] for t in self.decoded]
        AsCalibrated(self.reward, **self.known)(MESSAGES, completions, prompt_id=NAMES)

    def trl_on_strings(self):
        AsCalibrated(self.reward, **self.known)(
            TEXTS, self.decoded, prompt_id=NAMES, answer=[9] * 3
        )

    def vllm(self):
        engine = VLLMModel.__new__(VLLMModel)
        engine.tokenizer, engine.strip = self.tokenizer, self.strip
        outputs = [SimpleNamespace(token_ids=x, cumulative_logprob=0.0) for x in self.ids]
        texts = [[engine._response(output).text] for output in outputs]
        score(self.reward, VALUES, texts, NAMES, COLUMNS)

    def server(self):
        model = ServerModel("http://127.0.0.1:9/v1", "m", strip=self.strip)
        said = [Said(text, "stop", None) for text in self.decoded]
        model.chat = SimpleNamespace(api="chat", parameters=None, ask=lambda *_: said)
        texts = [[response.text] for response in model._send({}, len(said), 0)]
        score(self.reward, VALUES, texts, NAMES, COLUMNS)

    def _score(self, asked):
        scorer = self.scorers[self.strip]
        scorer([scorer.resolve(a) for a in asked])

    def verl(self):
        self._score([Asked(name, t) for name, t in zip(NAMES, self.decoded, strict=True)])

    def verl_with_a_manager(self):
        sent = []

        async def compute_score(*, solution_str, extra_info, **_):
            sent.append(Asked(extra_info["prompt_id"], solution_str))
            return {"score": 0.0}

        manager = verl_manager.ShapedRewardManager(None, self.tokenizer, compute_score)
        for name, ids in zip(NAMES, self.ids, strict=True):
            batch = {
                "responses": torch.tensor([*ids, self.tokenizer.pad_token_id]),
                "attention_mask": torch.tensor([1, 1, *[1] * len(ids), 0]),
            }
            info = {"extra_info": {"prompt_id": name}}
            item = SimpleNamespace(batch=batch, non_tensor_batch=info)
            asyncio.run(manager.run_single([item]))
        self._score(sent)

    def _serve(self, **fields):
        body = Body(labels=NAMES, **fields)
        self._score([body.asked(i, self.text) for i in range(len(PROMPTS))])

    def by_url(self):
        """From a run whose reward is a URL to the raw reward behind it, which knows no prompts."""
        rows = zip(VALUES, map(in_form_of, VALUES, self.texts), NAMES, COLUMNS, strict=True)
        body = Body(**reward_server._body([reward_server._item(*row) for row in rows]))
        scorer = open_scorer(raw=True, reward=self.reward)
        scorer([scorer.resolve(body.asked(i, None)) for i in range(len(PROMPTS))])

    def serve_responses(self):
        self._serve(responses=self.decoded)

    def serve_messages(self):
        replies = [{"role": "assistant", "content": text} for text in self.decoded]
        self._serve(messages=[[*m, reply] for m, reply in zip(MESSAGES, replies, strict=True)])

    def _queries(self):
        """Prompts and their decoded tokens with those of the responses, as OpenRLHF sends them."""
        prompts = [self.text.prompt(m) for m in MESSAGES]
        asked = self.tokenizer(prompts, add_special_tokens=False).input_ids
        pairs = zip(asked, self.ids, strict=True)
        queries = [self.tokenizer.decode(prompt + ids) for prompt, ids in pairs]
        return queries, prompts

    def serve_queries(self):
        queries, prompts = self._queries()
        self._serve(query=queries, prompts=prompts)

    def openrlhf_queries(self):
        self.openrlhf[self.strip](*self._queries(), NAMES)


BY_QUERY = {"serve_queries", "openrlhf_queries"}
PATHS = [name for name, f in vars(Paths).items() if callable(f) and name[0] != "_"]
PATHS = [name for name in PATHS if name not in ("of", "up_to_the_end", "known")]


@pytest.fixture(scope="module", params=KINDS, ids=lambda kind: kind.__name__)
def paths(request, tmp_path_factory):
    return Paths(request.param(), tmp_path_factory.mktemp("tokenizer"))


def token_ids(tokenizer):
    """Any tokens, and often special tokens, spaces, and bytes of characters."""
    often = [
        *tokenizer.all_special_ids,
        *tokenizer("  a \n é€", add_special_tokens=False).input_ids,
    ]
    return st.one_of(st.integers(0, len(tokenizer) - 1), st.sampled_from(sorted(set(often))))


@settings(max_examples=30)
@given(data=st.data(), strip=st.booleans())
def test_every_path_gives_a_reward_the_same_arguments_for_the_same_tokens(paths, data, strip):
    longest = data.draw(st.integers(1, 6))  # a response ends there, or with an end token
    response = st.lists(token_ids(paths.tokenizer), min_size=longest, max_size=longest)
    paths.of([data.draw(response) for _ in PROMPTS], strip)
    wanted = [
        (p.value, text if p.plain else [{"role": "assistant", "content": text}], p.id, i, ["x"])
        for i, (p, text) in enumerate(zip(PROMPTS, paths.texts, strict=True))
    ]
    for name in PATHS:
        paths.reward.seen.clear()
        try:
            getattr(paths, name)()
        except (DataError, TrainingStopped) as error:
            # A query shows no bytes, so a character that a special token splits is refused.
            assert name in BY_QUERY and "special token beside an unfinished character" in str(error)
            assert "\ufffd" in "".join(paths._queries()[0])
            continue
        assert paths.reward.seen == wanted, name


@pytest.mark.parametrize("strip", [False, True])
def test_each_place_that_loads_a_policy_passes_on_whether_it_strips(monkeypatch, strip):
    settings = []

    def load(spec, **given):
        settings.append(given)
        return SimpleNamespace(strip=given["strip"])

    for place in (stages, evaluation, campaign):
        monkeypatch.setattr(place, "load_sampler", load)
    monkeypatch.setattr(stages, "load_reward", lambda *a, **k: None)
    sampling = SamplingSettings(strip=strip)
    stages.load_both("m", "r", sampling, False)
    compared = {"reference": "m", "policies": {}, "reward": "r", "procedures": ("sampling",)}
    comparison = Comparison(prompts=PROMPTS, sampling=sampling, **compared)
    origins = SimpleNamespace(require_unchanged=lambda spec: None)
    assert evaluation._Models(comparison, origins).reference.strip is strip
    red = campaign.Campaign("m", {"none": ()}, success="python:a:b", strip=strip)
    assert red.sampler.strip is red.sampling["strip"] is strip
    assert [given["strip"] for given in settings] == [strip] * 3


def test_a_calibration_of_texts_with_other_white_space_is_refused(paths):
    asked = {"seed": 0, "prompt_ids": NAMES, "columns": COLUMNS}
    plain, stripped = (paths.of([[5], [5], [5]], strip).policy for strip in (False, True))
    for ours, other, made in ((plain, stripped, "true"), (stripped, plain, "false")):
        paths.of([[5], [5], [5]], ours.strip)
        softened, given = ia.SoftBestOfN(1, 0.1), (paths.reward, MESSAGES)
        known = draw_calibration(ours, *given, 2, **asked)
        assert len(decode(softened, ours, *given, calibration=known, **asked)) == len(PROMPTS)
        known = draw_calibration(other, *given, 2, **asked)
        with pytest.raises(DataError, match=f"`sampling.strip` {made}, but it is"):
            decode(softened, ours, *given, calibration=known, **asked)


def test_all_paths_are_tried():
    assert len(PATHS) == 17 and BY_QUERY < set(PATHS)
