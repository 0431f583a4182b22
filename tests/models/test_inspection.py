"""Models, rewards and judges that cannot be what they are asked to be are refused before any work,
and loading them is refused alike."""

import json
import shutil
import sys
import types

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    GPT2Config,
    GPT2ForSequenceClassification,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    Qwen2Config,
    Qwen2ForCausalLM,
    RobertaConfig,
    RobertaForSequenceClassification,
)

from infalign.demo import bundled
from infalign.errors import DataError
from infalign.models.classifier import ClassifierReward
from infalign.models.hf import LanguageModel
from infalign.models.inspection import inspect_judge, inspect_policy, inspect_reward
from infalign.models.loading import in_template, load_tokenizer, prompt_text
from infalign.models.vllm import VLLMModel

SIZE = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": 2048}
BODY = {**SIZE, "intermediate_size": 16}
SPECIAL = {"bos_token_id": None, "eos_token_id": 1, "pad_token_id": 0}
ONE = {"num_labels": 1}
TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
QUESTION = [{"role": "user", "content": "How do I bake bread?"}]

MODELS = {
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**BODY, **SPECIAL)),
    "tied llama": lambda: LlamaForCausalLM(
        LlamaConfig(**BODY, **SPECIAL, tie_word_embeddings=True)
    ),
    "gpt2": lambda: GPT2LMHeadModel(GPT2Config(**SIZE, **SPECIAL)),
    "qwen": lambda: Qwen2ForCausalLM(Qwen2Config(**BODY, **SPECIAL, num_key_value_heads=1)),
    "llama reward": lambda: LlamaForSequenceClassification(LlamaConfig(**BODY, **SPECIAL, **ONE)),
    "tied llama reward": lambda: LlamaForSequenceClassification(
        LlamaConfig(**BODY, **SPECIAL, **ONE, tie_word_embeddings=True)
    ),
    "gpt2 reward": lambda: GPT2ForSequenceClassification(GPT2Config(**SIZE, **SPECIAL, **ONE)),
    "bert reward": lambda: BertForSequenceClassification(BertConfig(**BODY, **ONE)),
    "roberta reward": lambda: RobertaForSequenceClassification(
        RobertaConfig(**BODY, **ONE, pad_token_id=0, eos_token_id=1)
    ),
    "masked bert": lambda: BertForMaskedLM(BertConfig(**BODY)),
}
POLICIES = ("llama", "tied llama", "gpt2", "qwen")
REWARDS = ("llama reward", "tied llama reward", "gpt2 reward", "bert reward", "roberta reward")
ROLES = {"policy": (inspect_policy, LanguageModel), "reward": (inspect_reward, ClassifierReward)}


@pytest.fixture(scope="module")
def zoo(tmp_path_factory):
    """Folder of each of the models."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("zoo")
    for name, make in MODELS.items():
        make().save_pretrained(folder / name)
        add_tokenizer(folder / name)
    return folder


def add_tokenizer(folder):
    for file in TOKENIZER:
        shutil.copy(bundled("bundled:language-model", "model") / file, folder / file)


@pytest.fixture
def copy(zoo, tmp_path):
    """A copy of a model's folder, to be damaged."""
    return lambda name: shutil.copytree(zoo / name, tmp_path / name)


def refused(role, path, *words):
    """Both roads refuse the folder with one message, which holds the words."""
    messages = []
    for call in ROLES[role]:
        with pytest.raises(DataError) as caught:
            call(str(path))
        messages.append(str(caught.value))
    assert messages[0] == messages[1]
    for word in (repr(str(path)), *words):
        assert word in messages[0]


@pytest.mark.parametrize("name", POLICIES)
def test_language_models_are_policies_and_no_rewards(zoo, name, caplog):
    inspect_policy(str(zoo / name), conversations=[QUESTION], max_new_tokens=4)
    LanguageModel(str(zoo / name))
    refused("reward", zoo / name, "no weights for the score head (score.weight)", "random")
    assert "LOAD REPORT" not in caplog.text  # the message says it


