"""`vl data check` and `vl data schema` as a person types them."""

import json
import subprocess
import sys

import pytest
from test_data_specs_parquet import png, sample
from test_tasks_check_kinds import judged

from data_specs import write_samples
from data_specs.schema_text import json_schema
from recipes.cli import main


def data(tmp_path, *bad, num=4):
    path = tmp_path / "train_a.parquet"
    rows = [sample(i, png(i), extra={}) for i in range(num)]
    for number in bad:
        rows[number] = sample(number, png(number), reward=judged("nobody"), extra={})
    write_samples(rows, path)
    return path


def check(*words):
    return main(["data", "check", *map(str, words)])


def test_good_rows_are_counted_by_source_and_task(tmp_path, capsys):
    assert check(data(tmp_path)) == 0
    assert capsys.readouterr().out.splitlines() == [
        "       4  made",
        "       4  task counting",
        "       4  rows with 4 different images in 1 files (0 rows in held-out files), all good",
    ]


def test_a_bad_row_is_a_line_and_exit_code_2(tmp_path, capsys):
    assert check(data(tmp_path, 2)) == 2
    said = capsys.readouterr()
    assert "1 of them bad" in said.out
    lines = said.err.splitlines()
    (line,) = [line for line in lines if line.startswith("train_a.parquet row 2 (id row-2): ")]
    assert "reward_model.verifier is 'nobody'; allowed: " in line
    assert "1 problems in 4 rows:" in lines
    assert lines[-2:] == ["by kind:", "       1  unknown_verifier"]


@pytest.mark.parametrize(("most", "shown"), [(0, 0), (2, 2), (50, 5)])
def test_only_so_many_problems_are_printed(tmp_path, capsys, most, shown):
    assert check(data(tmp_path, *range(5), num=6), "--max-problems", most) == 2
    lines = capsys.readouterr().err.splitlines()
    assert sum(line.startswith("train_a.parquet row") for line in lines) == shown
    rest = [line for line in lines if line.startswith("...")]
    assert rest == (
        [f"... and {5 - shown} more: {5 - shown} unknown_verifier"] if shown < 5 else []
    )
    assert "       5  unknown_verifier" in lines


def test_the_report_is_written_as_json(tmp_path):
    path = data(tmp_path, 1)
    assert check(path, "--json", tmp_path / "report.json") == 2
    report = json.loads((tmp_path / "report.json").read_text())
    assert (report["is_ok"], report["num_rows"], report["num_bad_rows"]) == (False, 4, 1)
    assert report["rows_by_source"] == {"made": 4}
    assert report["problems_by_kind"] == {"unknown_verifier": 1}
    (problem,) = report["problems"]
    assert (problem["file"], problem["row"], problem["field"]) == (
        *("train_a.parquet", 1, "reward_model.verifier"),
    )
    assert report["files"] == [
        {"name": "train_a.parquet", "path": str(path), "num_rows": 4, "is_heldout": False}
    ]
    assert [item.name for item in tmp_path.iterdir() if item.name.startswith(".")] == []


def test_fix_writes_the_good_rows_and_says_so(tmp_path, capsys):
    path, out = data(tmp_path, 1, 3), tmp_path / "out"
    assert check(path, "--fix", out) == 0
    assert f"2 good rows under {out}; 2 rows left out" in capsys.readouterr().err
    assert check(out) == 0
    assert len((out / "rejects.jsonl").read_text().splitlines()) == 2


def test_fix_that_leaves_a_file_out_is_bad_input(tmp_path, capsys):
    assert check(data(tmp_path, 0, num=1), "--fix", tmp_path / "out") == 2
    assert "train_a.parquet: not written" in capsys.readouterr().err


def test_a_full_folder_is_refused_before_the_rows_are_read(tmp_path, capsys):
    (tmp_path / "mine.txt").write_text("precious")
    assert check(tmp_path / "gone.parquet", "--fix", tmp_path) == 2
    said = capsys.readouterr().err
    assert "not empty" in said and "gone.parquet" not in said


def test_held_out_files_are_named_by_an_option(tmp_path, capsys):
    train = data(tmp_path)
    write_samples([sample(9, png(2), extra={})], tmp_path / "other.parquet")
    assert check(train, "--heldout", tmp_path / "other.parquet") == 2
    assert "train_a.parquet row 2 (id row-2): images is" in capsys.readouterr().err
    assert check(train, tmp_path / "other.parquet") == 0


def test_images_are_decoded_only_when_asked(tmp_path):
    damaged = bytearray(png(1, (40, 40)))
    damaged[2000:2100] = bytes(100)
    path = tmp_path / "train_a.parquet"
    write_samples([sample(0, bytes(damaged), extra={})], path)
    assert check(path) == 0
    assert check(path, "--decode-images") == 2


def test_a_negative_number_of_problems_is_refused(tmp_path, capsys):
    assert check(data(tmp_path), "--max-problems", "-1") == 2
    assert "--max-problems is -1; allowed: 0 or more" in capsys.readouterr().err


def test_the_json_schema_is_printed(capsys):
    assert main(["data", "schema"]) == 0
    assert json.loads(capsys.readouterr().out) == json_schema()


def test_checking_loads_no_torch(tmp_path):
    code = (
        "import sys; from recipes.cli import main; "
        f"done = main(['data', 'check', {str(data(tmp_path))!r}]); "
        "print(done, {'torch', 'transformers'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "0 set()"
