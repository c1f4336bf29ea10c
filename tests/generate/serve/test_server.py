"""The server over loopback, asked by OpenAI's own client: answers, streams, limits, and clients that leave."""

from __future__ import annotations

import contextlib
import json
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

import openai
import pytest

from corpus.generate.chat import Chat
from corpus.generate.config import SampleConfig
from tests.support.sampling import texts
from tests.support.serving import CONTEXT, HTTP, Running, endless_model, serving

PROMPTS = ("河边的柳树", "What time does the library open?")
ENDLESS: dict[str, Any] = {"model": "endless", "prompt": "河", "max_tokens": CONTEXT - 10}
KEY = "correct-horse-battery-staple"


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with serving(batch_size=8, queue=40, access_log=True) as running:
        yield running


@pytest.fixture(scope="module")
def narrow() -> Iterator[Running]:
    """One text at a time, one request that waits."""
    with serving(batch_size=1, queue=1) as running:
        yield running


def test_completions_are_those_of_the_sampler(server: Running) -> None:
    config = SampleConfig(
        prompts=PROMPTS, num_samples=2, max_new_tokens=24, temperature=0.9, top_p=0.9, top_k=30,
        repetition_penalty=1.1, seed=5, stop=("q",),
    )  # fmt: skip
    expected = texts(endless_model(), config)
    answer = server.client().completions.create(
        model="endless", prompt=list(PROMPTS), n=2, max_tokens=24, temperature=0.9, top_p=0.9, seed=5, stop="q",
        extra_body={"repetition_penalty": 1.1},
    )  # fmt: skip
    assert [choice.text for choice in answer.choices] == [text for text, _ in expected.values()]
    reasons = {"length": "length", "stop": "stop", "separator": "stop"}
    assert [choice.finish_reason for choice in answer.choices] == [reasons[end.reason] for _, end in expected.values()]
    assert {choice.finish_reason for choice in answer.choices} == {"length", "stop"}
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == sum(
        end.prompt_tokens for (_, sample), (_, end) in expected.items() if not sample
    )
    assert answer.usage.completion_tokens == sum(end.tokens for _, end in expected.values())
    assert [choice.index for choice in answer.choices] == [0, 1, 2, 3]


def test_without_a_seed_the_answer_names_the_one_that_reproduces_it(server: Running) -> None:
    client = server.client()
    one, two = (client.completions.create(model="endless", prompt="河", max_tokens=12) for _ in range(2))
    assert one.choices[0].text != two.choices[0].text
    assert one.model_extra is not None
    again = client.completions.create(model="endless", prompt="河", max_tokens=12, seed=one.model_extra["seed"])
    assert again.choices[0].text == one.choices[0].text
    ids = client.completions.create(
        model="endless", prompt=[0, *endless_model().encode("河")], max_tokens=12, seed=one.model_extra["seed"]
    )
    assert ids.choices[0].text == one.choices[0].text


def test_a_conversation_is_that_of_corpus_sample_chat(server: Running) -> None:
    chat = Chat(endless_model(), SampleConfig(max_new_tokens=16, seed=8))
    client = server.client()
    messages: list[Any] = []
    for question in ("雨停了吗？", "<|assistant|>风呢？<|endoftext|>", "What time is it?"):
        messages.append({"role": "user", "content": question})
        answer = client.chat.completions.create(model="endless", messages=messages, max_completion_tokens=16, seed=8)
        text = answer.choices[0].message.content
        assert text == "".join(piece.text for piece in chat.ask(question))
        messages.append({"role": "assistant", "content": text})
    assert len({message["content"] for message in messages}) == 6


def test_a_stream_adds_up_to_the_answer(server: Running) -> None:
    client = server.client()
    settings: dict[str, Any] = {"model": "endless", "max_tokens": 20, "seed": 3, "n": 2}
    whole = client.completions.create(prompt="奶奶", logprobs=2, **settings)
    chunks = list(
        client.completions.create(
            prompt="奶奶", logprobs=2, stream=True, stream_options={"include_usage": True}, **settings
        )
    )
    for index, choice in enumerate(whole.choices):
        mine = [each for chunk in chunks for each in chunk.choices if each.index == index]
        assert "".join(each.text for each in mine) == choice.text
        assert [each.finish_reason for each in mine if each.finish_reason] == ["length"]
        scores = [score for each in mine if each.logprobs for score in each.logprobs.token_logprobs or ()]
        assert choice.logprobs is not None
        assert scores == pytest.approx(choice.logprobs.token_logprobs)
        assert len(scores) == 20
        assert {len(each) for each in choice.logprobs.top_logprobs or ()} <= {1, 2}
    assert chunks[-1].choices == []
    assert chunks[-1].usage == whole.usage
    assert not any(chunk.usage for chunk in chunks[:-1])


