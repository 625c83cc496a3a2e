"""An OpenAI-compatible server of this process: it says what a table says, and fails when told to.

It speaks completions and chats as streams, with log-probabilities, on a free port of this machine.
"""

from __future__ import annotations

import json
import queue
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from bitcal_integrations.engines._remote_errors import Patience

LIMIT_S = 30.0
Said = tuple[str, float, tuple[tuple[str, float], ...]]  # a token, its log-probability, others


def said(*tokens: str, logprob: float = -0.1, other: float = -2.5) -> list[Said]:
    """Tokens that are equally likely, each with one alternative."""
    return [(t, logprob, ((t, logprob), ("?", other))) for t in tokens]


@dataclass
class Fault:
    """What goes wrong with one request: a `status`, or after some tokens `then`: drop, hang,
    silent, end (without a finish), garbage (no JSON), error (as an event), shape (other JSON)."""

    status: int | None = None
    words: str = "no"
    retry_after: str | None = None
    then: str = ""
    tokens: int = 0
    meet: threading.Barrier | None = None  # it answers only when so many are being asked


@dataclass
class Server:
    """What it says and how it fails; tests read what it was asked."""

    answers: dict[str, list[Said]] = field(default_factory=dict)
    default: list[Said] = field(default_factory=lambda: said("4", ""))
    models: Any = field(
        default_factory=lambda: [
            {"id": "toy", "root": "org/toy", "max_model_len": 256, "owned_by": "vllm"}
        ]
    )
    faults: list[Fault] = field(default_factory=list)  # one for each request, in order
    always: Fault | None = None  # for every request without a fault of its own
    chats: bool = True  # whether there is a chat template
    logprobs: bool = True
    together: int = 1  # tokens in one event
    calls: list[dict[str, Any]] = field(default_factory=list)  # parts of tool calls
    asked: list[tuple[str, dict[str, str], dict[str, Any]]] = field(default_factory=list)
    hanging: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    left: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    release: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)
    now: int = 0  # answers being given
    most: int = 0
    url: str = ""
    connections: list[socket.socket] = field(default_factory=list)

    def fault(self) -> Fault:
        with self.lock:
            return self.faults.pop(0) if self.faults else self.always or Fault()

    def bodies(self) -> list[dict[str, Any]]:
        """What was posted, without the request that finds out how to ask."""
        return [body for path, _, body in self.asked if body and body["max_tokens"] > 1]


