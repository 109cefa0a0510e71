"""Bad rows stop `vl data check` and `vl train` before torch is loaded, each named with a remedy."""

import io
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from data_specs import ImageRef, Message, RewardSpec, Sample, write_samples
from recipes.cli import main


def picture(seed=0):
    data = io.BytesIO()
    noise = np.random.default_rng(seed).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(data, format="PNG")
    return data.getvalue()


PNG = picture()


def good(number, image=PNG):
    return Sample(
        id=f"dots_{number}",
        source="dots",
        task="counting",
        messages=(Message(role="user", content="<image>how many dots?"),),
        images=(ImageRef(data=image),),
        reward=RewardSpec(verifier="number", answer="3", ground_truth="\\boxed{3}"),
    )


def unknown_verifier(row):
    row["reward_model"]["verifier"] = "nummber"


def broken_params(row):
    row["reward_model"]["verifier_parm"] = '{"relative_tolerance": '


def wrong_reference(row):
    row["reward_model"]["ground_truth"] = "three"


def missing_image(row):
    row["images"] = [{"bytes": None, "path": "nowhere/dots.png"}]


def truncated_image(row):
    row["images"] = [{"bytes": PNG[: len(PNG) // 2], "path": None}]


def planted(tmp_path, spoil):
    """A file of three rows of which row 1 is spoilt."""
    path = tmp_path / "test_counting_dots_3.parquet"
    write_samples([good(number) for number in range(3)], path)
    table = pq.read_table(path)
    rows = table.to_pylist()
    spoil(rows[1])
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), path)
    return path


def heldout(tmp_path, image):
    """A file of one good row about another picture."""
    (tmp_path / "held").mkdir()
    path = tmp_path / "held" / "held.parquet"
    write_samples([good(0, image)], path)
    return path


FAULTS = [
    (unknown_verifier, "reward_model.verifier", "'nummber'", "did you mean 'number'"),
    (broken_params, "verifier_parm", "relative_tolerance", "JSON"),
    (wrong_reference, "reward_model.ground_truth", "'three'", "or change the verifier"),
    (missing_image, "images", "nowhere/dots.png", ""),
    (truncated_image, "images", "PNG", ""),
]


@pytest.mark.parametrize(("spoil", "field", "value", "remedy"), FAULTS)
@pytest.mark.parametrize("command", ["check", "train"])
def test_a_bad_row_is_named_with_its_remedy(command, spoil, field, value, remedy, tmp_path, capsys):
    path, out = planted(tmp_path, spoil), tmp_path / "run"
    words = {
        "check": ["data", "check", str(path)],
        "train": [
            *("train", "orsta_tiny", "--smoke", "--out", str(out)),
            *("--data.train_files", str(path)),
            *("--data.heldout_files", str(heldout(tmp_path, picture(1)))),
        ],
    }[command]
    assert main(words) == 2
    said = capsys.readouterr().err
    (line,) = [line for line in said.splitlines() if line.startswith(path.name)]
    assert line.startswith(f"{path.name} row 1 (id dots_1): ")
    for part in (field, value, remedy, "allowed: "):
        assert part in line
    assert len(line.rpartition(". ")[2]) > 10  # a remedy
    assert not out.exists()


@pytest.mark.parametrize("more", [[], ["--check"]])
def test_a_held_out_picture_that_is_trained_on_stops_the_run(more, tmp_path, capsys):
    path = planted(tmp_path, lambda row: None)
    words = ["train", "orsta_tiny", "--smoke", "--out", str(tmp_path / "run"), *more]
    words += ["--cache", str(tmp_path / "cache"), "--train_files", str(path)]
    assert main([*words, "--heldout_files", str(heldout(tmp_path, PNG))]) == 2
    said = capsys.readouterr().err
    assert "row 0 (id dots_0): images is 'in a held-out row too'; allowed:" in said
    assert "row 0 of held.parquet (id dots_0)" in said and "Remove this row" in said


def test_rows_without_annotation_pass_the_check_of_a_run(tmp_path, capsys):
    path = planted(tmp_path, lambda row: None)
    words = ["train", "orsta_tiny", "--smoke", "--check", "--out", str(tmp_path / "run")]
    words += ["--cache", str(tmp_path / "cache"), "--train_files", str(path)]
    words += ["--data.rl_weights", "{}", "--heldout_files", str(heldout(tmp_path, picture(1)))]
    assert main(words) == 0
    said = capsys.readouterr().out
    assert "4 (1 held out) with 2 different images" in said and "align" not in said


def test_good_rows_pass_and_are_counted(tmp_path, capsys):
    path = planted(tmp_path, lambda row: None)
    assert main(["data", "check", str(tmp_path)]) == 0
    said = capsys.readouterr().out.split()
    assert said[:2] == ["3", "dots"] and "1 different images" in " ".join(said)
    assert main(["data", "show", str(path), "--num", "2", "--save", str(tmp_path / "p")]) == 0
    shown = capsys.readouterr().out
    assert shown.count("how many dots?") == 2 and "\\boxed{3}" in shown
    with Image.open(tmp_path / "p" / "dots_0_0.png") as saved:
        assert saved.size == (64, 64)


def test_every_problem_is_listed(tmp_path, capsys):
    path = tmp_path / "test_counting_dots_3.parquet"
    spec = good(0).reward
    rows = [
        replace(good(n), reward=replace(spec, ground_truth=truth))
        for n, truth in enumerate(("three", "\\boxed{3}", "many"))
    ]
    write_samples(rows, path)
    assert main(["data", "check", str(path)]) == 2
    said = capsys.readouterr().err
    assert "2 problems in 3 rows" in said and "row 0" in said and "row 2" in said


def test_rows_are_checked_before_torch_is_loaded(tmp_path):
    path, other = planted(tmp_path, unknown_verifier), heldout(tmp_path, picture(1))
    code = (
        "import sys; from recipes.cli import main; "
        f"done = main(['train', 'orsta_tiny', '--out', {str(tmp_path / 'run')!r}, "
        f"'--train_files', {str(path)!r}, '--heldout_files', {str(other)!r}]); "
        "print(done, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["2", "False"], done.stderr


@pytest.mark.parametrize("command", [["data", "check"], ["eval", "--model", "m", "--out", "o"]])
def test_a_file_that_is_absent_is_named(command, tmp_path, capsys):
    assert main([*command, str(tmp_path / "no.parquet")]) == 2
    assert "no.parquet" in capsys.readouterr().err
