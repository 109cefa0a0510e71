"""Who answers MEGA-Bench's queries: an OpenAI-compatible endpoint, or a saved model."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from data_specs import IMAGE_MARKER
from data_specs.megabench import MegaQuery, MegaTask
from tasks.megabench import Budget, Part, encode

from .curate_endpoint import EndpointError, EndpointPolicy, RowRefused

if TYPE_CHECKING:
    from vl.policy import Policy


class Asked(NamedTuple):
    """One query with its user turn."""

    task: MegaTask
    query: MegaQuery
    parts: Sequence[Part]


class Answered(NamedTuple):
    """A response, or why there is none."""

    asked: Asked
    response: str | None
    refusal: str = ""
    """What the endpoint said."""


class Asker(Protocol):
    """A policy that answers greedily."""

    @property
    def name(self) -> str:
        """What it is, for the record of the run."""
        ...

    def answers(self, asks: Iterable[Asked]) -> Iterator[Answered]:
        """Every query with its response, as they come."""
        ...


class EndpointAsker:
    """Several queries at a time to `<url>/chat/completions`, at temperature 0."""

    def __init__(self, endpoint: EndpointPolicy, budget: Budget) -> None:
        self.name = f"{endpoint.model}, up to {endpoint.max_tokens} tokens"
        self._endpoint, self._budget = endpoint, budget

    def answers(self, asks: Iterable[Asked]) -> Iterator[Answered]:
        """See Asker.

        Raises: EndpointError once a request fails for good; answers on their way come before it.
        """
        rest = iter(asks)
        running: dict[Future[Answered], None] = {}
        failure: EndpointError | None = None
        threads = ThreadPoolExecutor(self._endpoint.concurrency)
        try:
            while True:
                while failure is None and len(running) < 2 * self._endpoint.concurrency:
                    asked = next(rest, None)
                    if asked is None:
                        break
                    running[threads.submit(self._ask, asked)] = None
                if not running:
                    break
                done, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    del running[future]
                    try:
                        yield future.result()
                    except EndpointError as error:
                        failure = failure or error
                        running = {item: None for item in running if not item.cancel()}
        finally:
            threads.shutdown(wait=False, cancel_futures=True)
        if failure is not None:
            raise failure

    def _ask(self, asked: Asked) -> Answered:
        messages = [{"role": "user", "content": self._content(asked.parts)}]
        try:
            texts = self._endpoint.complete(messages, temperature=0.0)
        except RowRefused as error:
            return Answered(asked, None, str(error))
        return Answered(asked, texts[0])

    def _content(self, parts: Sequence[Part]) -> list[dict[str, Any]]:
        content: list[dict[str, Any]] = []
        for part in parts:
            if isinstance(part, str):
                content.append({"type": "text", "text": part})
                continue
            image = encode(part, self._budget)
            url = f"data:{image.mime};base64,{base64.b64encode(image.data).decode()}"
            content.append({"type": "image_url", "image_url": {"url": url}})
        return content


class ModelAsker:
    """A model of the embedded engine, greedy, query by query."""

    def __init__(self, policy: Policy, name: str, budget: Budget, max_new_tokens: int) -> None:
        self.name = f"{name}, up to {max_new_tokens} tokens"
        self._policy, self._budget, self._max_new_tokens = policy, budget, max_new_tokens

    @classmethod
    def load(cls, folder: Path, budget: Budget, max_new_tokens: int) -> ModelAsker:
        """The model of a folder.

        Raises: FileNotFoundError or ValueError if the folder has none that we run.
        """
        from .load import load_policy

        return cls(load_policy(folder), str(folder), budget, max_new_tokens)

    def answers(self, asks: Iterable[Asked]) -> Iterator[Answered]:
        """See Asker."""
        import torch
        from PIL import Image

        from vl.policy import Question
        from vl.rollout import SamplingConfig, sample_rollouts

        self._policy.model.eval()
        config = SamplingConfig(
            num_rollouts=1, temperature=0.0, max_new_tokens=self._max_new_tokens
        )
        for asked in asks:
            encoded = [encode(p, self._budget) for p in asked.parts if not isinstance(p, str)]
            images = [Image.open(BytesIO(image.data)).convert("RGB") for image in encoded]
            # the pieces meet without a space between them, as in upstream's chat templates
            text = "".join(p if isinstance(p, str) else IMAGE_MARKER for p in asked.parts)
            with torch.no_grad():
                features = self._policy.features([self._policy.encode(images)])
                questions = [Question(owner=0, text=text)]
                groups = sample_rollouts(
                    self._policy, features, questions, config, torch.Generator()
                )
            yield Answered(asked, groups[0][0].text)