@pytest.mark.parametrize("name", REWARDS)
def test_reward_models_are_rewards_and_no_policies(zoo, name):
    inspect_reward(str(zoo / name), conversations=[QUESTION])
    ClassifierReward(str(zoo / name))
    refused("policy", zoo / name, "is not a language model")


def test_a_model_that_reads_both_ways_is_no_policy(zoo):
    refused("policy", zoo / "masked bert", "BertForMaskedLM", "both directions")


@pytest.mark.parametrize("outputs", [2, 6])
@pytest.mark.parametrize("kind", [LlamaForSequenceClassification, BertForSequenceClassification])
def test_a_head_with_several_outputs_is_named_with_its_labels(tmp_path, outputs, kind):
    labels = {i: f"grade {i}" for i in range(outputs)}
    kind(kind.config_class(**BODY, id2label=labels, num_labels=outputs)).save_pretrained(tmp_path)
    add_tokenizer(tmp_path)
    refused("reward", tmp_path, f"has {outputs} outputs ('grade 0, grade 1", "python:package")


def weights(folder):
    return load_file(folder / "model.safetensors")


def rewrite(folder, state):
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize(("role", "name"), [("policy", "llama"), ("reward", "llama reward")])
def test_missing_surplus_and_misshapen_weights_are_named(copy, role, name):
    folder, lost = copy(name), "model.layers.1.mlp.up_proj.weight"
    whole = weights(folder)
    rewrite(folder, {k: v for k, v in whole.items() if k != lost})
    refused(role, folder, "is incomplete: 1 of its weights", lost)
    rewrite(folder, whole | {lost: whole[lost][:8].clone()})
    refused(role, folder, f"{lost} is (8, 16), and config.json needs (16, 16)")
    rewrite(folder, whole | {"model.layers.2.mlp.up_proj.weight": whole[lost].clone()})
    refused(role, folder, "1 weights that its configuration leaves out (model.layers.2.mlp")
    rewrite(folder, whole | {"model.layers.0.mlp.up_proj.bias": torch.zeros(16)})
    refused(role, folder, "leaves out (model.layers.0.mlp.up_proj.bias)")
    # What other roles and older versions leave behind is no part of this model.
    rewrite(
        folder,
        whole
        | {"v_head.summary.weight": torch.zeros(1, 16)}
        | {"model.pooler.dense.bias": torch.zeros(16)}
        | {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.zeros(4)},
    )
    for call in ROLES[role]:
        call(str(folder))


@pytest.mark.parametrize(("role", "name"), [("policy", "llama"), ("reward", "llama reward")])
def test_shards_other_precisions_and_pickles_are_read_alike(copy, role, name):
    folder = copy(name)
    loader = AutoModelForCausalLM if role == "policy" else AutoModelForSequenceClassification
    model = loader.from_pretrained(folder, dtype=torch.float16)
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="20KB")
    shards = sorted(folder.glob("model-*.safetensors"))
    assert len(shards) >= 2
    for call in ROLES[role]:
        call(str(folder))
    content = shards[1].read_bytes()
    shards[1].write_bytes(content[:-10])
    with pytest.raises(DataError, match=f"cannot be read, {shards[1].name}"):
        ROLES[role][0](str(folder))
    shards[1].unlink()
    with pytest.raises(DataError, match=f"lacks {shards[1].name}, one of the files"):
        ROLES[role][0](str(folder))
    for file in folder.glob("model*"):
        file.unlink()
    state = {k: v.clone() for k, v in model.state_dict().items()}
    torch.save(state, folder / "pytorch_model.bin")
    for call in ROLES[role]:
        call(str(folder))
    torch.save(state, folder / "pytorch_model.bin", _use_new_zipfile_serialization=False)
    ROLES[role][0](str(folder))
    (folder / "pytorch_model.bin").write_bytes(b"no weights")
    with pytest.raises(DataError, match=r"weights that cannot be read, pytorch_model\.bin"):
        ROLES[role][0](str(folder))
    torch.save(
        {k: v for k, v in state.items() if "head" not in k and "score" not in k},
        folder / "pytorch_model.bin",
    )
    refused(role, folder, "no weights for the")