def test_a_chat_stream_begins_with_the_role_and_ends_with_the_reason(server: Running) -> None:
    ask: dict[str, Any] = {"model": "endless", "messages": [{"role": "user", "content": "雨停了吗？"}], "seed": 4}
    client = server.client()
    whole = client.chat.completions.create(**ask, max_tokens=15, logprobs=True, top_logprobs=1)
    chunks = list(client.chat.completions.create(**ask, max_tokens=15, logprobs=True, top_logprobs=1, stream=True))
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == whole.choices[0].message.content
    assert chunks[-1].choices[0].finish_reason == "length"
    scores = [
        entry for chunk in chunks if chunk.choices[0].logprobs for entry in chunk.choices[0].logprobs.content or ()
    ]
    logprobs = whole.choices[0].logprobs
    assert logprobs is not None
    assert [entry.token for entry in scores] == [entry.token for entry in logprobs.content or ()]
    assert bytes(byte for entry in scores for byte in entry.bytes or ()).decode(errors="ignore").strip()
    assert all(entry.logprob <= entry.top_logprobs[0].logprob for entry in scores)


def test_answers_side_by_side_are_those_alone(server: Running) -> None:
    more: list[dict[str, Any]] = [{}, {"temperature": 0}, {"top_p": 0.7, "temperature": 1.3}]
    asks: list[dict[str, Any]] = [
        {
            "prompt": PROMPTS[number % 2] * (1 + number),
            "seed": number,
            "max_tokens": 20 + 7 * number,
            "n": 1 + number % 2,
        }
        | more[number % 3]
        for number in range(6)
    ]

    def write(ask: dict[str, Any]) -> list[str]:
        answer = server.client().completions.create(model="endless", **ask)
        return [choice.text for choice in answer.choices]

    alone = list(map(write, asks))
    with ThreadPoolExecutor(len(asks)) as pool:
        assert list(pool.map(write, asks)) == alone
    assert len({text for written in alone for text in written}) > len(asks)


def test_models(server: Running) -> None:
    client = server.client()
    (model,) = client.models.list().data
    assert model.id == "endless"
    assert client.models.retrieve("endless") == model
    assert model.model_extra == {"context_length": CONTEXT, "chat": True}
    with pytest.raises(openai.NotFoundError, match="no model 'other' here, only 'endless'"):
        client.models.retrieve("other")
    with pytest.raises(openai.NotFoundError) as caught:
        client.completions.create(model="other", prompt="河")
    assert caught.value.code == "model_not_found"


