"""load("http://...") and who takes such a model: defaults, errors, frameworks, the examples."""

from __future__ import annotations

import runpy
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from remote_help import Server, remote_threads, said, serving
from typer.testing import CliRunner

from bitcal_integrations import load
from bitcal_integrations.cli import app
from bitcal_integrations.errors import BadRequest, EngineClosed, SaveError
from bitcal_integrations.langchain import ChatBitCal
from bitcal_integrations.llama_index import BitCalLLM

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def server() -> Iterator[Server]:
    with serving(Server(default=said("#### ", "4", ""))) as server:
        yield server


def test_a_server_is_a_model_with_defaults_and_without_weights(server: Server) -> None:
    with load(
        server.url, model="toy", api="chat", system="Be brief.", max_new_tokens=7, max_in_flight=3
    ) as model:
        assert model.ask("2 + 2", parser="gsm8k").generation.answer is not None
        body = server.asked[-1][2]
        assert [turn["role"] for turn in body["messages"]] == ["system", "user"]
        assert body["max_tokens"] == 7
        assert (model.name, model.context, model.scores, model.profile) == (
            "toy",
            256,
            "top_k",
            None,
        )
        assert model.report()["max_in_flight"] == 3
        assert model.fingerprint_parts["engine"] == "remote"
        with pytest.raises(SaveError, match="has no weights"):
            model.save("anywhere")
    assert model.closed
    with pytest.raises(EngineClosed):
        model.ask("2 + 2")


def test_wrong_arguments_leave_no_thread(server: Server) -> None:
    before = len(remote_threads())
    for arguments, words in (
        ({"weights": "qint4"}, "weights='qint4' is not allowed: a server decides that itself"),
        ({"max_batch": 4}, "max_batch=4 is not allowed"),
        ({"model": 4}, "model=4 is not allowed"),
        ({"colour": 4}, "unknown option 'colour'"),
    ):
        with pytest.raises(BadRequest, match=words):
            load(server.url, **arguments)
    with pytest.raises(BadRequest, match="model='toy' is not allowed beside 'org/name'"):
        load("org/name", model="toy")
    assert len(remote_threads()) == before


def test_the_frameworks_take_it_as_any_other(server: Server) -> None:
    assert ChatBitCal(model=server.url).invoke("2 + 2").text == "#### 4"
    with load(server.url) as model:
        message = ChatBitCal(model=model).invoke("2 + 2")
        assert message.text == "#### 4"
        assert message.response_metadata["bitcal"]["confidence"] is None
        assert message.usage_metadata is not None
        chunks = list(ChatBitCal(model=model).stream("2 + 2"))
        assert "".join(c.text for c in chunks) == "#### 4"
        response = BitCalLLM(model=model).complete("2 + 2")
        assert response.text == "#### 4"
        assert response.raw["bitcal"]["finish"] == "stop"


@pytest.mark.parametrize("framework", ["langchain", "llama_index"])
def test_the_example_hands_over_to_the_server(
    server: Server,
    framework: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = EXAMPLES / f"server_fallback_{framework}.py"
    monkeypatch.setattr(sys, "argv", [str(path), server.url])
    runpy.run_path(str(path), run_name="__main__")
    shown = capsys.readouterr().out
    assert "server" in shown
    assert "4" in shown
    assert server.bodies()


def test_the_command_line_asks_it(server: Server) -> None:
    result = CliRunner().invoke(app, ["ask", server.url, "2 + 2", "--parser", "gsm8k"])
    assert (result.exit_code, result.stdout) == (0, "#### 4\n")
    assert "confidence unknown: no profile" in result.stderr


def test_doctor_reaches_a_server(server: Server) -> None:
    """A scheme in capitals is a server too."""
    address = server.url.replace("http://", "HTTP://")
    found = CliRunner().invoke(app, ["doctor", address, "--model", "toy", "--api", "chat"])
    assert found.exit_code == 0, found.output
    assert "in_flight" in found.stdout
    assert server.asked
    refused = CliRunner().invoke(app, ["doctor", "--api", "chat"])
    assert refused.exit_code == 1
    assert "--api belongs to a server" in refused.stderr
