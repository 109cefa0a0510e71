"""`vl data convert`: what it says, what it leaves behind, and its exit codes."""

import json
import subprocess
import sys

import pytest
from converted import convert, picture, write

from data_specs import convert_images
from recipes.cli import main
from recipes.commands_convert import _FORMATS
from tasks.check import check_files

QA = {"image": "1.png", "question": "what?", "answer": "cat"}


@pytest.fixture
def folder(tmp_path):
    for number in (1, 2, 3):
        picture(tmp_path / f"{number}.png", seed=number)
    return tmp_path


@pytest.mark.parametrize("name", ["", *_FORMATS])
def test_every_format_has_help_with_an_example(name, capsys):
    with pytest.raises(SystemExit) as done:
        main(["data", "convert", *name.split(), "--help"])
    assert done.value.code == 0
    said = capsys.readouterr().out
    assert "example" in said and f"vl data convert {name}".rstrip() in said
    if name:
        for option in ("--source", "--task", "--split", "--licence", "--limit", "--seed"):
            assert option in said
        for option in ("--strict", "--link", "--images", "--rename", "--append", "--decode"):
            assert option in said


def test_converting_loads_no_torch(folder):
    path = write(folder / "qa.json", [QA])
    words = ["data", "convert", "vqa", str(path), "--out", str(folder / "rows.parquet")]
    code = (
        "import sys; from recipes.cli import main; "
        f"done = main({words!r}); print(done, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.split()[-2:] == ["0", "False"], done.stderr


def test_the_summary_counts_rows_problems_and_what_rules_left_out(folder, capsys):
    records = [QA, {**QA, "image": "gone.png", "id": "b"}, {**QA, "image": "2.png"}, QA]
    done = convert(folder, "vqa", write(folder / "qa.json", records))
    assert done.code == 0 and len(done.samples) == 2
    out, said = capsys.readouterr()
    assert out.split()[:2] == ["2", "vqa"] and "(verifiers: text 2)" in out
    assert "problems: image missing 1" in said
    assert "left out by rule: repeated row 1" in said
    assert "qa.json row 1 (id b): image is 'gone.png'; allowed: a file; " in said
    assert "Put the file there, or name its folder with --images" in said
    assert f"listed in {done.out.with_name('rows.problems.jsonl')}" in said
    assert [line["kind"] for line in done.listed] == ["image missing", "repeated row"]


def test_more_than_twenty_problems_are_counted_but_not_all_shown(folder, capsys):
    records = [QA, *[{**QA, "image": f"gone{n}.png"} for n in range(25)]]
    done = convert(folder, "vqa", write(folder / "qa.json", records))
    said = capsys.readouterr().err
    assert said.count("qa.json row") == 20 and "... and 5 more" in said
    assert len(done.listed) == 25


def test_strictly_any_problem_writes_nothing_and_ends_with_2(folder, capsys):
    path = write(folder / "qa.json", [QA, {**QA, "image": "gone.png"}])
    done = convert(folder, "vqa", path, "--strict")
    assert done.code == 2 and not done.out.exists()
    assert "1 problems, and --strict allows none: image missing 1" in capsys.readouterr().err
    repeated = write(folder / "qa.json", [QA, QA])
    assert convert(folder, "vqa", repeated, "--strict").code == 0


@pytest.mark.parametrize("value", [[], {}, [{**QA, "image": "gone.png"}]])
def test_no_row_is_an_error_and_no_file(folder, capsys, value):
    done = convert(folder, "vqa", write(folder / "qa.json", value))
    assert done.code == 2 and not done.out.exists()
    assert "Traceback" not in capsys.readouterr().err


def test_the_list_of_an_earlier_conversion_goes_away(folder):
    bad = write(folder / "bad.json", [QA, {**QA, "image": "gone.png"}])
    assert convert(folder, "vqa", bad).listed
    done = convert(folder, "vqa", write(folder / "qa.json", [QA]))
    assert done.listed == []
    assert sorted(path.name for path in done.out.parent.iterdir()) == ["rows.parquet"]


@pytest.mark.parametrize("at", [1, 1500])
def test_a_conversion_that_is_stopped_leaves_no_half_file(folder, monkeypatch, at):
    records = [{**QA, "question": f"what is {n}?"} for n in range(1600)]
    path = write(folder / "qa.json", records)
    load, calls = convert_images.Images.load, []

    def stopped(self, value, record):
        calls.append(value)
        if len(calls) == at:
            raise KeyboardInterrupt
        return load(self, value, record)

    monkeypatch.setattr(convert_images.Images, "load", stopped)
    done = convert(folder, "vqa", path)
    assert done.code == 130
    assert list(done.out.parent.iterdir()) == []


def test_an_earlier_file_stays_until_the_new_one_is_whole(folder):
    done = convert(folder, "vqa", write(folder / "qa.json", [QA]))
    before = done.out.read_bytes()
    bad = write(folder / "bad.json", [{**QA, "question": "who?"}, {**QA, "image": "gone.png"}])
    assert convert(folder, "vqa", bad, "--strict").code == 2
    assert done.out.read_bytes() == before
    assert convert(folder, "vqa", bad).code == 0
    assert done.out.read_bytes() != before


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("vqa {qa} --out {tmp}/rows.jsonl", "a name that ends in .parquet"),
        ("to-trl {tmp}/a.parquet --out {tmp}/a.parquet", "which is read as well"),
        ("to-trl {qa} --out {out} --images {tmp}", "--images means nothing for to-trl"),
        ("vqa {tmp}/no.json --out {out}", "no.json: cannot be read"),
        ("vqa {tmp}/text.json --out {out}", "is no JSON"),
        ("vqa {tmp}/refs.p --out {out}", "pickles are not opened"),
        ("trl {tmp}/text.parquet --out {out}", "is no readable parquet file"),
        ("to-verl {tmp}/text.parquet --out {out}", "text.parquet"),
        ("vqa {qa} --out {out} --limit 0", "limit is 0; allowed: 1 or more"),
        ("vqa {qa} --out {out} --verifier nunber", "did you mean 'number'?"),
        ("vqa {qa} --out {out} --params {{}} --tolerance 2", "--tolerance is 2.0; allowed: 0 to 1"),
        ("vqa {qa} --out {out} --min-votes 0", "votes are 0; allowed: 1 or more"),
        ("vqa {qa} --out {out} --image-pattern {{x}}.jpg", "allowed: {image_id} alone"),
        ("vqa {qa} --out {out} --rename image", "allowed: THEIRS=OURS"),
        ("coco {qa} --out {out} --task ocr", "allowed for coco: detection, counting"),
        ("coco {qa} --out {out} --negatives -1", "negatives are -1; allowed: 0 or more"),
        ("coco {qa} --out {out} --max-box-frac 0", "allowed: above 0, up to 1"),
        ("coco {qa} --out {out} --max-boxes-per-category 0", "allowed: 1 or more"),
    ],
)
def test_bad_input_ends_with_2_and_one_message(folder, capsys, words, said):
    write(folder / "qa.json", [QA])
    for name in ("text.json", "text.parquet", "refs.p"):
        (folder / name).write_text("no json")
    filled = words.format(tmp=folder, qa=folder / "qa.json", out=folder / "rows.parquet")
    assert main(["data", "convert", *filled.split()]) == 2
    error = capsys.readouterr().err
    assert said in error and "Traceback" not in error
    assert not (folder / "rows.parquet").exists()