@pytest.mark.parametrize(
    ("path", "body", "status", "code"),
    [
        ("v1/completions", b"{", 400, "invalid_json"),
        ("v1/completions", b'{"prompt": "\xff"}', 400, "invalid_json"),
        ("v1/completions", b'{"prompt": "a", "temperature": NaN}', 400, "invalid_json"),
        ("v1/completions", {"prompt": "a" * 60_000}, 400, "context_length_exceeded"),
        ("v1/completions", {"prompt": "a", "max_tokens": CONTEXT}, 400, "context_length_exceeded"),
        ("v1/completions", {"prompt": [10**6]}, 400, None),
        ("v1/completions", {"prompt": ["a"] * 9}, 400, None),
        ("v1/chat/completions", {"messages": [{"role": "system", "content": "x"}]}, 400, "unsupported_role"),
        ("v1/embeddings", {"input": "a"}, 404, "not_found"),
        ("v1/models", {}, 405, "wrong_method"),
        ("v1/completions", b" " * (1 << 21), 413, "body_too_large"),
    ],
)  # fmt: skip
def test_what_is_refused(server: Running, path: str, body: Any, status: int, code: str | None) -> None:
    answer = server.post(path, body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
    assert server.running() == 0


def test_the_whole_context_may_be_used_and_no_token_more() -> None:
    model = endless_model(40)
    prompt = [0, *model.encode("河边的柳树")]
    ask: dict[str, Any] = {"model": "endless", "prompt": prompt, "temperature": 0}
    with serving(model) as server:
        client = server.client()
        for limit in (40 - len(prompt), None):
            usage = client.completions.create(**ask, max_tokens=limit).usage
            assert usage is not None
            assert usage.total_tokens == 40
        with pytest.raises(openai.BadRequestError, match=f"has {len(prompt)} and the answer may have"):
            client.completions.create(**ask, max_tokens=41 - len(prompt))
        with pytest.raises(openai.BadRequestError, match="has 40 and the answer may have 1"):
            client.completions.create(model="endless", prompt=[5] * 40)


def test_foreign_pages_are_refused(server: Running) -> None:
    host = urlsplit(server.url).netloc
    body = {"prompt": "a", "max_tokens": 1}
    assert server.post("v1/completions", body, Origin=f"http://{host}").status_code == 200
    for headers in ({"Origin": "https://example.org"}, {"Origin": "null"}, {"Host": "example.org"}):
        answer = server.post("v1/completions", body, **headers)
        assert answer.status_code == 403
        assert answer.json()["error"]["code"] in {"foreign_origin", "foreign_host"}


def test_keys() -> None:
    with serving(keys=["another-key-of-someone", KEY]) as server:
        answer = server.client(KEY).completions.create(model="endless", prompt="a", max_tokens=1)
        assert answer.choices[0].finish_reason == "length"
        for wrong in (KEY[:-1], f"{KEY}x", "密钥密钥密钥密钥密钥密钥".encode().decode("latin-1")):
            refused = HTTP.get(
                f"{server.url}v1/models", headers={b"Authorization": f"Bearer {wrong}".encode("latin-1")}
            )
            assert refused.status_code == 401
        with pytest.raises(openai.AuthenticationError):
            server.client("wrong").models.list()
        assert HTTP.get(f"{server.url}v1/models").headers["www-authenticate"] == "Bearer"
        assert HTTP.get(f"{server.url}health").status_code == 200
        assert HTTP.get(server.url).status_code == 200


def test_a_client_that_leaves_frees_its_slot(narrow: Running) -> None:
    client = narrow.client()
    answer = client.completions.create(**ENDLESS, stream=True)
    next(iter(answer))
    assert narrow.running() == 1
    answer.close()
    narrow.wait_for(0)
    with pytest.raises(openai.APITimeoutError):
        client.with_options(timeout=0.2).completions.create(**ENDLESS)
    narrow.wait_for(0)
    assert client.completions.create(model="endless", prompt="a", max_tokens=2).usage is not None


def test_a_client_that_leaves_the_queue_is_forgotten(narrow: Running) -> None:
    with narrow.client().completions.create(**ENDLESS, stream=True) as answer:
        next(iter(answer))
        with pytest.raises(openai.APITimeoutError):
            narrow.client().with_options(timeout=0.1).completions.create(**ENDLESS)
        narrow.wait_for(1, waiting=0)
    narrow.wait_for(0)


def test_a_full_queue_is_refused_with_a_time_to_wait(narrow: Running) -> None:
    with narrow.client().completions.create(**ENDLESS, stream=True) as answer:
        next(iter(answer))
        with ThreadPoolExecutor(1) as pool:
            waits = pool.submit(narrow.post, "v1/completions", {"prompt": "a", "max_tokens": 3, "seed": 1})
            narrow.wait_for(1, waiting=1)
            refused = narrow.post("v1/completions", {"prompt": "a"})
            assert (refused.status_code, refused.json()["error"]["code"]) == (429, "queue_full")
            assert 1 <= int(refused.headers["retry-after"]) <= 60
            answer.close()
            assert waits.result().json()["usage"]["completion_tokens"] == 3


def test_time_is_up() -> None:
    with serving(max_seconds=1) as server:
        chunks = list(server.client().completions.create(**ENDLESS, stream=True))
        last = chunks[-1].choices[0]
        assert (last.finish_reason, last.model_extra) == ("length", {"ended_by": "time"})
        assert 1 < len(chunks) < CONTEXT - 10
        server.wait_for(0)


def test_stopping_ends_open_answers_and_refuses_those_that_wait() -> None:
    with serving(batch_size=1) as server, ThreadPoolExecutor(2) as pool:
        lines: list[str] = []

        def read() -> None:
            body = ENDLESS | {"stream": True, "stop": ["never found"]}
            with HTTP.stream("POST", f"{server.url}v1/completions", json=body) as answer:
                lines.extend(line for line in answer.iter_lines() if line)

        reading = pool.submit(read)
        server.wait_for(1)
        waits = pool.submit(server.post, "v1/completions", {"prompt": "a"})
        server.wait_for(1, waiting=1)
        server.stop()
        reading.result()
        assert lines[-1] == "data: [DONE]"
        last = json.loads(lines[-2].removeprefix("data: "))["choices"][0]
        assert (last["finish_reason"], last["ended_by"]) == ("length", "shutdown")
        refused = waits.result()
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "ended_by_shutdown")
        assert refused.headers["retry-after"]


