import json
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from converted import convert, picture, write

from data_specs import ImageRef, Message, RewardSpec, Sample, read_samples, write_samples
from data_specs.convert_export import content_parts

BOX = "<answer>[{'bbox_2d': [10, 10, 90, 90], 'label': 'dog'}]</answer>"


@pytest.fixture
def pictures(tmp_path):
    return [picture(tmp_path / f"{number}.png", seed=number) for number in range(4)]


def sample(number, data, **changes):
    fields = {
        "id": f"row-{number}",
        "source": "made",
        "task": "counting",
        "messages": (
            Message(role="system", content="Be short."),
            Message(role="user", content="<image> How many dogs? "),
        ),
        "images": (ImageRef(data=data, path=f"{number}.png"),),
        "reward": RewardSpec(
            verifier="number",
            answer="7",
            ground_truth=r"\boxed{7}",
            accuracy_ratio=0.9,
            format_ratio=0.1,
            params={"relative_tolerance": 0.05, "year": False},
        ),
        "extra": {"split": "train", "image_width": 100, "image_height": 200, "mine": 1.5},
    }
    return Sample(**(fields | changes))


def mixed(pictures):
    """Rows of four kinds: numbers, boxes, several images and turns, and none."""
    one, two, three, _ = pictures
    detection = RewardSpec(
        verifier="detection", answer="", ground_truth=BOX, params={"det_verifier_normalized": True}
    )
    return [
        sample(0, one),
        sample(1, two, task="detection", reward=detection, extra={
            "split": "train", "image_width": 100, "image_height": 200,
            "coordinate_space": "per_mille", "tags": ["a", "b"],
        }),
        sample(
            2,
            three,
            messages=(
                Message(role="user", content="<image>Is it like <image>?"),
                Message(role="assistant", content="no <b>"),
                Message(role="user", content="Why not?\n"),
            ),
            images=(ImageRef(data=three, path="a.png"), ImageRef(data=one, path="b.png")),
            reward=RewardSpec(verifier="text", answer="size", ground_truth=r"\boxed{size}"),
            extra={"difficulty": 0.5},
        ),
        sample(3, b"", images=(), messages=(Message(role="user", content="2 + 2?"),), extra={}),
    ]  # fmt: skip


def plain(samples):
    return [replace(item, where="") for item in samples]


@pytest.mark.parametrize("trainer", ["trl", "verl"])
def test_rows_come_back_from_another_trainer_as_they_were(tmp_path, pictures, trainer):
    rows = mixed(pictures)
    source = tmp_path / "rows.parquet"
    write_samples(rows, source)
    there = convert(tmp_path, f"to-{trainer}", source, name="there.parquet", checked=False)
    assert there.code == 0 and there.listed == []
    back = convert(tmp_path, trainer, there.out, name="back.parquet")
    assert plain(back.samples) == plain(rows)
    assert back.code == 0 and back.listed == []


def test_trl_gets_messages_of_parts_images_and_the_solution(tmp_path, pictures):
    write_samples(mixed(pictures), tmp_path / "rows.parquet")
    done = convert(tmp_path, "to-trl", tmp_path / "rows.parquet", checked=False)
    first, _, third, last = pq.read_table(done.out).to_pylist()
    assert first["prompt"][1]["content"] == [
        {"type": "image", "text": None},
        {"type": "text", "text": " How many dogs? "},
    ]
    assert first["solution"] == r"\boxed{7}"
    assert json.loads(first["reward_model"]["verifier_parm"])["relative_tolerance"] == 0.05
    assert [part["type"] for part in third["prompt"][0]["content"]] == [
        "image", "text", "image", "text",
    ]  # fmt: skip
    assert third["images"][1] == {"bytes": pictures[0], "path": "b.png"}
    assert last["images"] == []


def test_parts_and_markers_are_the_same_text():
    assert content_parts("") == []
    assert content_parts("<image><image>a") == [
        {"type": "image", "text": None},
        {"type": "image", "text": None},
        {"type": "text", "text": "a"},
    ]


def test_trl_itself_fills_the_images_in(tmp_path, pictures):
    datasets = pytest.importorskip("datasets")
    data_utils = pytest.importorskip("trl.data_utils")
    write_samples(mixed(pictures), tmp_path / "rows.parquet")
    done = convert(tmp_path, "to-trl", tmp_path / "rows.parquet", checked=False)
    rows = datasets.load_dataset(
        "parquet", data_files=str(done.out), cache_dir=str(tmp_path / "cache"), split="train"
    )
    for row in rows:
        filled = data_utils.prepare_multimodal_messages(row["prompt"], images=row["images"])
        parts = [part for message in filled for part in message["content"]]
        images = [part["image"] for part in parts if part["type"] == "image"]
        assert [image.size for image in images] == [(100, 200)] * len(row["images"])


