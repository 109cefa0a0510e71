"""Chats with images (LLaVA, ms-swift, OpenAI's parts) to rows: the last answer is the reference.

Turns before the last answer stay in the prompt. Read are `conversations` of from and value,
`messages` of role and content, and ms-swift's old `query`, `response`, `history`. ms-swift's
`objects` fill the tags `<ref-object>` and `<bbox>`; an answer of nothing but tags is a detection
row.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple, cast

from data_specs.boxes import Box, Space
from data_specs.convert_answers import AnswerRules, answer_reward
from data_specs.convert_boxes import (
    BoxRules,
    box_reward,
    check_rules,
    place_box,
    read_corners,
)
from data_specs.convert_files import Record, fields_of, read_records
from data_specs.convert_formats import Draft, check_row, finish, with_markers
from data_specs.convert_images import Images, LoadedImage, image_values
from data_specs.convert_layouts import IMAGE_KEYS
from data_specs.convert_log import ConvertLog, Fault
from data_specs.convert_options import ConvertOptions
from data_specs.sample import IMAGE_MARKER, Message, RewardSpec, Sample

_ROLES = {
    **dict.fromkeys(("user", "human"), "user"),
    **dict.fromkeys(("assistant", "gpt", "chatgpt", "bing", "bard", "bot", "model"), "assistant"),
    **dict.fromkeys(("system", "developer"), "system"),
    **dict.fromkeys(("tool", "tool_response", "observation", "function"), "tool"),
}
"""What others call those who speak in a chat."""

REFERENCE_KEYS = ("solution", "ground_truth", "answer", "answers", "completion", "label")
"""Where the answer stands if no turn holds it."""

_REF = "<ref-object>"
_TAG = re.compile(r"<ref-object>|<bbox>")
_SPACES: Mapping[str, Space] = {"real": "pixel", "norm1": "unit", "norm1000": "per_mille"}
_OTHER_MEDIA = ("videos", "video", "audios", "audio")


@dataclass(frozen=True, kw_only=True)
class ChatRules:
    """How chats become rows."""

    answers: AnswerRules = field(default_factory=AnswerRules)
    boxes: BoxRules = field(default_factory=BoxRules)


class Chat(NamedTuple):
    """A record's turns, with the images that stand inside them."""

    messages: list[Message]
    images: list[object]
    """Image fields of `{"type": "image", ...}` parts, in order; their markers are in the text."""


def chat_samples(
    paths: Sequence[Path], options: ConvertOptions, rules: ChatRules, log: ConvertLog
) -> Iterator[Sample]:
    """The rows of the files; everything that gives none is in the log.

    Raises: DataSpecError if a file has other keys.
    """
    images = Images(options)
    for record in read_records(paths, "llava", options, log):
        try:
            sample = finish(_draft(record, images, options, rules), options, "vqa")
            check_row(sample, options)
        except Fault as fault:
            log.add(fault, record.place)
            continue
        yield sample


def read_turns(turns: object) -> Chat:
    """Messages from a list of turns, whichever names their parts have.

    Raises: Fault if something in it is no turn.
    """
    messages: list[Message] = []
    images: list[object] = []
    for turn in image_values(turns):
        fields = fields_of(turn)
        name = fields.get("from", fields.get("role"))
        role = _ROLES.get(name.lower()) if isinstance(name, str) else None
        if role is None:
            raise Fault("bad turn", "messages", turn, f"a turn by {', '.join(_ROLES)}")
        content = fields.get("value", fields.get("content"))
        messages.append(Message(role=role, content=_text(content, images)))
    return Chat(messages, images)


def place_markers(messages: Sequence[Message], num_images: int) -> tuple[Message, ...]:
    """The messages with one marker an image: as they have them, else before the first user's text.

    Raises: Fault if there are markers, but fewer or more than images.
    """
    count = sum(message.content.count(IMAGE_MARKER) for message in messages)
    if count == num_images:
        return tuple(messages)
    first = next((n for n, message in enumerate(messages) if message.role == "user"), None)
    if count or first is None:
        allowed = f"as many {IMAGE_MARKER} markers as images ({num_images}), or none"
        raise Fault("markers do not match images", "messages", f"{count} markers", allowed)
    marked = with_markers(messages[first].content, num_images)
    changed = Message(role="user", content=marked)
    return (*messages[:first], changed, *messages[first + 1 :])


def _text(content: object, images: list[object]) -> str:
    """A turn's text with markers; images inside it are added to the list."""
    if isinstance(content, str):
        return content
    pieces: list[str] = []
    for part in image_values(content):
        fields = fields_of(part) or {"text": part}
        kind = fields.get("type")
        if kind in ("image", "image_url") or (kind is None and "image" in fields):
            inner = fields.get("image", fields.get("image_url", fields.get("path")))
            inner = fields_of(inner).get("url", inner)  # OpenAI's form
            if inner is not None:
                images.append(inner)
            pieces.append(IMAGE_MARKER)
        elif isinstance(fields.get("text"), str):
            pieces.append(cast("str", fields["text"]))
        else:
            raise Fault("bad turn", "messages", part, "parts of type text or image")
    return "".join(pieces)