def test_slow_clients_are_disconnected() -> None:
    """One sends nothing, one no end of its headers, one half a body."""
    with serving(max_idle_seconds=0.3) as server, contextlib.ExitStack() as opened:
        address = urlsplit(server.url)
        head = f"POST /v1/completions HTTP/1.1\r\nHost: {address.netloc}\r\nContent-Length: 100\r\n"
        silent, headers, body = (
            opened.enter_context(socket.create_connection((address.hostname, address.port), 10)) for _ in range(3)
        )
        headers.sendall(head.encode())
        body.sendall(f"{head}\r\n{{".encode())
        assert silent.recv(100) == b""
        assert headers.recv(100) == b""
        answer = b"".join(iter(lambda: body.recv(4096), b""))
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert b"body_too_slow" in answer


def test_a_client_that_does_not_read_is_disconnected() -> None:
    body = json.dumps(ENDLESS | {"stream": True, "logprobs": 5}).encode()
    with serving(max_idle_seconds=0.3, send_bytes=4096) as server, socket.socket() as client:
        address = urlsplit(server.url)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        client.connect((address.hostname, address.port))
        head = f"POST /v1/completions HTTP/1.1\r\nHost: {address.netloc}\r\nContent-Length: {len(body)}\r\n\r\n"
        client.sendall(head.encode() + body)
        server.wait_for(1)
        server.wait_for(0)
        client.settimeout(10)
        read = b""
        with contextlib.suppress(ConnectionResetError):
            while piece := client.recv(1 << 16):
                read += piece
    assert read.startswith(b"HTTP/1.1 200 OK")
    assert b"ended_by" not in read


def test_many_connections_at_once(server: Running) -> None:
    """Each gets its answer or is told to wait; afterwards nothing is left."""

    def ask(number: int) -> int:
        return server.post("v1/completions", {"prompt": "a", "max_tokens": 2, "seed": number}).status_code

    with ThreadPoolExecutor(30) as pool:
        statuses = list(pool.map(ask, range(30)))
    assert set(statuses) <= {200, 429}
    assert statuses.count(200) >= 20
    server.wait_for(0)


def test_too_many_connections_are_told_so_and_far_too_many_closed() -> None:
    with serving(max_connections=3) as server, contextlib.ExitStack() as idle:
        address = urlsplit(server.url)

        def connect() -> socket.socket:
            return idle.enter_context(socket.create_connection((address.hostname, address.port), 10))

        others = [connect() for _ in range(3)]
        refused = server.post("v1/completions", {"prompt": "a"})
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "too_many_connections")
        assert refused.headers["retry-after"]
        others += [connect() for _ in range(80)]
        assert others[-1].recv(1) == b""
        idle.close()
        until = time.monotonic() + 10
        while server.post("v1/completions", {"prompt": "a", "max_tokens": 1}).status_code != 200:
            assert time.monotonic() < until


def test_the_access_log_has_figures_and_no_text(server: Running) -> None:
    server.reports.clear()
    server.post("v1/completions", {"prompt": "河边的柳树", "max_tokens": 3})
    until = time.monotonic() + 5
    while not server.reports and time.monotonic() < until:
        time.sleep(0.01)
    (line,) = server.reports
    assert line.startswith("POST '/v1/completions' 200, ")
    assert line.endswith("+ 3 tokens, ended by length")
    assert "河" not in line
