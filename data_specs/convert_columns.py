"""Rows of EasyR1, TRL and verl to V-Triune's; rows that came from here come back as they were.

A row that names its verifier (`reward_model.verifier`, as `to-trl` and `to-verl` write it) keeps
its judge and its facts. Others have a prompt and an answer, and get a judge by the kind of answer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from data_specs.convert_answers import AnswerRules, answer_reward
from data_specs.convert_chat import Chat, last_answer, place_markers, read_turns
from data_specs.convert_files import Record, fields_of, id_text, read_records
from data_specs.convert_formats import Draft, check_row, finish, overridden
from data_specs.convert_images import Images, image_values
from data_specs.convert_layouts import IMAGE_KEYS
from data_specs.convert_log import ConvertLog, Fault
from data_specs.convert_options import ConvertOptions
from data_specs.parquet_row import sample_from_row
from data_specs.problem import DataSpecError
from data_specs.sample import Sample

VERL_ONLY = ("index", "reward_model")
"""Fields of verl's `extra_info` that `to-verl` adds, and that do not come back."""

_DEFAULT_TASKS = {"easyr1": "math", "trl": "vqa", "verl": "vqa"}


@dataclass(frozen=True, kw_only=True)
class ColumnRules:
    """How rows without a judge are judged."""

    answers: AnswerRules = field(default_factory=AnswerRules)


def column_samples(
    paths: Sequence[Path],
    format_name: str,
    options: ConvertOptions,
    rules: ColumnRules,
    log: ConvertLog,
) -> Iterator[Sample]:
    """The rows of the files; everything that gives none is in the log.

    Args:
        paths: parquet or JSON files.
        format_name: `easyr1`, `trl` or `verl`.
        options: the shared ones.
        rules: how rows without a judge are judged.
        log: what gave no row.

    Raises: DataSpecError if a file has other columns.
    """
    images = Images(options)
    for record in read_records(paths, format_name, options, log):
        try:
            if fields_of(record.fields.get("reward_model")).get("verifier"):
                sample = overridden(_whole(record, images), options)
            else:
                default_task = _DEFAULT_TASKS[format_name]
                sample = finish(_draft(record, images, options, rules, default_task), options, "")
            check_row(sample, options)
        except Fault as fault:
            log.add(fault, record.place)
            continue
        yield sample


def _prompt(record: Record) -> Chat:
    value = record.first(("prompt", "problem", "messages"))
    if isinstance(value, str):
        value = [{"role": "user", "content": value}]
    chat = read_turns(value)
    if not chat.messages:
        raise Fault("no question", "prompt", value, "a text, or a list of messages")
    return chat


def _whole(record: Record, images: Images) -> Sample:
    """A row with its own judge: only prompt and images are in another form.

    Raises: Fault if a field cannot be used.
    """
    fields = record.fields
    extra = {
        name: value
        for name, value in fields_of(fields.get("extra_info")).items()
        if name not in VERL_ONLY
    }
    row = {
        "data_source": fields.get("data_source") or Path(record.place.file).stem,
        "ability": fields.get("ability") or "vqa",
        "reward_model": fields.get("reward_model"),
        "extra_info": extra,
    }
    try:
        sample = sample_from_row(row, record.place.file, record.place.number or 0)
    except DataSpecError as error:
        problem = error.problems[0]
        raise Fault("bad row", problem.field, problem.value, problem.allowed) from error
    chat = _prompt(record)
    loaded = images.load_all(chat.images or image_values(record.first(IMAGE_KEYS)), record)
    return replace(
        sample,
        messages=place_markers(chat.messages, len(loaded)),
        images=tuple(image.ref for image in loaded),
    )


def _draft(
    record: Record,
    images: Images,
    options: ConvertOptions,
    rules: ColumnRules,
    default_task: str,
) -> Draft:
    """A row without a judge.

    Raises: Fault if it gives none.
    """
    chat = _prompt(record)
    judge = fields_of(record.fields.get("reward_model"))
    answers = [item for item in image_values(judge.get("ground_truth")) if isinstance(item, str)]
    prompt = chat.messages
    if not answers:
        prompt, answers = last_answer(record, chat.messages)
    task = options.task or record.text(("ability",)) or default_task
    loaded = images.load_all(chat.images or image_values(record.first(IMAGE_KEYS)), record)
    extra = {
        name: value
        for name, value in fields_of(record.fields.get("extra_info")).items()
        if name not in (*VERL_ONLY, "id", "split") and value is not None
    }
    facts = fields_of(record.fields.get("extra_info"))
    names = (facts.get("id"), record.fields.get("id"), facts.get("index"), record.place.number)
    return Draft(
        place=record.place,
        id=next(id_text(name) for name in names if id_text(name)),
        messages=place_markers(prompt, len(loaded)),
        images=loaded,
        reward=answer_reward(answers, task=task, rules=rules.answers, judging=options.judging),
        extra=extra,
        split=id_text(facts.get("split")) or record.text(("split",)),
        source=record.text(("data_source",)),
        task=task,
    )
