"""Many inputs: one batch of the model, one run and one error per input, nothing left behind."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import HumanMessage

from bitcal_integrations.errors import BadRequest, EngineError
from bitcal_integrations.langchain import BitCalLLM, ChatBitCal
from bitcal_integrations.testing.toy import ToyModel

QUESTIONS = [f"Question {i}?" for i in range(20)]


class Lists(ToyModel):
    """Remembers how many prompts each call of `ask` had; fails as told."""

    def __init__(self, fails: Callable[[str], Exception | None] = lambda text: None) -> None:
        super().__init__({q: (f"Answer {i}", i / 20) for i, q in enumerate(QUESTIONS)})
        self.sizes: list[int] = []
        self.interrupt: BaseException | None = None
        self._fails = fails
        self._submit = self._table.submit
        self._table.submit = self._checked  # type: ignore[method-assign]

    def _checked(self, request: Any, listener: Any, steps: bool = True) -> Any:
        text = request.prompt if isinstance(request.prompt, str) else request.prompt[-1]["content"]
        if (error := self._fails(text)) is not None:
            raise error
        return self._submit(request, listener, steps)

    def ask(self, prompt: Any, **options: Any) -> Any:
        self.sizes.append(len(prompt) if isinstance(prompt, list) else 1)
        if self.interrupt is not None:
            raise self.interrupt
        return super().ask(prompt, **options)


class Runs(BaseCallbackHandler):
    """Which run began and ended with what."""

    def __init__(self) -> None:
        self.began: dict[Any, list[str]] = {}
        self.ended: dict[Any, str] = {}
        self.failed: list[BaseException] = []

    def on_chat_model_start(self, serialized: Any, messages: Any, **kwargs: Any) -> None:
        self.began[kwargs["run_id"]] = [messages[0][0].content, *kwargs["tags"]]

    def on_llm_end(self, response: Any, **kwargs: Any) -> None:
        self.ended[kwargs["run_id"]] = response.generations[0][0].text

    def on_llm_error(self, error: BaseException, **kwargs: Any) -> None:
        self.failed.append(error)


def texts(messages: list[Any]) -> list[str]:
    return [getattr(m, "text", m) for m in messages]


@pytest.fixture
def new_threads() -> Callable[[], set[threading.Thread]]:
    """The threads begun since; LangChain keeps some of its own for as long as the process runs."""
    before = set(threading.enumerate())
    return lambda: set(threading.enumerate()) - before


async def ended(tasks: set[asyncio.Task[Any]]) -> bool:
    """Whether these tasks end by themselves: a prompt that a helper thread is just handing in is
    taken back once it is there."""
    return not tasks or not (await asyncio.wait(tasks, timeout=30))[1]


@pytest.mark.parametrize("kind", [ChatBitCal, BitCalLLM])
def test_a_batch_is_one_call_of_the_model(
    kind: Any, new_threads: Callable[[], set[threading.Thread]]
) -> None:
    model = Lists()
    assert texts(kind(model=model).batch(QUESTIONS)) == [f"Answer {i}" for i in range(20)]
    assert model.sizes == [20]
    assert not new_threads()


@pytest.mark.parametrize("kind", [ChatBitCal, BitCalLLM])
async def test_abatch_gives_the_same(kind: Any) -> None:
    answers = await kind(model=Lists()).abatch(QUESTIONS)
    assert texts(answers) == [f"Answer {i}" for i in range(20)]


def test_generate_is_one_call_too() -> None:
    chats, llms = Lists(), Lists()
    result = ChatBitCal(model=chats).generate([[HumanMessage(q)] for q in QUESTIONS])
    assert [g[0].text for g in result.generations] == [f"Answer {i}" for i in range(20)]
    assert len(result.run) == 20
    result = BitCalLLM(model=llms).generate(QUESTIONS)
    assert [g[0].text for g in result.generations] == [f"Answer {i}" for i in range(20)]
    assert chats.sizes == llms.sizes == [20]
    assert ChatBitCal(model=chats).generate([]).generations == []


def test_every_input_keeps_its_own_config() -> None:
    runs = [Runs() for _ in QUESTIONS]
    configs = [{"callbacks": [run], "tags": [f"tag {i}"]} for i, run in enumerate(runs)]
    ChatBitCal(model=Lists()).batch(QUESTIONS, configs)
    for i, run in enumerate(runs):
        assert list(run.began.values()) == [[QUESTIONS[i], f"tag {i}"]]
        assert list(run.ended.values()) == [f"Answer {i}"]


def test_max_concurrency_is_kept() -> None:
    model = Lists()
    ChatBitCal(model=model).batch(QUESTIONS, {"max_concurrency": 5})
    assert sum(model.sizes) == 20
    assert max(model.sizes) <= 5


def _seventh(text: str) -> Exception | None:
    return BadRequest("the seventh") if text == QUESTIONS[7] else None


@pytest.mark.parametrize("kind", [ChatBitCal, BitCalLLM])
async def test_one_failure_stays_one(kind: Any) -> None:
    chat = kind(model=Lists(_seventh))
    for answers in (
        chat.batch(QUESTIONS, return_exceptions=True),
        await chat.abatch(QUESTIONS, return_exceptions=True),
    ):
        assert isinstance(answers.pop(7), BadRequest)
        assert texts(answers) == [f"Answer {i}" for i in range(20) if i != 7]


@pytest.mark.parametrize("kind", [ChatBitCal, BitCalLLM])
async def test_a_failure_is_raised_and_leaves_nothing(
    kind: Any, new_threads: Callable[[], set[threading.Thread]]
) -> None:
    chat = kind(model=Lists(_seventh))
    with pytest.raises(BadRequest, match="the seventh"):
        chat.batch(QUESTIONS)
    assert not new_threads()
    tasks = asyncio.all_tasks()
    with pytest.raises(BadRequest, match="the seventh"):
        await chat.abatch(QUESTIONS)
    assert await ended(asyncio.all_tasks() - tasks)


def test_a_prompt_that_cannot_be_sent_fails_alone() -> None:
    answers = ChatBitCal(model=Lists()).batch(
        [QUESTIONS[0], "half \ud800", [], QUESTIONS[3]], return_exceptions=True
    )
    assert texts([answers[0], answers[3]]) == ["Answer 0", "Answer 3"]
    assert isinstance(answers[1], BadRequest)
    assert isinstance(answers[2], BadRequest)


def test_an_interrupt_ends_the_batch_and_every_thread(
    new_threads: Callable[[], set[threading.Thread]],
) -> None:
    model, runs = Lists(), Runs()
    model.interrupt = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        ChatBitCal(model=model).batch(QUESTIONS, {"callbacks": [runs]})
    assert not new_threads()
    assert len(runs.failed) == 20
    assert all(isinstance(error, EngineError) for error in runs.failed)
    model.interrupt = None
    assert len(ChatBitCal(model=model).batch(QUESTIONS)) == 20


def test_a_handler_that_asks_the_model_again_is_served() -> None:
    model = Lists()
    chat = ChatBitCal(model=model)

    class Asks(BaseCallbackHandler):
        raise_error = True

        def on_llm_end(self, response: Any, **kwargs: Any) -> None:
            assert chat.invoke("Sure?").text == "I do not know."

    assert len(chat.batch(QUESTIONS[:4], {"callbacks": [Asks()]})) == 4


def test_cached_inputs_do_not_hold_up_the_others() -> None:
    from langchain_core.caches import InMemoryCache

    model = Lists()
    chat = ChatBitCal(model=model, cache=InMemoryCache())
    chat.invoke(QUESTIONS[0])
    assert texts(chat.batch(QUESTIONS[:5])) == [f"Answer {i}" for i in range(5)]
    assert model.sizes == [1, 4]
