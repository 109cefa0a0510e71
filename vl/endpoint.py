r"""Rollouts from a vLLM server: fresh weights are saved where it loads from, then it is asked.

    rl.endpoint: {"url": "http://gpu0:8000/v1", "model": "policy", "weights_dir": "/shared/policy"}

Start it on that folder, so that it can be told to load anew, and with log-probs of the distribution
that is drawn from:

    VLLM_SERVER_DEV_MODE=1 vllm serve /shared/policy --served-model-name policy \
        --logprobs-mode processed_logprobs --enable-prefix-caching

Its numerics are not the trainer's: the correlation of both sides' probabilities is logged each step
and raises an alarm; `rl.rollout_correction` weighs the difference.

Source: vLLM's OpenAI-compatible server, `return_token_ids` and the development routes
`/collective_rpc` and `/reset_prefix_cache`.
"""

from __future__ import annotations

import http.client
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from data_specs import IMAGE_MARKER, ImageRef

from .atomic import write_folder
from .policy import Policy
from .rollout import Rollout, SamplingConfig
from .stops import StopReason

_STOPS: dict[str, StopReason] = {"stop": "end", "length": "length", "repetition": "repetition"}


@dataclass(frozen=True, kw_only=True)
class EndpointConfig:
    """A server that samples for the trainer."""

    url: str
    """`http://HOST:PORT/v1`."""
    model: str
    """The name it serves the weights under."""
    weights_dir: str
    """Folder that the trainer writes before each step and the server loads from."""
    concurrency: int = 64
    """Prompts asked at a time."""
    timeout_s: float = 1800.0
    """Longest time for one request, loading included."""

    def __post_init__(self) -> None:
        if urlsplit(self.url).scheme not in ("http", "https") or self.concurrency < 1:
            raise ValueError(
                f"EndpointConfig: found url {self.url!r} and concurrency {self.concurrency!r}; "
                "use http://HOST:PORT/v1 and at least 1"
            )


class EndpointError(ConnectionError):
    """The server does not do what sampling needs."""


class Ask(NamedTuple):
    """One prompt."""

    images: Sequence[ImageRef]
    text: str
    """`<image>` marks where each stands; without a marker they come first."""


class EndpointSampler:
    """Pushes weights and draws rollouts."""

    def __init__(self, config: EndpointConfig, sampling: SamplingConfig) -> None:
        if sampling.stops.complete_answer is not None:
            raise ValueError(
                f"rl.sampling.stops.complete_answer: found {sampling.stops.complete_answer!r}; "
                "a server stops at end tokens only; leave it at null with rl.endpoint"
            )
        self._config, self._sampling = config, sampling

    def push(self, policy: Policy) -> None:
        """Saves the weights, has the server load them, and forget what it kept of the old ones.

        Raises: EndpointError if it cannot: rollouts of old weights would pass for new ones.
        """
        write_folder(Path(self._config.weights_dir), policy.save)
        root = self._config.url.rstrip("/").removesuffix("/v1")
        for route, body in (
            ("/collective_rpc", {"method": "reload_weights"}),
            ("/reset_prefix_cache", {}),
        ):
            try:
                self._post(root + route, body)
            except EndpointError as error:
                raise EndpointError(
                    f"{error}; the server cannot take new weights. Start vLLM with "
                    "VLLM_SERVER_DEV_MODE=1 on the folder rl.endpoint.weights_dir, or set "
                    "rl.endpoint to null to sample in the trainer"
                ) from error

    def sample(
        self, policy: Policy, asks: Sequence[Ask], forbidden: Sequence[int], seed: int
    ) -> list[list[Rollout]]:
        """`num_rollouts` answers to each prompt, in order.

        Args:
            forbidden: token ids that must not be drawn.
            seed: of the first prompt; each prompt has its own.

        Raises: EndpointError if a prompt gets no whole answer.
        """
        bias = {str(token): -100.0 for token in forbidden}

        def ask(number: int) -> list[Rollout]:
            body = {
                "model": self._config.model,
                "messages": [{"role": "user", "content": _parts(asks[number])}],
                "n": self._sampling.num_rollouts,
                "temperature": self._sampling.temperature,
                "top_p": 1.0,
                "top_k": -1,
                "max_tokens": self._sampling.max_new_tokens,
                "logprobs": True,
                "return_token_ids": True,
                "seed": seed + number,
                "logit_bias": bias,
            }
            reply = self._post(f"{self._config.url.rstrip('/')}/chat/completions", body)
            return self._rollouts(policy, reply)

        with ThreadPoolExecutor(self._config.concurrency) as threads:
            return list(threads.map(ask, range(len(asks))))

    def _rollouts(self, policy: Policy, reply: Any) -> list[Rollout]:
        choices: list[Any] = reply.get("choices", []) if isinstance(reply, dict) else []
        if len(choices) != self._sampling.num_rollouts:
            raise EndpointError(
                f"{self._config.url}: found {len(choices)} answers to a prompt, asked for "
                f"{self._sampling.num_rollouts}"
            )
        rollouts: list[Rollout] = []
        for choice in choices:
            ids = choice.get("token_ids")
            told = (choice.get("logprobs") or {}).get("content") or []
            if not ids or len(ids) != len(told):
                raise EndpointError(
                    f"{self._config.url}: found {len(ids or [])} token_ids and {len(told)} "
                    "logprobs in an answer; both are needed for every token. Use a vLLM that "
                    "knows return_token_ids (0.10.2 or later)"
                )
            reason = choice.get("finish_reason")
            if reason not in _STOPS:
                raise EndpointError(
                    f"{self._config.url}: found finish_reason {reason!r}; allowed: "
                    f"{', '.join(_STOPS)}"
                )
            rollouts.append(
                Rollout(
                    token_ids=tuple(ids),
                    logprobs=tuple(float(one["logprob"]) for one in told),
                    text=policy.decode([ids])[0],
                    stop=_STOPS[reason],
                )
            )
        return rollouts

    def _post(self, url: str, body: object) -> Any:
        headers = {"Content-Type": "application/json"}
        request = Request(url, json.dumps(body).encode(), headers)
        try:
            with urlopen(request, timeout=self._config.timeout_s) as response:
                content = response.read()
        except HTTPError as error:
            with error:
                said = error.read(500).decode("utf-8", "replace").strip()
            raise EndpointError(f"{url}: HTTP {error.code} {said[:300]!r}") from error
        except (URLError, OSError, http.client.HTTPException) as error:
            raise EndpointError(f"{url}: {error or type(error).__name__}") from error
        if not content:
            return None
        try:
            return json.loads(content)
        except ValueError as error:
            raise EndpointError(
                f"{url}: found the reply {content[:200]!r}; needed: JSON"
            ) from error


def _parts(ask: Ask) -> list[dict[str, Any]]:
    """The user's turn with pictures as data URLs where their markers stand."""
    text = ask.text if IMAGE_MARKER in ask.text else IMAGE_MARKER * len(ask.images) + ask.text
    pieces = text.split(IMAGE_MARKER)
    if len(pieces) - 1 != len(ask.images):
        raise ValueError(
            f"the text {ask.text[:80]!r} has {len(pieces) - 1} {IMAGE_MARKER} markers for "
            f"{len(ask.images)} pictures; write one for each, or none"
        )
    parts: list[dict[str, Any]] = []
    for position, piece in enumerate(pieces):
        if position:
            url = ask.images[position - 1].data_url()
            parts.append({"type": "image_url", "image_url": {"url": url}})
        if piece:
            parts.append({"type": "text", "text": piece})
    return parts