def adapter(base, folder, task, **settings):
    loader = AutoModelForCausalLM if task == "CAUSAL_LM" else AutoModelForSequenceClassification
    options = {} if task == "CAUSAL_LM" else {"num_labels": 1}
    torch.manual_seed(1)
    changed = LoraConfig(task_type=task, r=2, target_modules=["q_proj"], **settings)
    get_peft_model(loader.from_pretrained(base, **options), changed).save_pretrained(folder)
    return folder


def test_a_quantized_policy_is_not_trained(zoo, tmp_path):
    shutil.copytree(zoo / "llama", tmp_path / "quantized")
    path = tmp_path / "quantized" / "config.json"
    config = json.loads(path.read_text())
    inspect_policy(str(tmp_path / "quantized"), trained=True)
    path.write_text(json.dumps(config | {"quantization_config": {"quant_method": "gptq"}}))
    with pytest.raises(DataError, match=r"is quantized, so it cannot be trained.*Give the model"):
        inspect_policy(str(tmp_path / "quantized"), trained=True)


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # PEFT's own
def test_adapters_bring_what_their_base_lacks_and_nothing_else(zoo, tmp_path):
    policy = adapter(zoo / "llama", tmp_path / "policy", "CAUSAL_LM")
    base = repr(str(zoo / "llama"))
    refused("policy", policy, "is an adapter of the base model", base, "tokenizer", "save_pretra")
    add_tokenizer(policy)
    for call in ROLES["policy"]:
        call(str(policy))
    refused("reward", policy, "no weights for the score head")
    with pytest.raises(DataError, match=r"an adapter of .* cannot be trained by itself\. Merge it"):
        inspect_policy(str(policy), trained=True)
    with pytest.raises(DataError, match=r"cannot be run by vLLM by itself"):
        inspect_policy(f"vllm:{policy}")

    reward = adapter(zoo / "llama", tmp_path / "reward", "SEQ_CLS")
    add_tokenizer(reward)
    for call in ROLES["reward"]:
        call(str(reward))  # its score head is among its weights
    state = load_file(reward / "adapter_model.safetensors")
    save_file(
        {k: v for k, v in state.items() if "score" not in k}, reward / "adapter_model.safetensors"
    )
    refused("reward", reward, "no weights for the score head")

    file = policy / "adapter_config.json"
    stated = json.loads(file.read_text())
    file.write_text(json.dumps(stated | {"base_model_name_or_path": "models/gone"}))
    refused("policy", policy, "'models/gone', the base model of the adapter")
    file.write_text(json.dumps(stated | {"base_model_name_or_path": None}))
    refused("policy", policy, "names no base model")
    file.write_text(json.dumps(stated))
    shutil.copy(zoo / "llama" / "config.json", policy)
    shutil.copy(zoo / "llama" / "model.safetensors", policy)
    refused("policy", policy, "holds both a whole model and an adapter of", base)


@pytest.mark.parametrize("name", [*POLICIES, *REWARDS])
def test_without_a_tokenizer_a_model_is_refused(copy, name):
    # The library makes an empty tokenizer of some classes, which reads every text as nothing.
    folder = copy(name)
    for file in TOKENIZER:
        (folder / file).unlink()
    refused("policy" if name in POLICIES else "reward", folder, "has no tokenizer")


