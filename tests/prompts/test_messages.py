"""A prompt as chat messages: what every model can be given, or a refusal by name."""

import json

import pytest

from infalign.prompts.messages import ROLES, UNREAD, BadPrompt, messages_of

USER = {"role": "user", "content": "Hi"}
REPLY = {"role": "assistant", "content": "Hello"}


@pytest.mark.parametrize("first", [r for r in ROLES if r != "assistant"])
def test_a_conversation_that_ends_with_the_user_is_a_prompt(first):
    messages = [{"role": first, "content": " a\n"}, USER, REPLY, {"role": "user", "content": "b "}]
    assert messages_of(messages) == messages
    assert messages_of("  def f():\n") == [{"role": "user", "content": "  def f():\n"}]


def test_other_keys_of_a_message_are_left_out():
    assert messages_of([{**USER, "date": 1, "tool_calls": None, "images": []}]) == [USER]


def test_messages_in_the_form_of_share_gpt_are_read():
    given = [{"from": "system", "value": "Be kind."}, {"from": "human", "value": "Hi"}]
    given += [{"from": "gpt", "value": "Hello"}, {"from": "human", "value": "Bye", "weight": None}]
    assert messages_of(given) == [
        {"role": "system", "content": "Be kind."},
        USER,
        REPLY,
        {"role": "user", "content": "Bye"},
    ]


REFUSED = {
    "nothing": (None, "must be a text or a list of messages"),
    "empty": ("", "is empty"),
    "blank": (" \n\u3000", "is empty"),
    "no messages": ([], "must be a text or a list"),
    "token ids": ([1, 2, 3], "is a list of numbers, such as token ids; .* Give the text"),
    "floats": ([1.0], "is a list of numbers"),
    "number": (3, "must be a text or a list"),
    "object": ({"role": "user", "content": "Hi"}, "must be a text or a list"),
    "texts": (["a", "b"], "entry 0 is 'a'"),
    "one text": ([USER, "b"], "entry 1 is 'b'"),
    "share gpt tool": ([{"from": "observation", "value": "Hi"}], "message 0 has from, value."),
    "as one text": (json.dumps([USER]), "is a list of messages that was written as one text"),
    "as Python text": (str([USER, REPLY]), "is a list of messages that was written as one text"),
    "no keys": ([{}], "message 0 has nothing"),
    "role": ([{"role": "human", "content": "Hi"}], "message 0 has the role 'human'"),
    "role none": ([{"role": None, "content": "Hi"}], "message 0 has the role None"),
    "role list": ([{"role": ["user"], "content": "Hi"}], "has the role \\['user'\\]"),
    "assistant last": ([USER, REPLY], "message 1, the last, is of role 'assistant'. Remove the"),
    "system only": ([{"role": "system", "content": "Be kind."}], "Add the user's turn"),
    "tool last": ([USER, REPLY, {"role": "tool", "content": "22"}], "Prompts with tools cannot"),
    "text in parts": ([{"role": "user", "content": [{"type": "text", "text": "Hi"}]}],
                      "message 0 is in parts of type 'text'. Join them to one text"),
    "image": ([{"role": "user", "content": [{"type": "text", "text": "Hi"},
                                            {"type": "image_url", "image_url": {}}]}],
              "parts of type 'text', 'image_url'. Prompts with anything but text cannot be used"),
    "parts of texts": ([{"role": "user", "content": ["Hi"]}], "parts of type 'Hi'"),
    "no parts": ([{"role": "user", "content": []}], "parts of type none"),
    "null": ([{"role": "user", "content": None}], "message 0, of role 'user', is None"),
    "number as text": ([{"role": "user", "content": 3}], "message 0, of role 'user', is 3"),
    "empty text": ([{"role": "user", "content": ""}], "message 0, of role 'user', is ''"),
    "empty reply": ([USER, {"role": "assistant", "content": ""}, USER], "message 1, of role 'as"),
}  # fmt: skip


@pytest.mark.parametrize(("value", "words"), REFUSED.values(), ids=REFUSED)
def test_anything_else_is_refused_by_what_is_wrong(value, words):
    with pytest.raises(BadPrompt, match=words):
        messages_of(value)


@pytest.mark.parametrize("key", UNREAD)
def test_what_would_be_lost_from_a_message_is_refused_by_name(key):
    reply = {"role": "assistant", "content": None, key: [{"id": "1"}]}
    with pytest.raises(BadPrompt, match=f"message 1 has {key}"):
        messages_of([USER, reply, {"role": "tool", "content": "22"}])