def _turns(record: Record) -> Chat:
    """A record's turns, the system's first."""
    value = record.first(("conversations", "conversation", "messages"))
    if isinstance(value, list):
        chat = read_turns(cast("object", value))
    else:
        query = record.fields.get("query")
        if not isinstance(query, str):
            raise Fault("no chat", "messages", value, "conversations, messages or query")
        turns: list[object] = []
        for pair in image_values(record.fields.get("history")):
            said = cast("list[object]", pair) if isinstance(pair, list) else []
            turns += [{"role": "user", "content": text} for text in said[:1]]
            turns += [{"role": "assistant", "content": text} for text in said[1:2]]
        turns.append({"role": "user", "content": query})
        if record.fields.get("response"):
            turns.append({"role": "assistant", "content": record.fields["response"]})
        chat = read_turns(turns)
    system = record.fields.get("system")
    if (
        isinstance(system, str)
        and system
        and chat.messages[:1]
        and chat.messages[0].role != "system"
    ):
        chat.messages.insert(0, Message(role="system", content=system))
    return chat


def last_answer(record: Record, messages: Sequence[Message]) -> tuple[list[Message], list[str]]:
    """The prompt, and the right answers: the last turn if it is the assistant's, else a field.

    Raises: Fault if there is no answer.
    """
    if messages and messages[-1].role == "assistant":
        return list(messages[:-1]), [messages[-1].content]
    value = record.first(REFERENCE_KEYS)
    answers: list[str] = []
    for item in image_values(value):
        if isinstance(item, dict):  # TRL's completions are messages
            said = read_turns([cast("object", item)]).messages
            answers += [message.content for message in said if message.role == "assistant"]
        elif isinstance(item, str | int | float) and not isinstance(item, bool):
            answers.append(str(item))
    if not answers:
        allowed = f"a last turn of the assistant, or a text under {'|'.join(REFERENCE_KEYS)}"
        raise Fault("no answer", "messages", value, allowed)
    return list(messages), answers


def _draft(record: Record, images: Images, options: ConvertOptions, rules: ChatRules) -> Draft:
    """A record's row.

    Raises: Fault if it gives none.
    """
    for name in _OTHER_MEDIA:
        if record.fields.get(name):
            raise Fault("video or sound", name, record.fields[name], "images and text alone")
    chat = _turns(record)
    prompt, answers = last_answer(record, chat.messages)
    loaded = images.load_all(chat.images or image_values(record.first(IMAGE_KEYS)), record)
    extra: dict[str, object] = {}
    reward: RewardSpec | None = None
    if isinstance(record.fields.get("objects"), dict):
        tags = _Tags(cast("dict[str, object]", record.fields["objects"]), loaded, rules.boxes)
        prompt = [replace(message, content=tags.filled(message.content)) for message in prompt]
        extra["coordinate_space"] = rules.boxes.space
        boxes = tags.boxes(answers[0])
        if boxes is None:
            answers = [tags.filled(answer) for answer in answers]
        else:
            check_rules(boxes, loaded[0], rules.boxes)
            reward = box_reward(boxes)
    if reward is None:
        task = options.task or "vqa"
        reward = answer_reward(answers, task=task, rules=rules.answers, judging=options.judging)
    return Draft(
        place=record.place,
        id=record.id(),
        messages=place_markers(prompt, len(loaded)),
        images=loaded,
        reward=reward,
        extra=extra,
        split=record.text(("split",)),
        task="detection" if reward.verifier == "detection" else "",
    )


class _Tags:
    """ms-swift's `objects`, which fill the tags of a record in the order of its text."""

    def __init__(
        self, objects: Mapping[str, object], images: Sequence[LoadedImage], rules: BoxRules
    ) -> None:
        self._names = [str(name) for name in image_values(objects.get("ref"))]
        self._corners = image_values(objects.get("bbox"))
        self._owners = image_values(objects.get("image_id"))
        kind = objects.get("bbox_type") or "real"
        if kind not in _SPACES:
            raise Fault("unknown box type", "objects.bbox_type", kind, ", ".join(_SPACES))
        self._given: Space = _SPACES[cast("str", kind)]
        self._images, self._rules = images, rules
        self._num_names = self._num_boxes = 0

    def filled(self, text: str) -> str:
        """The text with names and boxes in the place of its tags.

        Raises: Fault if there are more tags than objects.
        """

        def fill(tag: re.Match[str]) -> str:
            if tag.group() == _REF:
                return self._name()
            return str([int(value) for value in self._box().corners])

        return _TAG.sub(fill, text)

    def boxes(self, text: str) -> list[Box] | None:
        """The boxes of an answer that is nothing but tags; None if it has no boxes.

        Raises: Fault if it has boxes within other text, or there are more tags than objects.
        """
        tags = _TAG.findall(text)
        if "<bbox>" not in tags:
            return None
        if re.search(r"\w", re.sub(r"\band\b", "", _TAG.sub(" ", text))):
            raise Fault("boxes within text", "messages", text, "an answer of tags alone")
        found: list[Box] = []
        for tag in tags:
            if tag == _REF:
                self._name()
            else:
                found.append(self._box())
        return found

    def _name(self) -> str:
        if self._num_names >= len(self._names):
            allowed = f"as many as {_REF} tags"
            raise Fault("too few objects", "objects.ref", self._names, allowed)
        self._num_names += 1
        return self._names[self._num_names - 1]

    def _box(self) -> Box:
        """The next box, named as the last name that was given."""
        number = self._num_boxes
        if number >= len(self._corners):
            raise Fault("too few objects", "objects.bbox", self._corners, "as many as <bbox> tags")
        self._num_boxes += 1
        owner = self._owners[number] if number < len(self._owners) else 0
        if not isinstance(owner, int) or not 0 <= owner < len(self._images):
            raise Fault("no image", "objects.image_id", owner, "the number of an image, from 0")
        image = self._images[owner]
        name = self._names[self._num_names - 1] if self._num_names else "object"
        corners = read_corners(self._corners[number], "xyxy")
        frame = (float(image.width), float(image.height))
        return place_box(corners, name, image, rules=self._rules, frame=frame, given=self._given)[0]
