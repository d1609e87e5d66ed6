"""An LLM behind an address answers as the same LLM does here, and a bad server loses nothing."""

import json
import threading
import time
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import torch
from tiny import next_log_p, tiny

from llama4rec_core import presets
from llama4rec_core.llm import batches, served
from llama4rec_core.llm.generate import generate
from llama4rec_core.llm.model import LLM
from llama4rec_core.llm.score import score_row
from llama4rec_core.llm.tree import Branch, Prompt

LOCAL = tiny()
torch.set_num_threads(1)


class Server:
    """Answers as OpenAI's protocol has it, by the tiny LLM. `spoil` sees each request first, and may answer itself."""

    def __init__(self, spoil=lambda server, handler: False, echo=True):
        self.asked, self.keys, self.spoil, self.echo = [], [], spoil, echo
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                outer.asked.append((self.path, body))
                outer.keys.append(self.headers.get("Authorization"))
                if not outer.spoil(outer, self):
                    status, said = outer.answer(self.path, body)
                    send(self, status, json.dumps(said))

            def log_message(self, *_):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.http.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1"

    def answer(self, path, body):
        if body.get("echo"):
            if not self.echo:
                return 400, {"error": "echo is not supported"}
            tokens = body["prompt"]
            log_p = [None] + [next_log_p(LOCAL, tokens[:n])[tokens[n]].item() for n in range(1, len(tokens))]
            choice = {"text": LOCAL.decode(tokens) + "x", "logprobs": {"token_logprobs": [*log_p, -1.0]}}
            return 200, {"choices": [choice]}
        chat = path.endswith("/chat/completions")
        tokens = LOCAL.encode(body["messages"][0]["content"]) if chat else body["prompt"]
        text = generate(LOCAL, (), [tokens], body["max_tokens"], lines=99)[0]
        choice = {"message": {"content": text}} if chat else {"text": text}
        if body.get("logprobs"):
            values = next_log_p(LOCAL, tokens)
            best = values.argsort(descending=True)[: body["top_logprobs"] if chat else body["logprobs"]].tolist()
            top = {LOCAL.decode((token,)): values[token].item() for token in best}
            listed = [{"token": token, "logprob": value} for token, value in top.items()]
            choice["logprobs"] = {"content": [{"top_logprobs": listed}]} if chat else {"top_logprobs": [top]}
        return 200, {"choices": [choice]}


def send(handler, status, text, length=None, **headers):
    handler.send_response(status)
    for name, value in headers.items():
        handler.send_header(name.replace("_", "-"), value)
    content = text.encode()
    handler.send_header("Content-Length", str(len(content) if length is None else length))
    handler.end_headers()
    handler.wfile.write(content)


@pytest.fixture
def serve(tmp_path):
    servers = []

    def start(spoil=lambda server, handler: False, echo=True, **settings):
        server = Server(spoil, echo)
        servers.append(server)
        asked = {"url": server.url, "model": "tiny", "echo": echo, "wait": 0.01, "retries": 3, "timeout": 20} | settings
        preset = presets.build({"name": "x", "served": asked, "tuning": {"method": "none"},
                                "ranking": {"mode": "letters"}, "prices": {"read": 1.0, "written": 2.0}})  # fmt: skip
        at = served.Served(preset.served, preset.prices, tmp_path / "dollars.txt")
        return LLM("tiny", None, LOCAL.tokenizer, "served", served=at), server

    yield start
    for server in servers:
        server.http.shutdown()


def prompt(key="a", beginning="Films: heat\n", answers=("fargo\n", "evita\n", "big night\n")):
    tokens = [LOCAL.encode(answer) for answer in answers]
    branches = [Branch(each, len(each)) for each in tokens]
    choices = Branch(LOCAL.encode("which: "), choices=LOCAL.among(LOCAL.encode("ABC")))
    return Prompt(key, LOCAL.encode(beginning), (*branches, choices))


def test_likelihoods_and_choices_are_those_of_the_same_llm_here(serve):
    prompts = [prompt(), prompt("b", "Films: lone star, mother\n")]
    llm, server = serve()
    for ours, theirs in zip(score_row(llm, prompts), score_row(LOCAL, prompts), strict=True):
        for a, b in zip(ours, theirs, strict=True):
            assert a == pytest.approx(b, abs=1e-4)
    assert {path for path, _ in server.asked} == {"/v1/completions"} and len(server.asked) == 2 * (3 + 3)