def test_verl_gets_the_judge_where_its_hook_sees_it(tmp_path, pictures):
    from verifiers.adapters.verl import compute_score, with_judge

    write_samples(mixed(pictures), tmp_path / "rows.parquet")
    done = convert(tmp_path, "to-verl", tmp_path / "rows.parquet", checked=False)
    rows = pq.read_table(done.out).to_pylist()
    assert [row["extra_info"]["index"] for row in rows] == [0, 1, 2, 3]
    assert [row["extra_info"]["split"] for row in rows] == ["train", "train", None, None]
    for row in rows:
        assert row["reward_model"]["style"] == "rule"
        assert isinstance(row["reward_model"]["verifier_parm"], str | None)
        told = with_judge(row)["extra_info"]["reward_model"]
        assert row["extra_info"]["reward_model"] == told
        result = compute_score(
            row["data_source"],
            row["reward_model"]["ground_truth"],
            row["reward_model"]["ground_truth"],
            row["extra_info"],
            workers=0,
        )
        wanted = 0.0 if row["ability"] == "detection" else 1.0  # per mille read as pixels
        assert result["accuracy"] == wanted, row["extra_info"]["id"]


def test_verl_files_are_read_by_datasets_with_pictures(tmp_path, pictures):
    datasets = pytest.importorskip("datasets")
    write_samples(mixed(pictures), tmp_path / "rows.parquet")
    done = convert(tmp_path, "to-verl", tmp_path / "rows.parquet", checked=False)
    rows = datasets.load_dataset(
        "parquet", data_files=str(done.out), cache_dir=str(tmp_path / "cache"), split="train"
    )
    assert [len(row["images"]) for row in rows] == [1, 1, 2, 0]
    assert rows[0]["images"][0].size == (100, 200)


def test_linked_images_go_to_trainers_with_their_whole_path(tmp_path, pictures):
    write_samples([sample(0, None, images=(ImageRef(path="0.png"),))], tmp_path / "rows.parquet")
    for words, wanted in (
        ([], {"bytes": pictures[0], "path": str(tmp_path / "0.png")}),
        (["--link"], {"bytes": None, "path": str((tmp_path / "0.png").resolve())}),
    ):
        done = convert(tmp_path, "to-trl", tmp_path / "rows.parquet", *words, checked=False)
        (row,) = pq.read_table(done.out).to_pylist()
        assert row["images"] == [wanted]


def test_rows_that_cannot_be_exported_are_listed(tmp_path, pictures):
    rows = [sample(0, pictures[0]), sample(1, None, images=(ImageRef(path="gone.png"),))]
    write_samples(rows, tmp_path / "rows.parquet")
    table = pq.read_table(tmp_path / "rows.parquet").to_pylist()
    table[0]["ability"] = None
    good = table[0] | {"ability": "counting", "data_source": "other"}
    schema = pq.read_schema(tmp_path / "rows.parquet")
    pq.write_table(pa.Table.from_pylist([*table, good], schema=schema), tmp_path / "rows.parquet")
    done = convert(tmp_path, "to-verl", tmp_path / "rows.parquet", checked=False)
    assert pq.read_table(done.out).num_rows == 1
    assert [(line["kind"], line["file"], line["record"]) for line in done.listed] == [
        ("bad row", "rows.parquet", 0),
        ("image missing", "rows.parquet", 1),
    ]
    strict = convert(
        tmp_path, "to-verl", tmp_path / "rows.parquet", "--strict", name="b.parquet", checked=False
    )
    assert strict.code == 2 and not strict.out.exists()


def test_exports_take_a_split_a_limit_and_other_names(tmp_path, pictures):
    rows = [
        sample(n, pictures[n], extra={"split": split})
        for n, split in enumerate(["train", "test", "train", "train"])
    ]
    write_samples(rows, tmp_path / "rows.parquet")
    words = ["--split", "train", "--limit", "2", "--source", "mine", "--append", "Box it."]
    done = convert(tmp_path, "to-trl", tmp_path / "rows.parquet", *words, checked=False)
    found = pq.read_table(done.out).to_pylist()
    assert [row["extra_info"]["id"] for row in found] == ["row-0", "row-2"]
    assert {row["data_source"] for row in found} == {"mine"}
    assert found[0]["prompt"][1]["content"][1]["text"] == " How many dogs?  Box it."
    drawn = {
        convert(
            tmp_path, "to-trl", tmp_path / "rows.parquet", "--limit", "1", "--seed", str(seed),
            checked=False,
        ).out.read_bytes()
        for seed in range(6)
    }  # fmt: skip
    assert len(drawn) > 1


def test_files_whose_facts_have_other_types_are_not_mixed(tmp_path, pictures, capsys):
    write_samples([sample(0, pictures[0])], tmp_path / "a.parquet")
    write_samples([sample(0, pictures[0], extra={"mine": "x"})], tmp_path / "b.parquet")
    files = [tmp_path / "a.parquet", tmp_path / "b.parquet"]
    assert convert(tmp_path, "to-trl", *files, checked=False).code == 2
    said = capsys.readouterr().err
    assert "b.parquet: extra_info.mine is of type string, in an earlier file double" in said


