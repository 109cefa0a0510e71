"""A model behind an OpenAI-compatible address, as a policy that curation asks."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from data_specs import IMAGE_MARKER, Sample
from tasks.curate_difficulty import Ask
from tasks.prompts import POOL, answer_form

_ROW_REFUSED = frozenset({400, 413, 415, 422})
_TRY_AGAIN = frozenset({408, 409, 425, 429})  # and every 5xx
_REFUSED_MAX = 8  # so many rows refused and none answered: it is not the rows
_WAIT_MAX_S = 30.0


class EndpointError(ConnectionError):
    """The endpoint does not answer, or not as it should."""


class RowRefused(Exception):
    """The endpoint will not answer this row."""


@dataclass(frozen=True, kw_only=True)
class EndpointPolicy:
    """Asks `<url>/chat/completions`, several rows at a time, at temperature 1."""

    url: str
    """`http://host:8000/v1`."""
    model: str
    concurrency: int = 8
    """Rows asked at a time."""
    retries: int = 5
    """Further tries after a failed one, each after twice the wait."""
    max_tokens: int = 2048
    """Most tokens of an answer."""
    timeout_s: float = 600.0
    """Longest time for one request."""
    wait_s: float = 1.0
    """Before the first retry."""
    api_key: str | None = field(default=None, repr=False)
    is_live: bool = True

    def __post_init__(self) -> None:
        if not self.url.startswith(("http://", "https://")):
            raise ValueError(f"--endpoint {self.url!r}; allowed: http://HOST:PORT/v1, or https://")
        if self.concurrency < 1 or self.retries < 0 or self.max_tokens < 1:
            raise ValueError(
                f"--concurrency {self.concurrency}, --retries {self.retries}, --max-tokens "
                f"{self.max_tokens}; allowed: at least 1, 0 and 1"
            )

    @property
    def name(self) -> str:
        """Model, address and length of answers."""
        return f"{self.model} at {self.url}, up to {self.max_tokens} tokens"

    def answers(self, asks: Iterable[Ask]) -> Iterator[tuple[Sample, list[str]]]:
        """The rows with their answers as they come; none for a row that the endpoint refuses.

        Raises: EndpointError once an answer fails for good; answers on their way come before it.
        """
        num_answered = 0
        refused: list[str] = []
        failure: EndpointError | None = None
        rows = iter(asks)
        running: dict[Future[list[str]], Sample] = {}
        threads = ThreadPoolExecutor(self.concurrency)
        try:
            while True:
                while failure is None and len(running) < 2 * self.concurrency:
                    ask = next(rows, None)
                    if ask is None:
                        break
                    running[threads.submit(self._ask, ask)] = ask.sample
                if not running:
                    break
                done, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    sample = running.pop(future)
                    try:
                        texts = future.result()
                    except RowRefused as error:
                        refused.append(f"{sample.where} (id {sample.id}): {error}")
                        if num_answered == 0 and len(refused) >= _REFUSED_MAX:
                            failure = failure or self._failure(f"refuses every row: {refused[0]}")
                        else:
                            yield sample, []
                        continue
                    except EndpointError as error:
                        failure = failure or error
                        for waiting in [item for item in running if item.cancel()]:
                            del running[waiting]
                        continue
                    num_answered += 1
                    yield sample, texts
        finally:
            threads.shutdown(wait=False, cancel_futures=True)
        if failure is not None:
            raise failure

    def _ask(self, ask: Ask) -> list[str]:
        """So many answers; an endpoint that gives one a request is asked again."""
        messages = chat_messages(ask.sample)
        texts: list[str] = []
        for _ in range(ask.num_answers):
            texts += self.complete(messages, num_answers=ask.num_answers - len(texts))
            if len(texts) >= ask.num_answers:
                break
        return texts[: ask.num_answers]

    def complete(
        self, messages: list[dict[str, Any]], *, num_answers: int = 1, temperature: float = 1.0
    ) -> list[str]:
        """Texts that continue the messages: as many as asked for, or fewer.

        Raises: RowRefused if the endpoint will not answer these, EndpointError if it fails.
        """
        body = {
            "model": self.model,
            "messages": messages,
            "n": num_answers,
            "temperature": temperature,
            "top_p": 1.0,
            "max_tokens": self.max_tokens,
        }
        return self._answers_in(self._post(json.dumps(body).encode()))

    def _post(self, body: bytes) -> bytes:
        wait_s, problem = self.wait_s, ""
        for attempt in range(self.retries + 1):
            if attempt:
                time.sleep(min(wait_s, _WAIT_MAX_S))
                wait_s *= 2
            headers = {"Content-Type": "application/json"}
            if self.api_key:
                headers["Authorization"] = f"Bearer {self.api_key}"
            request = Request(f"{self.url.rstrip('/')}/chat/completions", body, headers)
            try:
                with urlopen(request, timeout=self.timeout_s) as response:
                    return response.read()
            except HTTPError as error:
                with error:
                    said = error.read(2000).decode("utf-8", "replace").strip()[:300]
                problem = f"HTTP {error.code} {said!r}"
                if error.code in _ROW_REFUSED:
                    raise RowRefused(problem) from error
                if error.code < 500 and error.code not in _TRY_AGAIN:
                    raise self._failure(
                        f"{problem}; check --model, --endpoint and --api-key-file"
                    ) from error
                given = error.headers.get("Retry-After", "")
                wait_s = max(wait_s, float(given)) if given.isdecimal() else wait_s
            except (URLError, OSError, http.client.HTTPException) as error:
                problem = str(error) or type(error).__name__
        raise self._failure(f"no answer in {self.retries + 1} tries: {problem}")

    def _answers_in(self, content: bytes) -> list[str]:
        """The texts of a reply; an empty one where a model used up its tokens without any."""
        try:
            reply: Any = json.loads(content)
            choices = reply["choices"]
            texts = [choice["message"]["content"] or "" for choice in choices]
            if not texts or not all(isinstance(text, str) for text in texts):
                raise TypeError("no choices")
        except (ValueError, KeyError, TypeError) as error:
            raise self._failure(f"found the reply {content[:200]!r}; needed: choices") from error
        return texts

    def _failure(self, problem: str) -> EndpointError:
        return EndpointError(
            f"--endpoint {self.url}: {problem}. Rows answered so far are kept: repair it and give "
            "the same command again"
        )


def chat_messages(sample: Sample) -> list[dict[str, Any]]:
    r"""The row's messages with images as data URLs where their markers stand.

    The question of a row answered in \boxed{} says so, unless it does already.
    """
    last = max((i for i, item in enumerate(sample.messages) if item.role == "user"), default=-1)
    images = iter(sample.images)
    messages: list[dict[str, Any]] = []
    for index, message in enumerate(sample.messages):
        text = message.content
        if index == last and answer_form(sample) == "boxed" and "\\boxed" not in text:
            text = f"{text.rstrip()} {POOL[0]}"
        if IMAGE_MARKER not in text:
            messages.append({"role": message.role, "content": text})
            continue
        parts: list[dict[str, Any]] = []
        for position, piece in enumerate(text.split(IMAGE_MARKER)):
            image = next(images, None) if position else None
            if image is not None:
                parts.append({"type": "image_url", "image_url": {"url": image.data_url()}})
            if piece.strip():
                parts.append({"type": "text", "text": piece.strip()})
        messages.append({"role": message.role, "content": parts})
    return messages
