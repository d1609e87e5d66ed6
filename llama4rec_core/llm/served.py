"""An LLM behind an address: both verbs (`score_row`, `generate`), answered by a server that speaks OpenAI's protocol.

The tokenizer is local (the preset's `llm`), the weights are the server's. Likelihoods need log-probabilities of the
prompt itself (`echo` of the completions endpoint; vLLM gives them). Where a server has none, as most chat addresses and
llama.cpp's, a choice is read from the likeliest next tokens, and the LLM can rank by letters or by writing lists.

The key comes from the environment (LLAMA4REC_API_KEY) and is never written anywhere. What was spent is written into a
file of the run before each request, so that a budget holds over kills and restarts.
"""

import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import requests

from llama4rec_core.files import explained
from llama4rec_core.llm.tree import Branch, Prompt
from llama4rec_core.presets import PriceSettings, ServedSettings

KEY = "LLAMA4REC_API_KEY"
AGAIN = {408, 409, 425, 429, 500, 502, 503, 504}  # answers after which the same request may be sent again
LONGEST_WAIT = 60.0  # seconds between two tries


class BudgetSpent(RuntimeError):
    """The next request would cost more than is left of `served.budget`."""


class NoAnswer(RuntimeError):
    """The server did not answer, refused, or answered what cannot be used."""


@dataclass(frozen=True)
class Served:
    """A server's settings, its prices, and where spent dollars are kept."""

    settings: ServedSettings
    prices: PriceSettings
    ledger: Path

    @property
    def host(self) -> str:
        return urlsplit(self.settings.url).netloc.rpartition("@")[2]

    @property
    def echo(self) -> bool:
        """Whether it gives log-probabilities of the prompt."""
        return self.settings.echo and self.settings.api == "completions"


def score_row(llm, prompts: Sequence[Prompt]) -> list[list[np.ndarray]]:
    """As `llm.score.score_row`, by the server: for each prompt and branch `[log p(answer)]`, or the log-probabilities
    of `choices` among themselves.

    A server without `echo` cannot say how likely an answer is. It is then let write: 0 for the answers that it begins
    with, -1 for the others. That decides a pair (P1), but ranks no list.
    """
    asked = [((*prompt.prefix, *branch.tokens), branch) for prompt in prompts for branch in prompt.branches]
    if llm.served.echo:
        found = _likelihoods(llm, asked)
    else:
        chosen = [(tokens, branch) for tokens, branch in asked if branch.choices]
        _charge(llm.served, sum(len(tokens) for tokens, _ in chosen), len(chosen))
        choices = iter(_together(llm.served, lambda each: _among_next(llm, *each), chosen))
        written = iter(_written(llm, [(tokens, branch) for tokens, branch in asked if not branch.choices]))
        found = [next(choices if branch.choices else written) for _, branch in asked]
    found = iter(found)
    return [[next(found) for _ in prompt.branches] for prompt in prompts]


def generate(llm, prefix: Sequence[int], tails: Sequence[Sequence[int]], max_tokens: int, lines: int = 1) -> list[str]:
    """As `llm.generate.generate`, by the server: `lines` lines, or `max_tokens` tokens, after each `prefix + tail`."""
    served = llm.served
    _charge(served, sum(len(prefix) + len(tail) for tail in tails), max_tokens * len(tails))

    def write(tail: Sequence[int]) -> str:
        choice = _complete(llm, (*prefix, *tail), max_tokens=max_tokens)
        text = choice["message"]["content"] if served.settings.api == "chat" else choice["text"]
        return "\n".join(text.lstrip("\n").split("\n")[:lines])

    return _together(served, write, tails)


def _likelihoods(llm, asked: Sequence[tuple[tuple[int, ...], Branch]]) -> list[np.ndarray]:
    """Of each branch, read after its prefix as `tokens`: the likelihood of its answer, or of each of its choices."""
    sent = [
        [((*tokens, token), 1) for token in branch.choices.tokens] if branch.choices else [(tokens, branch.answer)]
        for tokens, branch in asked
    ]
    flat = [each for several in sent for each in several]
    _charge(llm.served, sum(len(tokens) for tokens, _ in flat), len(flat))
    values = iter(_together(llm.served, lambda each: _log_p(llm, *each), flat))
    found = [np.array([next(values) for _ in several]) for several in sent]
    return [
        each - np.logaddexp.reduce(each) if branch.choices else each
        for each, (_, branch) in zip(found, asked, strict=True)
    ]


def _written(llm, asked: Sequence[tuple[tuple[int, ...], Branch]]) -> list[np.ndarray]:
    """Of each branch [0] where the server, let write, begins with its answer, else [-1]; asked once for all branches
    that differ in the answer alone."""
    leads = [tokens[: -branch.answer] for tokens, branch in asked]
    once = list(dict.fromkeys(leads))
    longest = max((branch.answer for _, branch in asked), default=0)
    said = dict(zip(once, generate(llm, (), once, longest + 4), strict=True))
    texts = [llm.decode(tokens[-branch.answer :]).strip() for tokens, branch in asked]
    return [
        np.array([0.0 if text and said[lead].strip().startswith(text) else -1.0])
        for lead, text in zip(leads, texts, strict=True)
    ]


