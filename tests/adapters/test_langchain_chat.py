"""ChatBitCal: the arguments it takes, what it asks the model, and the message that comes back."""

from __future__ import annotations

import copy
import gc
import json
import weakref
from typing import Any

import pytest
from families import tiny_model, tiny_tokenizer
from langchain_core.messages import (
    AIMessage,
    ChatMessage,
    HumanMessage,
    RemoveMessage,
    SystemMessage,
    ToolMessage,
)
from langchain_core.runnables import ConfigurableField

from bitcal_integrations import load
from bitcal_integrations.errors import BadRequest
from bitcal_integrations.langchain import ChatBitCal
from bitcal_integrations.langchain._messages import turns_of
from bitcal_integrations.testing.toy import ToyModel

QUESTION = "Capital of France?"


@pytest.fixture
def toy() -> ToyModel:
    return ToyModel({QUESTION: ("It is Paris", 0.9)}, default=("No idea", None))


class Asked(ToyModel):
    """Remembers what it was asked, as Requests."""

    def __init__(self) -> None:
        super().__init__({})
        self.requests: list[Any] = []
        self.add_sink(lambda record: self.requests.append(record.request))


# ---- what comes back ---------------------------------------------------------------------------


def test_the_message_carries_the_record(toy: ToyModel) -> None:
    message = ChatBitCal(model=toy).invoke(QUESTION)
    assert message.content == "It is Paris"
    assert message.response_metadata["bitcal"] == toy.ask(QUESTION).bitcal()
    assert message.response_metadata["model_name"] == "toy"
    assert message.response_metadata["finish_reason"] == "stop"
    assert message.usage_metadata == {"input_tokens": 3, "output_tokens": 3, "total_tokens": 6}
    assert json.loads(json.dumps(message.response_metadata)) == message.response_metadata


def test_unknown_confidence_is_none_with_its_reason(toy: ToyModel) -> None:
    bitcal = ChatBitCal(model=toy).invoke("Who?").response_metadata["bitcal"]
    assert bitcal["confidence"] is None
    assert bitcal["reason"] == "the table gives no confidence"


def test_a_cut_answer_says_length(toy: ToyModel) -> None:
    message = ChatBitCal(model=toy, max_tokens=2).invoke(QUESTION)
    assert message.content == "It is"
    assert message.response_metadata["finish_reason"] == "length"


def test_generation_info_and_metadata_are_equal_and_apart(toy: ToyModel) -> None:
    result = ChatBitCal(model=toy).generate([[HumanMessage(QUESTION)]])
    generation = result.generations[0][0]
    metadata = generation.message.response_metadata
    assert generation.generation_info == metadata
    metadata["bitcal"]["confidence"] = 0.0
    assert generation.generation_info["bitcal"]["confidence"] == 0.9


def test_logprobs_have_openais_shape(toy: ToyModel) -> None:
    message = ChatBitCal(model=toy, logprobs=True).invoke(QUESTION)
    content = message.response_metadata["logprobs"]["content"]
    steps = toy.ask(QUESTION).generation.steps
    assert "".join(token["token"] for token in content) == message.content
    assert [token["logprob"] for token in content] == [step.logprob for step in steps]
    assert bytes(content[1]["bytes"]).decode() == content[1]["token"] == " is"
    assert content[0]["top_logprobs"] == []


def test_logprobs_only_on_request(toy: ToyModel) -> None:
    chat = ChatBitCal(model=toy)
    assert "logprobs" not in chat.invoke(QUESTION).response_metadata
    assert "logprobs" in chat.invoke(QUESTION, logprobs=True).response_metadata
    assert "logprobs" in chat.invoke(QUESTION, top_logprobs=2).response_metadata


# ---- options -----------------------------------------------------------------------------------


