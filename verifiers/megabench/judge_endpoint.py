"""A judge behind an OpenAI-compatible endpoint, every reply stored on disk."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from io import BytesIO
from mimetypes import guess_type
from pathlib import Path
from typing import Any

from verifiers.megabench.registry import JudgeMessage, Unscored

UPSTREAM_MODEL = "gpt-4o-2024-08-06"
"""The judge of the published numbers."""
SIDE_MAX_PX = 1000
"""Longer side of an image that the judge is shown."""

_REPETITIVE = "issue with repetitive patterns in your prompt"
"""What the endpoint says of a reply that repeats itself too much; upstream scores it 0."""
_PASSING = frozenset({408, 409, 425, 429, 500, 502, 503, 504})


@dataclass(frozen=True, kw_only=True)
class EndpointJudge:
    """Sends a message and gives the reply; the same message is sent once."""

    url: str
    """Address of the service, such as https://api.openai.com/v1, or of its chat completions."""
    model: str
    """Name that the service knows."""
    cache: Path
    """Folder of the stored replies; a reply depends on model, text and images alone."""
    api_key: str | None = None
    """None: the service asks for none."""
    tries: int = 6
    """How often a request is sent before the judgement is given up, at least 1."""
    limit_s: float = 300.0
    """Longest time for one request, above 0."""
    first_wait_s: float = 2.0
    """Wait after the first failure; each further one is twice as long."""

    def __post_init__(self) -> None:
        if not self.url.startswith(("http://", "https://")):
            raise ValueError(f"the judge's url is {self.url!r}; allowed: http:// or https://")
        if self.tries < 1 or self.limit_s <= 0:
            raise ValueError(
                f"tries is {self.tries}, limit_s is {self.limit_s}; allowed: at least 1, above 0"
            )

    def __call__(self, message: JudgeMessage) -> str:
        """The judge's reply.

        Raises: Unscored if an image cannot be read or the service gives none.
        """
        content: list[dict[str, Any]] = [
            {"type": "image_url", "image_url": {"url": _data_url(image)}}
            for image in message.images
        ]
        content.append({"type": "text", "text": message.text})
        body: dict[str, Any] = {
            "model": self.model,
            "messages": [{"role": "user", "content": content}],
            "temperature": 0,
        }
        data = json.dumps(body, sort_keys=True).encode()
        stored = self.cache / f"{hashlib.sha256(data).hexdigest()}.json"
        if stored.is_file():
            return json.loads(stored.read_text(encoding="utf-8"))["reply"]
        reply = self._send(data)
        self.cache.mkdir(parents=True, exist_ok=True)
        # Whole or not at all: several may write at a time, and a run may be stopped at any time.
        part = stored.with_suffix(f".{os.getpid()}.{time.monotonic_ns()}")
        record = {"model": self.model, "text": message.text, "reply": reply}
        part.write_text(json.dumps(record, ensure_ascii=True), encoding="utf-8")
        part.replace(stored)
        return reply

    def _send(self, data: bytes) -> str:
        failure = ""
        for number in range(self.tries):
            if number:
                time.sleep(self.first_wait_s * 2 ** (number - 1))
            try:
                return _reply_text(self._post(data))
            except urllib.error.HTTPError as error:
                said = error.read().decode(errors="replace")[:500]
                failure = f"HTTP {error.code}: {said}"
                if _REPETITIVE in said:
                    return f"**Score explanation**: {said}\n\n**Score**: 0"
                if error.code not in _PASSING:
                    break
            except (OSError, ValueError) as error:  # no connection, a time limit, or no JSON
                failure = f"{type(error).__name__}: {error}"
        raise Unscored(f"the judge at {self.url} gave no reply: {failure}")

    def _post(self, data: bytes) -> Any:
        url = self.url.rstrip("/")
        if not url.endswith("/chat/completions"):
            url += "/chat/completions"
        headers = {"Content-Type": "application/json"}
        if self.api_key:
            headers["Authorization"] = f"Bearer {self.api_key}"
        request = urllib.request.Request(url, data=data, headers=headers, method="POST")
        with urllib.request.urlopen(request, timeout=self.limit_s) as response:
            return json.load(response)


def _reply_text(answer: Any) -> str:
    """The text of a chat completion.

    Raises: ValueError if there is none.
    """
    try:
        text = answer["choices"][0]["message"]["content"]
    except (KeyError, IndexError, TypeError):
        raise ValueError(f"no chat completion: {str(answer)[:500]}") from None
    if not isinstance(text, str):
        raise ValueError(f"a chat completion without text: {str(answer)[:500]}")
    return text


def _data_url(image: str) -> str:
    """An image as upstream sends it: opaque, at most 1000 px long, in its own format."""
    if image.startswith("data:"):
        return image
    from PIL import Image

    mime = guess_type(image)[0] or "image/jpeg"
    try:
        with Image.open(image) as opened:
            picture = opened.convert("RGBA") if opened.mode in ("RGBA", "LA", "PA") else opened
            if picture.mode == "RGBA":
                paper = Image.new("RGBA", picture.size, "white")
                picture = Image.alpha_composite(paper, picture)
            scale = SIDE_MAX_PX / max(picture.size)
            if scale < 1:
                size = int(picture.width * scale), int(picture.height * scale)
                picture = picture.resize((max(1, size[0]), max(1, size[1])))
            buffer = BytesIO()
            picture.convert("RGB").save(buffer, format=mime.split("/")[-1].upper())
    except (OSError, ValueError, KeyError) as error:
        raise Unscored(f"image {image!r} cannot be sent to the judge: {error}") from None
    return f"data:{mime};base64,{base64.b64encode(buffer.getvalue()).decode()}"