def _log_p(llm, tokens: tuple[int, ...], answer: int) -> float:
    """log p of the last `answer` tokens, each after those before it."""
    choice = _complete(llm, tokens, max_tokens=1, echo=True, logprobs=1)
    if "token_logprobs" not in choice["logprobs"]:
        raise TypeError("no log-probabilities of the prompt: say `echo: false`, and rank by letters or listwise")
    given = choice["logprobs"]["token_logprobs"][: len(tokens)]
    if len(given) != len(tokens) or not all(isinstance(value, (int, float)) for value in given[-answer:]):
        raise TypeError(f"log-probabilities of {len(given)} tokens came back, {len(tokens)} were asked")
    return float(sum(given[-answer:]))


def _among_next(llm, tokens: tuple[int, ...], branch: Branch) -> np.ndarray:
    """The log-probabilities of the choices among themselves, from the likeliest next tokens; a choice that is not
    among these counts as much as the least likely of them."""
    chat = llm.served.settings.api == "chat"
    how = {"logprobs": True, "top_logprobs": llm.served.settings.top} if chat else {"logprobs": llm.served.settings.top}
    given = _complete(llm, tokens, max_tokens=1, **how)["logprobs"]
    if "content" in given:
        top = {each["token"].strip(): each["logprob"] for each in reversed(given["content"][0]["top_logprobs"])}
    else:
        top = {token.strip(): value for token, value in reversed(given["top_logprobs"][0].items())}
    least = min(top.values())
    values = np.array([top.get(llm.decode((token,)).strip(), least) for token in branch.choices.tokens], dtype=float)
    return values - np.logaddexp.reduce(values)


def _complete(llm, tokens: Sequence[int], **how) -> dict:
    """The first choice of a completion of `tokens`. Raises NoAnswer where what came is not of that form."""
    settings = llm.served.settings
    what = {"model": settings.model, "temperature": 0, **how}
    if settings.api == "chat":
        what["messages"] = [{"role": "user", "content": llm.decode(tokens)}]
    else:
        what["prompt"] = list(tokens)
    return _post(llm.served, "/chat/completions" if settings.api == "chat" else "/completions", what)["choices"][0]


def _together(served: Served, work: Callable, each: Sequence) -> list:
    """`work` on each, so many at a time as the preset says. Raises NoAnswer where an answer cannot be read."""

    def checked(one):
        try:
            return work(one)
        except (KeyError, IndexError, TypeError, AttributeError) as error:
            said = f"{type(error).__name__}: {error}"
            raise NoAnswer(f"{served.host} gave an answer without what was asked for ({said})") from error

    with ThreadPoolExecutor(served.settings.concurrency) as pool:
        return list(pool.map(checked, each))


def _post(served: Served, path: str, body: dict) -> dict:
    """The server's JSON answer. Sent again, after longer and longer waits, while the server is busy, silent or breaks
    off. Raises NoAnswer when `retries` are used up, or at once where the server refuses."""
    settings, key = served.settings, os.environ.get(KEY)
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    for attempt in range(settings.retries + 1):
        wait = min(LONGEST_WAIT, settings.wait * 2**attempt)
        try:
            status, after, text = _once(settings.url.rstrip("/") + path, body, headers, settings.timeout)
            if status == 200:
                found = requests.compat.json.loads(text)
                if isinstance(found, dict):
                    return found
            said = f"answered {status}: {text[:300]}"
            if status != 200 and status not in AGAIN:
                raise NoAnswer(f"{served.host} {said}")
            wait = float(after) if after and after.isdigit() else wait
        except (requests.RequestException, ValueError, TimeoutError) as error:
            said = f"gave no whole answer ({type(error).__name__})"
        if attempt < settings.retries:
            time.sleep(min(wait, LONGEST_WAIT))
    raise NoAnswer(f"{served.host} {said}, in {settings.retries + 1} tries; what was answered before is kept")


def _once(url: str, body: dict, headers: dict, timeout: float) -> tuple[int, str | None, str]:
    """Status, Retry-After and text of one request. Raises TimeoutError where the whole answer takes too long."""
    began = time.monotonic()
    with requests.post(url, json=body, headers=headers, timeout=timeout, stream=True) as answer:
        parts = []
        for part in answer.iter_content(1 << 16):
            parts.append(part)
            if time.monotonic() - began > timeout:
                raise TimeoutError
    return answer.status_code, answer.headers.get("Retry-After"), b"".join(parts).decode("utf-8", "replace")


def _charge(served: Served, read: int, written: int) -> None:
    """Write down what the next requests cost at most, each sent once: a server that bills an answer which did not
    arrive bills more. Raises BudgetSpent where that is more than is left."""
    dollars = (read * served.prices.read + written * served.prices.written) / 1e6
    with explained(served.ledger):
        served.ledger.parent.mkdir(parents=True, exist_ok=True)
        with open(served.ledger, "a+", encoding="utf-8") as file:
            file.seek(0)
            spent = sum(map(float, file))
            if served.settings.budget is not None and spent + dollars > served.settings.budget:
                raise BudgetSpent(
                    f"served.budget is {served.settings.budget:g} dollars: {spent:.4f} are spent and the next requests "
                    f"cost up to {dollars:.4f}. What was answered is kept: raise the budget and "
                    "give the same command again"
                )
            file.write(f"{dollars:.8f}\n")
            file.flush()
            os.fsync(file.fileno())