@pytest.mark.parametrize("params", ["{broken", "[1]"])
def test_parameters_that_are_no_json_object_are_refused(folder, capsys, params):
    with pytest.raises(SystemExit) as done:
        main(["data", "convert", "vqa", "a.json", "--out", "b.parquet", "--params", params])
    assert done.value.code == 2
    assert "is no JSON" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "record", "near"),
    [
        ("vqa", {"imgname": "a", "query": "b", "labels": "c"}, "chartqa"),
        ("llava", {"image": "a", "question": "b", "answer": "c"}, "vqa"),
        ("vqa", {"image": "a", "conversations": []}, "llava"),
        ("refcoco", {"images": ["a"], "problem": "b", "answer": "c"}, "easyr1"),
        ("easyr1", {"prompt": "a", "completion": "c"}, "trl"),
        ("trl", {"image": "a", "sentences": ["b"], "bbox": [1, 2, 3, 4]}, "refcoco"),
        ("easyr1", {"prompt": [], "reward_model": {}, "data_source": "x"}, "verl"),
        ("vqa", {"images": [], "annotations": {}, "categories": []}, "coco"),
    ],
)
def test_an_unknown_layout_names_the_record_its_keys_and_the_nearest_format(
    folder, capsys, name, record, near
):
    done = convert(folder, name, write(folder / "file.json", [record]))
    assert done.code == 2
    said = capsys.readouterr().err
    assert f"file.json record 0: keys are {sorted(record)!r}" in said
    assert f"format {name} needs" in said and "missing: " in said
    assert f"Nearest format: {near} (" in said and f"try `vl data convert {near}`" in said