@contextmanager
def serving(server: Server | None = None) -> Iterator[Server]:
    """The server at work; no thread of it is left behind."""
    server = server or Server()
    http = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"server_": server}))
    http.daemon_threads = False  # so that server_close waits for every request
    server.url = f"http://127.0.0.1:{http.server_port}/v1"
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.release.set()
        http.shutdown()
        for connection in server.connections:  # one that is kept alive waits for a next request
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        http.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    server_: Server
    protocol_version = "HTTP/1.1"

    def setup(self) -> None:
        super().setup()
        self.server_.connections.append(self.connection)

    def log_message(self, *_: Any) -> None:
        """Nothing is printed."""

    def do_GET(self) -> None:
        self.server_.asked.append((self.path, dict(self.headers), {}))
        fault = self.server_.fault()
        if fault.status:
            self._refuse(fault)
        elif self.server_.models is None:
            self._refuse(Fault(404, "not here"))
        else:
            self._plain(200, {"object": "list", "data": self.server_.models})

    def do_POST(self) -> None:
        server = self.server_
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        server.asked.append((self.path, dict(self.headers), body))
        chat = self.path.endswith("/chat/completions")
        fault = server.fault()
        with server.lock:
            server.now += 1
            server.most = max(server.most, server.now)
        try:
            if fault.meet is not None:
                fault.meet.wait(LIMIT_S)
            if fault.status:
                self._refuse(fault)
            elif chat and not server.chats:
                self._refuse(Fault(400, "there is no chat template"))
            else:
                self._stream(body, chat, fault)
        except OSError:  # the client has gone
            server.left.release()
            self.close_connection = True
        finally:
            with server.lock:
                server.now -= 1

    def _refuse(self, fault: Fault) -> None:
        more = {"retry-after": fault.retry_after} if fault.retry_after else {}
        self._plain(fault.status, {"error": {"message": fault.words, "code": fault.status}}, more)

    def _plain(self, status: int | None, value: Any, headers: dict[str, str] | None = None) -> None:
        data = json.dumps(value).encode()
        self.send_response(status or 200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        for name, text in (headers or {}).items():
            self.send_header(name, text)
        self.end_headers()
        self.wfile.write(data)

    def _stream(self, body: dict[str, Any], chat: bool, fault: Fault) -> None:
        server = self.server_
        asked = body["messages"][-1]["content"] if chat else body["prompt"]
        tokens = server.answers.get(asked, server.default)
        limit = body["max_tokens"]
        told, finish = tokens[:limit], "length" if len(tokens) > limit else "stop"
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        for part in server.calls:
            self._event({"choices": [{"delta": {"tool_calls": [part]}}]})
        for at in range(0, len(told), server.together):
            if fault.then and at >= fault.tokens:
                return self._break(fault)
            some = told[at : at + server.together]
            last = at + server.together >= len(told)
            self._event(_event(some, finish if last else None, chat, server, body))
        if fault.then:
            return self._break(fault)
        usage = {"prompt_tokens": len(asked.split()), "completion_tokens": len(told)}
        self._event({"choices": [], "usage": usage})
        self._send(b"data: [DONE]\n\n")
        self._send(b"")

    def _break(self, fault: Fault) -> None:
        if fault.then == "hang":
            self.server_.hanging.release()
            while not self.server_.release.wait(0.005):
                self._send(b": still here\n\n")  # fails once the client has closed
        elif fault.then == "silent":
            self.server_.hanging.release()
            self.server_.release.wait(LIMIT_S)
        elif fault.then == "end":
            self._send(b"")
        elif fault.then == "garbage":
            self._send(b"data: {no json\n\n")
            self._send(b"")
        elif fault.then == "shape":
            self._event({"choices": [{"text": 4, "logprobs": [1]}]})
            self._send(b"")
        elif fault.then == "error":
            self._event({"error": {"message": fault.words, "code": 500}})
            self._send(b"")
        self.close_connection = True

    def _event(self, value: Any) -> None:
        self._send(f"data: {json.dumps(value)}\n\n".encode())

    def _send(self, data: bytes) -> None:
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        self.wfile.flush()


def _event(
    tokens: Sequence[Said], finish: str | None, chat: bool, server: Server, body: dict[str, Any]
) -> dict[str, Any]:
    """Some tokens in the shape of either stream, as vLLM sends them; "" is the end token."""
    text = "".join(t for t, _, _ in tokens)
    names = [(t or "<end>", p, top[: int(_wanted(body) or 0)]) for t, p, top in tokens]
    scored: Any = None
    if server.logprobs and _wanted(body) is not None:
        scored = _listed(names) if chat else _columns(names)
    choice = {"index": 0, "finish_reason": finish, "logprobs": scored}
    choice |= {"delta": {"content": text}} if chat else {"text": text}
    return {"choices": [choice]}


def _wanted(body: dict[str, Any]) -> Any:
    return body.get("top_logprobs") if "messages" in body else body.get("logprobs")


def _listed(names: Sequence[Said]) -> dict[str, Any]:
    return {
        "content": [
            {
                "token": name,
                "logprob": p,
                "top_logprobs": [{"token": n, "logprob": q} for n, q in top],
            }
            for name, p, top in names
        ]
    }


def _columns(names: Sequence[Said]) -> dict[str, Any]:
    return {
        "tokens": [name for name, _, _ in names],
        "token_logprobs": [p for _, p, _ in names],
        "top_logprobs": [dict(top) for _, _, top in names],
    }


class Clock:
    """Stands in for sleeping: it keeps how long was to be waited, and lets others run."""

    def __init__(self) -> None:
        self.waits: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)

    def patience(self, retries: int = 5) -> Patience:
        """Patience on this clock, without the die."""
        return Patience(retries, self.sleep, lambda: 0.0)


def listening(engine: Any, request: Any, steps: bool = False) -> tuple[Any, Any]:
    """The ticket of a request, and the queue of what its listener hears."""
    events: queue.SimpleQueue[Any] = queue.SimpleQueue()
    return engine.submit(request, events.put, steps), events


def remote_threads() -> list[threading.Thread]:
    return [t for t in threading.enumerate() if t.name == "bitcal-remote"]