@pytest.mark.parametrize("api", ["completions", "chat"])
def test_without_log_probabilities_of_the_prompt_choices_come_from_the_next_tokens(serve, api):
    llm, server = serve(echo=False, api=api, top=128)
    (*_, ours), (*_, theirs) = score_row(llm, [prompt()])[0], score_row(LOCAL, [prompt()])[0]
    assert ours == pytest.approx(theirs, abs=1e-4)
    path = {"completions": "/v1/completions", "chat": "/v1/chat/completions"}[api]
    assert {asked for asked, _ in server.asked} == {path}


def test_a_choice_that_the_server_does_not_name_counts_as_its_least_likely_token(serve):
    llm, _ = serve(echo=False, top=3)
    tokens = prompt().prefix + LOCAL.encode("which: ")
    best = next_log_p(LOCAL, tokens).topk(3)
    letters = (best.indices[0].item(), *(t for t in range(65, 70) if t not in best.indices.tolist()))[:3]
    branch = Branch(LOCAL.encode("which: "), choices=LOCAL.among(letters))
    (values,) = score_row(llm, [Prompt("a", prompt().prefix, (branch,))])[0]
    expected = np.array([best.values[0], best.values[2], best.values[2]])
    assert values == pytest.approx(expected - np.logaddexp.reduce(expected), abs=1e-4)


def test_where_answers_cannot_be_scored_the_one_that_is_written_wins(serve):
    writes = generate(LOCAL, (), [prompt().prefix], 6)[0].strip()
    assert len(writes) > 1
    llm, server = serve(echo=False)
    asked = prompt(answers=("fargo\n", writes[:2], "evita\n"))
    values = score_row(llm, [asked])[0][:3]
    assert [each.tolist() for each in values] == [[-1.0], [0.0], [-1.0]]
    assert sum("logprobs" not in body for _, body in server.asked) == 1  # asked once for all answers


@pytest.mark.parametrize("api", ["completions", "chat"])
def test_what_is_written_is_what_the_same_llm_writes(serve, api):
    llm, _ = serve(api=api)
    tails = [LOCAL.encode(text) for text in ("one:", "two and three:")]
    prefix = LOCAL.encode("Say ")
    ours, theirs = (generate(each, prefix, tails, 8, lines=2) for each in (llm, LOCAL))
    assert ours == ["\n".join(text.lstrip("\n").split("\n")[:2]) for text in theirs]


def test_the_key_of_the_environment_is_sent_and_written_nowhere(serve, monkeypatch, tmp_path):
    monkeypatch.setenv(served.KEY, "a-secret")
    llm, server = serve()
    batches.score(llm, [prompt()], tmp_path / "x.parquet", "test")
    assert set(server.keys) == {"Bearer a-secret"}
    kept = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert b"a-secret" not in kept and b"127.0.0.1" in kept  # the cost says where it was computed


def once_each(*spoils):
    """Each of these spoils one request, in turn; the others are answered."""
    left, lock = list(spoils), threading.Lock()

    def spoil(server, handler):
        with lock:
            mine = left.pop(0) if left else None
        if mine:
            mine(handler)
        return mine is not None

    return spoil


def drip(handler):
    """An answer that never ends, a byte at a time."""
    handler.send_response(200)
    handler.send_header("Content-Length", "100000")
    handler.end_headers()
    for _ in range(60):
        time.sleep(0.05)
        try:
            handler.wfile.write(b" ")
        except OSError:
            return


SPOILS = {
    "busy": lambda handler: send(handler, 429, "busy", Retry_After="0"),
    "error": lambda handler: send(handler, 500, "oops"),
    "truncated": lambda handler: (send(handler, 200, '{"choices": [', length=500), handler.connection.close()),
    "wrong JSON": lambda handler: send(handler, 200, "<html>"),
    "a list": lambda handler: send(handler, 200, "[]"),
    "reset": lambda handler: handler.connection.close(),
}