def test_options_reach_the_model_and_a_call_overrides_them() -> None:
    model = Asked()
    chat = ChatBitCal(
        model=model, max_tokens=9, temperature=0.5, top_p=0.8, seed=3, stop="x",
        parser="last_number", timeout=60, max_retries=2, api_key="secret",
    )  # fmt: skip
    chat.invoke("Hi")
    chat.invoke("Hi", stop=["y"], temperature=0.7, max_tokens=4, seed=5)
    first, second = model.requests
    assert (first.max_new_tokens, first.temperature, first.top_p) == (9, 0.5, 0.8)
    assert (first.seed, first.stop, first.parser) == (3, ("x",), "last_number")
    assert (second.max_new_tokens, second.temperature, second.seed) == (4, 0.7, 5)
    assert second.stop == ("y",)
    assert "secret" not in repr(chat)


def test_the_models_own_defaults_hold_where_nothing_is_said() -> None:
    model = Asked()
    model._defaults = {"temperature": 0.4, "max_new_tokens": 7}
    ChatBitCal(model=model).invoke("Hi")
    assert (model.requests[0].temperature, model.requests[0].max_new_tokens) == (0.4, 7)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"temprature": 0}, "unknown argument 'temprature'"),
        ({"temperature": -1}, "temperature=-1"),
        ({"max_tokens": 0}, "max_new_tokens=0"),
        ({"weights": "qint4"}, "weights='qint4' is for load"),
        ({"profile": None}, "profile=None is for load"),
        ({"model": 7}, "model=7 is not allowed"),
    ],
)
def test_a_wrong_argument_is_refused_at_once(
    toy: ToyModel, arguments: dict[str, Any], said: str
) -> None:
    with pytest.raises(BadRequest, match=said.replace("[", r"\[")):
        ChatBitCal(**{"model": toy, **arguments})


def test_a_wrong_option_of_a_call_is_refused(toy: ToyModel) -> None:
    with pytest.raises(BadRequest, match="unknown option 'temprature'"):
        ChatBitCal(model=toy).invoke(QUESTION, temprature=0)


def test_configurable_fields_and_copies_keep_the_model(toy: ToyModel) -> None:
    chat = ChatBitCal(model=toy)
    short = chat.configurable_fields(max_tokens=ConfigurableField(id="max"))
    assert short.invoke(QUESTION, {"configurable": {"max": 1}}).content == "It"
    for other in (copy.copy(chat), copy.deepcopy(chat), chat.model_copy(deep=True)):
        assert other.calibrated_model is toy
        assert other.invoke(QUESTION).content == "It is Paris"


def test_what_identifies_it() -> None:
    one, other = ToyModel({}), ToyModel({"a": ("b", 0.5)})
    assert ChatBitCal(model=one)._identifying_params == ChatBitCal(model=one)._identifying_params
    assert ChatBitCal(model=one)._identifying_params != ChatBitCal(model=other)._identifying_params
    assert ChatBitCal(model=one, seed=1)._identifying_params["seed"] == 1


def test_parameters_for_traces(toy: ToyModel) -> None:
    params = ChatBitCal(model=toy, temperature=0.5, max_tokens=3, stop=["x"])._get_ls_params()
    assert params["ls_provider"] == "bitcal"
    assert params["ls_model_name"] == "toy"
    assert (params["ls_temperature"], params["ls_max_tokens"]) == (0.5, 3)
    assert params["ls_stop"] == ["x"]


def test_tokens_of_a_model_without_tokenizer_are_not_guessed(toy: ToyModel) -> None:
    with pytest.raises(BadRequest, match="'toy' has no tokenizer"):
        ChatBitCal(model=toy).get_num_tokens("hello")
    counted = ChatBitCal(model=toy, custom_get_token_ids=lambda text: [1, 2])
    assert counted.get_num_tokens("hello") == 2


# ---- the model behind it -----------------------------------------------------------------------