def test_keys_that_no_format_has_are_named_without_a_guess(folder, capsys):
    done = convert(folder, "vqa", write(folder / "file.json", [{"a": 1, "b": 2}]))
    assert done.code == 2
    said = capsys.readouterr().err
    assert "keys are ['a', 'b']" in said and "Nearest" not in said and "--rename" in said


def test_images_come_from_a_folder_and_are_embedded_once_for_neighbours(folder):
    inner = folder / "pictures"
    inner.mkdir()
    data = picture(inner / "big.png", size=(300, 300))
    records = [{"image": "big.png", "question": f"q {n}?", "answer": "cat"} for n in range(200)]
    done = convert(folder, "vqa", write(folder / "qa.json", records), "--images", inner)
    assert len(done.samples) == 200 and done.samples[0].images[0].data == data
    assert done.out.stat().st_size < 2 * len(data)


def test_a_damaged_picture_is_found_by_its_end_or_by_decoding(folder):
    data = bytearray(picture(folder / "a.jpg", size=(64, 64)))
    data[-40:-30] = b"\xff\xd8\xff\xd8\xff\xd8\xff\xd8\xff\xd8"
    (folder / "b.png").write_bytes((folder / "1.png").read_bytes()[:-200] + b"IEND\xaeB`\x82")
    (folder / "c.jpg").write_bytes(bytes(data[:-20]))
    names = ["a.jpg", "b.png", "c.jpg"]
    records = [{"id": name, "image": name, "question": "q?", "answer": "cat"} for name in names]
    path = write(folder / "qa.json", records)
    by_header = convert(folder, "vqa", path, checked=False)
    assert by_header.kinds() == [("image unreadable", "c.jpg")]
    decoded = convert(folder, "vqa", path, "--decode", checked=False)
    assert decoded.kinds() == [("image unreadable", "b.png"), ("image unreadable", "c.jpg")]
    assert check_files(decoded.out, decode_images=True).problems == ()


def test_shared_options_name_source_task_split_and_licence(folder):
    words = ["--source", "mine", "--task", "ocr", "--split", "test", "--licence", "CC0"]
    words += ["--append", "Answer in one word."]
    path = write(folder / "qa.json", [QA, {**QA, "split": "train", "image": "2.png"}])
    done = convert(folder, "vqa", path, *words)
    (row,) = done.samples
    assert (row.id, row.source, row.task) == ("mine-0", "mine", "ocr")
    assert (row.extra["split"], row.extra["licence"]) == ("test", "CC0")
    assert row.question == "what? Answer in one word."
    assert [kind for kind, _ in done.kinds(by_rule=True)] == ["other split"]


def test_a_limit_takes_the_first_rows_and_a_seed_draws_them(folder):
    records = [{**QA, "question": f"what is {n}?"} for n in range(40)]
    path = write(folder / "qa.json", records)
    assert [row.id for row in convert(folder, "vqa", path, "--limit", 3).samples] == [
        "qa-0",
        "qa-1",
        "qa-2",
    ]
    drawn = [
        [row.id for row in convert(folder, "vqa", path, "--limit", 3, "--seed", seed).samples]
        for seed in (1, 1, 2)
    ]
    assert drawn[0] == drawn[1] != drawn[2] and all(len(ids) == 3 for ids in drawn)


def test_every_line_of_the_list_has_the_same_fields(folder):
    done = convert(folder, "vqa", write(folder / "qa.json", [QA, {**QA, "image": "gone.png"}]))
    (line,) = done.listed
    assert json.loads(json.dumps(line)) == {
        "file": "qa.json",
        "record": 1,
        "id": "",
        "kind": "image missing",
        "field": "image",
        "value": "'gone.png'",
        "allowed": f"a file; {folder / 'gone.png'} is none",
        "remedy": "Put the file there, or name its folder with --images",
        "by_rule": False,
    }