@pytest.mark.parametrize("spoil", SPOILS.values(), ids=SPOILS)
def test_a_request_is_sent_again_while_the_server_is_busy_or_breaks_off(serve, spoil):
    llm, server = serve(once_each(spoil, spoil), concurrency=1)
    found = score_row(llm, [prompt()])[0]
    assert found[0] == pytest.approx(score_row(LOCAL, [prompt()])[0][0], abs=1e-4)
    assert len(server.asked) == 6 + 2


def test_an_answer_that_drips_is_given_up_in_time(serve):
    llm, server = serve(once_each(drip), timeout=0.4, concurrency=1)
    began = time.monotonic()
    score_row(llm, [prompt()])
    assert time.monotonic() - began < 15 and len(server.asked) == 7


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (SPOILS["error"], "answered 500: oops, in 4 tries; what was answered before is kept"),
        (SPOILS["wrong JSON"], "gave no whole answer"),
        (lambda handler: send(handler, 401, "no such key"), "127.0.0.1:[0-9]+ answered 401: no such key$"),
        (lambda handler: send(handler, 200, '{"choices": []}'), "without what was asked for"),
        (lambda handler: send(handler, 200, '{"choices": [{"logprobs": null}]}'), "without what was asked for"),
        (lambda handler: send(handler, 200, '{"choices": [{"logprobs": {"content": []}}]}'), "say `echo: false`"),
        (
            lambda handler: send(handler, 200, '{"choices": [{"logprobs": {"token_logprobs": [null, -1.0]}}]}'),
            "log-probabilities of 2 tokens came back",
        ),
    ],
)
def test_a_server_that_never_answers_well_is_named_in_one_sentence(serve, spoil, said):
    llm, _ = serve(lambda server, handler: spoil(handler) or True)
    with pytest.raises(served.NoAnswer, match=said):
        score_row(llm, [prompt()])


def test_a_budget_stops_before_it_is_passed_and_what_was_answered_is_not_asked_again(serve, tmp_path):
    """A prompt costs 90 tokens read and 6 written, in dollars for a million: 102e-6."""
    prompts = [prompt(key) for key in "abcdefgh"]
    price = sum(
        len(prompts[0].prefix) + len(branch.tokens) + (branch.choices is not None)
        for branch in prompts[0].branches
        for _ in range(3 if branch.choices else 1)
    )
    price = (price + 6 * 2.0) / 1e6
    how = {"path": tmp_path / "x.parquet", "what": "test", "row_tokens": 1, "rows_per_batch": 1}
    llm, server = serve(budget=3.5 * price)
    with pytest.raises(served.BudgetSpent, match="are spent and the next requests cost up to"):
        batches.score(llm, prompts, **how)
    assert len(server.asked) == 3 * 6
    llm, server = serve(budget=8.01 * price)
    found = batches.score(llm, prompts, **how)
    assert len(server.asked) == 5 * 6 and found["key"].nunique() == 8
    expected = batches.score(LOCAL, prompts, **how | {"path": tmp_path / "local.parquet"})
    assert found["log_p"].to_numpy() == pytest.approx(expected["log_p"].to_numpy(), abs=1e-4)


SERVED = {"url": "http://localhost:1/v1", "model": "m"}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"served": SERVED, "ranking": {"mode": "letters"}}, "is not tuned: say `tuning: {method: none}`"),
        ({"served": SERVED, "tuning": {"method": "none"}}, "needs log-probabilities of the prompt"),
        ({"served": SERVED | {"echo": True, "api": "chat"}, "tuning": {"method": "none"}}, "needs log-probabilities"),
        ({"served": SERVED | {"url": "localhost"}, "tuning": {"method": "none"}}, "served.url"),
    ],
)
def test_a_preset_that_a_server_cannot_serve_is_refused_when_it_is_read(content, said):
    with pytest.raises(ValueError, match=said):
        presets.build({"name": "x", **content})


def test_where_a_server_is_does_not_matter_to_a_run_but_which_llm_does(tmp_path):
    from llama4rec_core.run import _identity

    one = presets.build({"name": "x", "served": SERVED | {"echo": True}, "tuning": {"method": "none"}})
    moved = replace(one, served=replace(one.served, url="https://other/v1", timeout=3.0, budget=1.0))
    assert _identity(one) == _identity(moved)
    assert _identity(one) != _identity(replace(one, served=replace(one.served, model="another")))