def test_easyr1_rows_become_math_rows_with_their_images_in_order(tmp_path, pictures):
    rows = [
        {"images": [{"bytes": pictures[0], "path": None}], "problem": "<image>Find x.",
         "answer": "2 \\sqrt { 221 }"},
        {"images": [{"bytes": data, "path": None} for data in pictures[:2]],
         "problem": "Compare.", "answer": "3"},
    ]  # fmt: skip
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "geometry3k.parquet")
    done = convert(tmp_path, "easyr1", tmp_path / "geometry3k.parquet")
    first, second = done.samples
    assert [row.id for row in done.samples] == ["geometry3k-0", "geometry3k-1"]
    assert (first.source, first.task, first.reward.verifier) == ("geometry3k", "math", "mathverify")
    assert first.reward.ground_truth == "\\boxed{2 \\sqrt { 221 }}"
    assert second.messages[0].content == "<image><image>Compare."
    assert [image.data for image in second.images] == pictures[:2]
    lines = write(tmp_path / "a.jsonl", [{"images": ["1.png"], "problem": "x?", "answer": "3"}])
    (row,) = convert(tmp_path, "easyr1", lines, "--task", "counting").samples
    assert (row.reward.verifier, row.images[0].data) == ("number", pictures[1])


@pytest.mark.parametrize(
    ("record", "question"),
    [
        ({"prompt": "What?", "completion": " cat", "image": "0.png"}, "What?"),
        (
            {"prompt": [{"role": "user", "content": "What?"}], "images": ["0.png"],
             "completion": [{"role": "assistant", "content": "cat"}]},
            "What?",
        ),
        (
            {"prompt": [{"role": "user", "content": [
                {"type": "image", "text": None}, {"type": "text", "text": "What?"}]}],
             "images": ["0.png"], "solution": "<think>a</think><answer>cat</answer>"},
            "What?",
        ),
    ],
)  # fmt: skip
def test_layouts_of_trl_become_rows(tmp_path, pictures, record, question):
    done = convert(tmp_path, "trl", write(tmp_path / "trl.jsonl", [record]))
    (row,) = done.samples
    assert (row.question, row.reward.answer, row.reward.verifier) == (question, "cat", "text")
    assert row.messages[-1].content == "<image>What?"
    assert row.images[0].data == pictures[0]


def test_rows_of_verls_own_examples_get_a_judge(tmp_path, pictures):
    record = {
        "data_source": "hiyouga/geometry3k",
        "prompt": [{"role": "user", "content": "<image>Find x."}],
        "images": [{"bytes": pictures[0], "path": None}],
        "ability": "math",
        "reward_model": {"style": "rule", "ground_truth": "3"},
        "extra_info": {"split": "train", "index": 12, "answer": "3", "question": "Find x."},
    }
    pq.write_table(pa.Table.from_pylist([record]), tmp_path / "train.parquet")
    (row,) = convert(tmp_path, "verl", tmp_path / "train.parquet").samples
    assert (row.id, row.source, row.task) == (
        "hiyouga/geometry3k-12",
        "hiyouga/geometry3k",
        "math",
    )
    assert (row.reward.verifier, row.reward.ground_truth) == ("mathverify", r"\boxed{3}")
    assert row.extra["split"] == "train" and "index" not in row.extra
    (row,) = convert(tmp_path, "verl", tmp_path / "train.parquet", "--verifier", "text").samples
    assert row.reward.verifier == "text"


def test_a_row_whose_own_judge_is_broken_is_listed(tmp_path, pictures):
    write_samples(mixed(pictures)[:2], tmp_path / "rows.parquet")
    there = convert(tmp_path, "to-verl", tmp_path / "rows.parquet", name="v.parquet", checked=False)
    rows = pq.read_table(there.out).to_pylist()
    rows[1]["reward_model"]["verifier_parm"] = "{broken"
    schema = pq.read_schema(there.out)
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), there.out)
    back = convert(tmp_path, "verl", there.out)
    assert [row.id for row in back.samples] == ["row-0"]
    assert [kind for kind, _ in back.kinds()] == ["bad row"]


def test_files_written_here_are_read_again_without_pictures_in_memory(tmp_path, pictures):
    write_samples([sample(n, pictures[n % 4]) for n in range(700)], tmp_path / "rows.parquet")
    done = convert(tmp_path, "to-verl", tmp_path / "rows.parquet", checked=False)
    assert pq.ParquetFile(done.out).metadata.num_row_groups == 3
    assert sum(1 for _ in read_samples(tmp_path / "rows.parquet")) == 700


def test_our_reward_function_for_trl_judges_the_rows_as_they_are(tmp_path, pictures):
    from verifiers import PoolScoring
    from verifiers.adapters.trl import TrlReward

    rows = [row for row in mixed(pictures) if row.task != "detection"]
    write_samples(rows, tmp_path / "rows.parquet")
    done = convert(tmp_path, "to-trl", tmp_path / "rows.parquet", checked=False)
    table = pq.read_table(done.out).to_pydict()
    reward = TrlReward(scoring=PoolScoring(workers=0))
    completions = [[{"role": "assistant", "content": text}] for text in table["solution"]]
    columns = {name: table[name] for name in ("data_source", "reward_model", "extra_info")}
    assert reward(prompts=table["prompt"], completions=completions, **columns) == [1.0, 1.0, 1.0]
