"""The prompt inside a conversation or a preference pair."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infalign.prompts.conversations import common, opening, transcript
from infalign.prompts.messages import BadPrompt

USER = {"role": "user", "content": "Hi"}
REPLY = {"role": "assistant", "content": "Hello"}
OTHER = {"role": "assistant", "content": "What?"}
NEXT = {"role": "user", "content": "How?"}
START = "\n\nHuman: Hi\n\nAssistant: Hello\n\nHuman: How?"


@pytest.mark.parametrize("replies", [[], [REPLY]])
def test_a_conversation_opens_with_everything_before_a_reply_at_its_end(replies):
    assert opening([USER, REPLY, NEXT, *replies]) == [USER, REPLY, NEXT]
    with pytest.raises(BadPrompt, match="the last, is of role 'assistant'"):
        opening([USER, REPLY, OTHER])


def test_a_transcript_is_read_as_messages_and_any_other_text_as_it_is():
    assert opening(f"{START}\n\nAssistant: d") == [USER, REPLY, NEXT]
    assert opening(START) == [USER, REPLY, NEXT]
    assert transcript("no transcript") is None
    assert opening("Say\n\nHuman: a\n\nAssistant: b") == "Say\n\nHuman: a\n\nAssistant: b"


@given(st.lists(st.sampled_from([REPLY, OTHER, USER, NEXT])))
def test_the_prompt_of_a_pair_is_its_common_leading_messages(start):
    prompt = [*start, NEXT]
    pair = ([*prompt, REPLY], [*prompt, OTHER])
    assert common(*pair) == prompt
    # Two equal conversations differ in nothing, and the reply is still not part of the prompt.
    assert common(pair[0], pair[0]) == prompt


def test_conversations_that_part_early_have_the_prompt_before_they_part():
    assert common([USER, REPLY, NEXT, OTHER], [USER, OTHER, NEXT, OTHER]) == [USER]


@pytest.mark.parametrize(
    ("chosen", "rejected", "prompt"),
    [
        ("The sky is blue.", "The sky is green.", "The sky is"),
        ("The sky is blue.", "The sky is black.", "The sky is"),  # "bl" belongs to the replies
        ("Q: a?\nA: yes", "Q: a?\nA: no", "Q: a?\nA:"),
        ("Q: a?\nA: yes", "Q: a?\nA: yes, sir", "Q: a?\nA:"),
        (f"{START}\n\nAssistant: a", f"{START}\n\nAssistant: b", [USER, REPLY, NEXT]),
    ],
)
def test_the_prompt_of_two_texts_is_their_common_beginning_in_whole_words(chosen, rejected, prompt):
    assert common(chosen, rejected) == prompt


@pytest.mark.parametrize(
    ("chosen", "rejected", "words"),
    [
        ([USER, REPLY], [NEXT, REPLY], "no message in common .* 'Hi' and 'How\\?'"),
        ([REPLY], [OTHER], "no message in common"),
        ("Blue.", "Green.", "do not begin with the same prompt.*'Blue.' and 'Green.'"),
        ("The sky.", "The sky.", "do not begin with the same prompt"),
        ([USER, REPLY], "Hi", "must be a text or a list of messages .* got 'Hi'"),
        (None, None, "must be a text or a list of messages .* got None"),
    ],
)
def test_pairs_without_a_common_prompt_are_refused(chosen, rejected, words):
    with pytest.raises(BadPrompt, match=words):
        common(chosen, rejected)