def test_folders_without_a_model_are_refused(tmp_path):
    refused("policy", tmp_path, "is not a folder that transformers can load")
    add_tokenizer(tmp_path)
    LlamaConfig(**BODY, **SPECIAL, num_labels=1).save_pretrained(tmp_path)
    for role in ROLES:
        refused(role, tmp_path, "has no weights: its folder holds neither model.safetensors nor")
    with pytest.raises(DataError, match=r"The reward 'models/gone' is not a folder, or hub id"):
        inspect_reward("models/gone")
    with pytest.raises(DataError, match="no bundled reward 'language-model'"):
        inspect_reward("bundled:language-model")


TEMPLATES = {
    "{{ raise_exception('System role not supported') }}": "System role not supported",
    "{{ missing.content }}": "'missing' is undefined",
    "{{ 1 + messages[0]['content'] }}": "unsupported operand",
    "{% for m in messages %}": "Unexpected end of template",
    "{{ messages[5]['content'] + '' }}": "has no element 5",
}


@pytest.mark.parametrize(("template", "said"), TEMPLATES.items())
def test_a_template_that_fails_is_named_with_what_it_says(copy, template, said):
    for role, name in (("policy", "llama"), ("reward", "llama reward")):
        folder = copy(name)
        (folder / "chat_template.jinja").write_text(template)
        with pytest.raises(DataError) as caught:
            ROLES[role][0](str(folder))
        message = str(caught.value)
        assert message.startswith(f"The chat template of the {role.replace('policy', 'model')} ")
        assert repr(str(folder)) in message and "'What is two plus two?'" in message
        assert said in message
        shutil.rmtree(folder)


def test_a_template_that_leaves_out_a_message_is_refused(copy):
    folder = copy("llama reward")
    (folder / "chat_template.jinja").write_text("{{ messages[0]['content'] }}")
    with pytest.raises(DataError, match=r"leaves out messages of the role 'assistant'"):
        inspect_reward(str(folder))
    (folder / "chat_template.jinja").write_text("Hello")
    with pytest.raises(DataError, match=r"leaves out messages of the role 'user'"):
        inspect_reward(str(folder))


@pytest.mark.parametrize("content", [None, 3, [{"type": "text", "text": "Hi"}], {"text": "Hi"}])
def test_content_that_is_no_text_is_refused_with_and_without_a_template(zoo, content):
    tokenizer = load_tokenizer(zoo / "llama")
    messages = [{"role": "user", "content": content}]
    with pytest.raises(DataError, match=r"message 0 of the prompt .* has the content"):
        prompt_text(tokenizer, messages)
    with pytest.raises(DataError, match=r"message 0 of the prompt"):
        in_template(tokenizer, messages, "The reward")
    tokenizer.chat_template = None
    with pytest.raises(DataError, match=r"reads text; a prompt has the content"):
        prompt_text(tokenizer, messages)


def test_tokens_without_an_embedding_are_named(copy):
    for role, name in (("policy", "llama"), ("reward", "llama reward")):
        folder = copy(name)
        tokenizer = AutoTokenizer.from_pretrained(folder)
        tokenizer.add_tokens(["What is"])
        tokenizer.save_pretrained(folder)
        with pytest.raises(
            DataError, match=r"'What is' with the id 2048, and the model knows 2048"
        ):
            ROLES[role][0](str(folder))
    model = LanguageModel(str(folder.parent / "llama"))
    with pytest.raises(DataError, match=r"'What is' with the id 2048"):
        model.sample([[{"role": "user", "content": "What is it?"}]], 1, seed=0)


def test_a_padding_token_without_an_embedding_is_replaced(copy):
    folder = copy("llama")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    tokenizer.save_pretrained(folder)
    model = LanguageModel(str(folder), max_new_tokens=2)
    long = [{"role": "user", "content": "Why? " * 9}]
    assert len(model.sample([QUESTION, long], 2, seed=0)) == 2


