"""What a specification of a model, a reward or a judge names."""

import pytest

from infalign import DataError
from infalign.demo import FOLDER
from infalign.models.specs import ModelSpec


@pytest.mark.parametrize(
    ("text", "kind", "weights"),
    [
        ("models/mine", "path", True),
        ("Qwen/Qwen2.5-0.5B-Instruct", "path", True),
        ("bundled:language-model", "bundled", True),
        ("vllm:models/mine", "vllm", False),
        ("http://host:8000/v1#name", "server", False),
        ("https://host/score", "server", False),
        ("python:package.module:function", "python", False),
        ("reward:bundled:helpful", "reward", False),
        ("", "path", True),
        ("C:models", "path", True),
    ],
)
def test_every_form_has_one_kind(text, kind, weights):
    spec = ModelSpec.parse(text)
    assert (spec.kind, spec.text, spec.has_weights) == (kind, text, weights)


def test_a_python_file_without_a_function_is_refused_with_the_form():
    for text in ("rewards.py", "folder/rewards.py"):
        with pytest.raises(DataError, match=rf"'{text}' is a Python file .* '{text}:score'"):
            ModelSpec.parse(text)
    with pytest.raises(DataError, match="Name a function of it"):
        _ = ModelSpec.parse("reward:rewards.py").inner


def test_the_parts_of_a_server():
    spec = ModelSpec.parse("http://host:8000/v1#org/name")
    assert (spec.url, spec.model) == ("http://host:8000/v1", "org/name")
    assert ModelSpec.parse("http://host/score").model == ""


def test_vllm_takes_a_share_of_the_memory_and_no_other_option():
    spec = ModelSpec.parse("vllm:org/name#gpu_memory_utilization=0.5")
    assert (spec.inner.text, spec.memory) == ("org/name", 0.5)
    for text in ("vllm:org/name", "vllm:runs/#1/model", "runs/mine#gpu_memory_utilization=2"):
        spec = ModelSpec.parse(text)
        assert (spec.inner.text, spec.memory) == (text.removeprefix("vllm:"), None)
    for option in ("dtype=half", "gpu_memory_utilization=0", "gpu_memory_utilization=80%"):
        with pytest.raises(DataError, match=f"has the option '{option}'. The one option is gpu_"):
            ModelSpec.parse(f"vllm:org/name#{option}")


def test_paths_of_bundled_models_are_inside_the_package():
    assert ModelSpec.parse("bundled:helpful").path("reward") == FOLDER / "models/reward-helpful"
    assert ModelSpec.parse("some/model").path("model") == "some/model"
    with pytest.raises(DataError, match="no bundled reward 'language-model'"):
        ModelSpec.parse("bundled:language-model").path("reward")


def test_an_engine_or_a_judge_holds_another_specification():
    inner = ModelSpec.parse("vllm:bundled:language-model").inner
    assert (inner.kind, inner.text) == ("bundled", "bundled:language-model")
    assert ModelSpec.parse("reward:python:m:f").inner == ModelSpec.parse("python:m:f")
    assert ModelSpec.parse("some/model").inner == ModelSpec.parse("some/model")