def test_equal_arguments_share_one_model_while_it_is_held(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []

    def fake_load(source: str, **arguments: Any) -> ToyModel:
        made.append((source, arguments))
        return ToyModel({}, name=source)

    monkeypatch.setattr("bitcal_integrations.shared.load", fake_load)
    one, two = (ChatBitCal(model="some/model", weights="qint4", seed=s) for s in (1, 2))
    other = ChatBitCal(model="some/model", weights="qint8")
    assert not made, "a model is loaded when it is first used"
    assert one.calibrated_model is two.calibrated_model is not other.calibrated_model
    assert made[0][1]["weights"] == "qint4"
    assert made[0][1]["profile"] == "auto"
    assert len(made) == 2
    gone = weakref.ref(one.calibrated_model)
    del one, two
    gc.collect()
    assert gone() is None


def test_the_built_in_model_by_name() -> None:
    chat = ChatBitCal(model="bitcal-tiny", weights="qint4", profile="auto", max_tokens=24)
    message = chat.invoke("What is the capital of France?")
    bitcal = message.response_metadata["bitcal"]
    assert bitcal["calibrated"] is True
    assert 0 < bitcal["low"] <= bitcal["confidence"] <= bitcal["high"] < 1
    params = chat._identifying_params
    assert params["weights"] == {"qint4": 28}
    assert params["dtype"] == chat.calibrated_model.report()["dtype"]
    assert params["profile"].startswith(chat.calibrated_model.profile.fingerprint)
    assert chat.profile["max_input_tokens"] == 2048
    tokenizer = chat.calibrated_model._loaded.tokenizer
    text = "The capital of France"
    assert chat.get_num_tokens(text) == len(tokenizer(text, add_special_tokens=False)["input_ids"])
    conversation = [HumanMessage("What is the capital of France?")]
    assert chat.get_num_tokens_from_messages(conversation) == message.usage_metadata["input_tokens"]
    bare = ChatBitCal(model=chat.calibrated_model.without_profile(), max_tokens=24)
    assert bare._identifying_params["profile"] is None


# ---- messages ----------------------------------------------------------------------------------


def test_every_kind_of_message() -> None:
    turns = turns_of(
        [
            SystemMessage("Be brief."),
            HumanMessage([{"type": "text", "text": "What is "}, "1 + 2?"], name="ann"),
            AIMessage(
                [{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "I ask."},
                 {"type": "tool_use", "id": "c1", "name": "add", "input": {"a": 1}}],
                tool_calls=[{"name": "add", "args": {"a": 1}, "id": "c1", "type": "tool_call"}],
            ),
            ToolMessage("3", tool_call_id="c1", name="add"),
            ChatMessage("Go on.", role="judge"),
        ]
    )  # fmt: skip
    function = {"name": "add", "arguments": '{"a": 1}'}
    assert turns == (
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "What is 1 + 2?", "name": "ann"},
        {
            "role": "assistant", "content": "I ask.",
            "tool_calls": [{"id": "c1", "type": "function", "function": function}],
        },
        {"role": "tool", "content": "3", "name": "add", "tool_call_id": "c1"},
        {"role": "judge", "content": "Go on."},
    )  # fmt: skip


def test_turns_of_one_role_reach_a_template_that_refuses_them() -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = (
        "{% for m in messages %}{% if not loop.first and m.role == loop.previtem.role %}"
        "{{ raise_exception('roles must alternate') }}{% endif %}"
        "<s>{{ m.role }}: {{ m.content }}</s>{% endfor %}<s>assistant: "
    )
    messages = [SystemMessage("A"), SystemMessage("B"), HumanMessage("C"), HumanMessage("D")]
    with load(tiny_model("llama"), tokenizer=tokenizer, weights=None) as model:
        assert ChatBitCal(model=model, max_tokens=2).invoke(messages)


def test_a_picture_is_refused_by_its_type(toy: ToyModel) -> None:
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    with pytest.raises(BadRequest, match="a part of type 'image_url' in a human message"):
        ChatBitCal(model=toy).invoke([HumanMessage([{"type": "text", "text": "What?"}, picture])])


def test_what_is_no_turn_is_refused(toy: ToyModel) -> None:
    with pytest.raises(BadRequest, match="a message of type 'remove'"):
        turns_of([RemoveMessage(id="1")])
    with pytest.raises(BadRequest, match="the list of messages is empty"):
        ChatBitCal(model=toy).invoke([])