@pytest.mark.parametrize(("name", "limit"), [("llama", 2048), ("gpt2", 1024)])
def test_a_prompt_that_leaves_no_room_for_its_response_is_named(zoo, name, limit):
    prompts, keys = [QUESTION, [{"role": "user", "content": "Why? " * 40}]], ["short", "long"]
    path = str(zoo / name)
    length = len(load_tokenizer(path)(prompt_text(load_tokenizer(path), prompts[1]))["input_ids"])
    room = limit - length
    inspect_policy(path, conversations=prompts, keys=keys, max_new_tokens=room)
    message = rf"has {limit} positions; prompt 'long' has {length} tokens, and a response may have"
    with pytest.raises(DataError, match=message):
        inspect_policy(path, conversations=prompts, keys=keys, max_new_tokens=room + 1)
    model = LanguageModel(path, max_new_tokens=room + 1)
    with pytest.raises(DataError, match=message):
        model.sample(prompts, 1, seed=0, keys=keys)


def test_code_that_is_not_trusted_is_named_with_the_option(copy):
    folder = copy("llama")
    stated = json.loads((folder / "config.json").read_text())
    own = {"auto_map": {"AutoConfig": "own.Config", "AutoModelForCausalLM": "own.Model"}}
    (folder / "config.json").write_text(json.dumps(stated | own | {"model_type": "own"}))
    refused("policy", folder, "`trust_remote_code: true` (--trust-remote-code)")


def test_weights_that_are_no_numbers_are_noticed_at_the_first_token(copy):
    folder = copy("llama")
    rewrite(folder, {k: v * float("nan") for k, v in weights(folder).items()})
    with pytest.raises(DataError, match=r"llama' gives tokens probabilities that are nan"):
        LanguageModel(str(folder)).sample([QUESTION], 1, seed=0)


def test_vllm_is_not_started_with_what_is_no_policy(zoo, monkeypatch):
    module = types.ModuleType("vllm")
    module.LLM, module.SamplingParams = None, None  # calling it would fail
    monkeypatch.setitem(sys.modules, "vllm", module)
    with pytest.raises(DataError, match=r"llama reward' is not a language model"):
        VLLMModel(zoo / "llama reward")


URLS = ["http:///v1#m", "http://host:x/v1#m", "http://ho st/v1#m", "https://[::1/v1#m"]


@pytest.mark.parametrize("url", URLS)
def test_urls_without_a_host_or_port_are_refused(url):
    for inspect in (inspect_policy, inspect_reward, inspect_judge):
        with pytest.raises(DataError, match=r"is not a URL such as http://127.0.0.1:8000/v1"):
            inspect(url)


def test_servers_are_not_contacted():
    inspect_policy("http://127.0.0.1:9/v1#m")
    inspect_judge("https://127.0.0.1:9/v1#m")
    inspect_reward("http://127.0.0.1:9/score")
    with pytest.raises(DataError, match=r"does not name one of the server's models"):
        inspect_policy("http://127.0.0.1:9/v1")


@pytest.mark.parametrize(
    ("inspect", "spec", "words"),
    [
        (inspect_policy, "python:json:dumps", "is not a policy"),
        (inspect_reward, "reward:bundled:helpful", "is not a reward"),
        (inspect_reward, "python:nothing:at_all", "The reward 'python:nothing:at_all' cannot be"),
        (inspect_judge, "python:nothing:at_all", "The judge 'python:nothing:at_all' cannot be"),
        (inspect_judge, "bundled:helpful", "it must be python:package"),
        (inspect_judge, "reward:bundled:language-model", "no bundled reward"),
    ],
)
def test_specifications_of_another_role_are_refused(inspect, spec, words):
    with pytest.raises(DataError, match=words):
        inspect(spec)


def test_rewards_and_judges_that_exist_pass():
    inspect_judge("reward:bundled:helpful")
    inspect_judge("python:json:dumps")
    inspect_reward("python:json:dumps")
    for name in ("helpful", "harmless"):
        inspect_reward(f"bundled:{name}")
    inspect_policy("vllm:bundled:language-model")
