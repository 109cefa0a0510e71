"""The page as a reader gets it: right numbers, right places, nothing fetched, nothing executed."""

import json
import re
from html.parser import HTMLParser

import pytest
from synthetic_run import SOURCES, answer, make_run

from vl.report import render_report
from vl.rundir import RunDirError, read_eval, read_eval_rollouts

VOID = {"meta", "br", "hr", "img", "input", "link"}


class Page(HTMLParser):
    """Elements as (tag, attributes, text inside), in document order; checks that tags nest."""

    def __init__(self, path):
        super().__init__()
        self.elements, self._open = [], []
        self.feed(path.read_text(encoding="utf-8"))
        assert not self._open

    def handle_starttag(self, tag, attrs):
        self.elements.append([tag, dict(attrs), ""])
        if tag not in VOID:
            self._open.append((tag, len(self.elements) - 1))

    def handle_startendtag(self, tag, attrs):
        self.elements.append([tag, dict(attrs), ""])

    def handle_endtag(self, tag):
        assert self._open.pop()[0] == tag

    def handle_data(self, data):
        for _, index in self._open:
            self.elements[index][2] += data

    def find(self, tag, class_name=None):
        return [
            (attrs, text)
            for name, attrs, text in self.elements
            if name == tag and (class_name is None or class_name in attrs.get("class", "").split())
        ]

    def inside(self, tag, **wanted):
        """Elements after the one with these attributes, up to the next element of the same tag."""
        names = {key.replace("_", "-"): value for key, value in wanted.items()}
        for start, (name, attrs, _) in enumerate(self.elements):
            if name == tag and names.items() <= attrs.items():
                rest = self.elements[start + 1 :]
                ends = (i for i, (other, _, _) in enumerate(rest) if other == tag)
                return rest[: next(ends, len(rest))]
        raise AssertionError(f"no <{tag}> with {names}")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("runs") / "run")


@pytest.fixture(scope="module")
def page(run):
    return Page(render_report(run))


def percent(value):
    return f"{100 * value:.1f}".replace("-", "−")


def test_the_tables_hold_the_numbers_of_eval_json(run, page):
    evaluation = read_eval(run)
    rows = [("macro", None, "Macro average")]
    rows += [("task", task, task) for task in SOURCES]
    rows += [("source", source, source) for names in SOURCES.values() for source in names]
    for measure in ("greedy", "avg@8", "pass@8"):
        table = page.inside("table", data_table=measure)
        for kind, key, name in rows:
            start = next(
                i
                for i, (tag, attrs, _) in enumerate(table)
                if tag == "tr" and attrs.get("data-row") == name
            )
            cells = [text for tag, attrs, text in table[start:] if attrs.get("class") == "mean"][:4]
            expected = []
            for phase in ("init", "sft", "rl", "control"):
                scores = evaluation["phases"][phase][kind]
                expected.append(percent((scores if key is None else scores[key])[measure]["mean"]))
            assert cells == expected, (measure, name)


def test_a_difference_is_coloured_exactly_if_its_interval_is_clear_of_zero(run, page):
    differences = read_eval(run)["differences"]
    expected = []
    for part in ("macro", *SOURCES):
        for name in ("rl - sft", "rl - control"):
            scores = differences[name]
            value = (scores["macro"] if part == "macro" else scores["task"][part])["avg@8"]
            clear = value["low"] > 0 or value["high"] < 0
            direction = ("up" if value["mean"] > 0 else "down") if clear else "flat"
            expected.append((direction, f"{100 * value['mean']:+.1f}".replace("-", "−")))
    table = page.inside("table", data_table="avg@8")
    shown = [
        (attrs["class"].split()[1], text.lstrip("▲▼ "))
        for tag, attrs, text in table
        if tag == "span" and attrs.get("class", "").startswith("diff ")
    ]
    assert shown == expected
    assert {direction for direction, _ in shown} >= {"up", "flat"}  # the case tests both


def test_the_headline_says_what_rl_did_with_numbers(run, page):
    evaluation = read_eval(run)
    before, after = (evaluation["phases"][p]["macro"]["avg@8"]["mean"] for p in ("sft", "rl"))
    ((_, headline),) = page.find("p", "verdict")
    assert headline.startswith(
        f"RL raised the macro average from {percent(before)} to {percent(after)} (+"
    )


def test_the_page_asks_for_nothing_outside_itself(run, page):
    text = (run / "report.html").read_text()
    assert not re.search(r"(?i)https?:|@import|url\((?!data:)", text)
    for _, attrs, _ in page.elements:
        for name in ("src", "href", "xlink:href", "srcset", "action", "data"):
            assert attrs.get(name, "#").startswith(("#", "data:image/png;base64,"))
    policies = [a["content"] for a, _ in page.find("meta") if "http-equiv" in a]
    assert policies and policies[0].startswith("default-src 'none'")


def test_boxes_lie_where_the_answers_say(run, page):
    rows = {row["id"]: row for row in read_eval_rollouts(run, "rl") if row["task"] == "detection"}
    cards = [a for a, _ in page.find("article") if a["data-task"] == "detection"]
    assert len(cards) == len(rows) == 12
    drawn = {}
    current = None
    for tag, attrs, text in page.elements:
        if tag == "article":
            current = None
        if tag == "span" and attrs.get("class") == "id":
            current = text
        if tag == "figure" and "data-phase" in attrs:
            phase = attrs["data-phase"]
        if tag == "rect" and current in rows and phase == "rl":
            kind = attrs["class"].split()
            if kind[0] == "box":
                corner = [float(attrs[name]) for name in ("x", "y", "width", "height")]
                drawn.setdefault((current, kind[1]), []).append(corner)
    for row_id, row in rows.items():
        truth = corners_in(row["ground_truth"])
        predicted = corners_in(row["greedy"]["response"])
        assert drawn[row_id, "true"] == truth and len(truth) == 2
        assert drawn[row_id, "predicted"] == predicted


def corners_in(text):
    found = re.findall(r"\[(\d+), (\d+), (\d+), (\d+)\]", text)
    boxes = [[float(value) for value in box] for box in found]
    return [[x1, y1, x2 - x1, y2 - y1] for x1, y1, x2, y2 in boxes]


def test_unscored_counts_are_shown_and_zero_is_a_zero(page):
    table = page.inside("section", id="unscored")
    for source, training in (("digit_sums", "0"), ("grid_rules", "12")):
        start = next(i for i, (_, attrs, _) in enumerate(table) if attrs.get("data-row") == source)
        cells = [text for tag, _, text in table[start + 1 : start + 8] if tag == "td"]
        assert cells[1:] == ["0", "0", "0", "0", training]
        assert ("sick" in table[start][1].get("class", "")) == (training != "0")


def test_each_image_is_stored_once(page):
    images = [attrs["id"] for attrs, _ in page.find("image")]
    used = [attrs["href"].removeprefix("#") for attrs, _ in page.find("use")]
    assert len(images) == len(set(images)) == 17 * 3  # 17 sources, two rows an image
    assert set(used) == set(images)


HOSTILE = [
    "</script><script>alert(1)</script>",
    "</style><img src=x onerror=alert(1)>",
    '"><svg onload=alert(1)>',
    "{{ 7 * 7 }} {% for x in y %}",
    "lone \ud83d surrogate, NUL \x00, bell \x07",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_text_of_a_model_is_shown_and_never_executed(run, tmp_path, text):
    path = tmp_path / "run" / "eval" / "rl" / "rollouts.jsonl"
    path.parent.mkdir(parents=True)
    (tmp_path / "run" / "config.json").write_text(json.dumps({"recipe": text}))
    row = read_eval_rollouts(run, "rl")[0]
    words = dict.fromkeys(("id", "source", "task", "question", "prompt", "reference"), text)
    greedy = {**row["greedy"], "response": text, "reason": text, "status": text}
    path.write_text(json.dumps({**row, **words, "greedy": greedy, "samples": [greedy]}) + "\n")
    report = Page(render_report(tmp_path / "run"))
    assert len(report.find("script")) == 1 and len(report.find("style")) == 1
    assert not report.find("img")
    assert not any(name.startswith("on") for _, attrs, _ in report.elements for name in attrs)
    shown = text.translate({0: "\u2400", 7: "\u2407", 0xD83D: "\ufffd"})
    assert [found for _, found in report.find("pre")][:2] == [shown, shown]


def test_a_run_in_progress_is_rendered_at_every_point(tmp_path):
    whole = make_run(tmp_path / "run", rows=2, steps=3, phases=("init", "sft"))
    assert "RL has not been evaluated yet" in render_report(whole).read_text()
    (whole / "eval.json").unlink()
    assert "In progress: sft step 3 of 3." in render_report(whole).read_text()
    for folder in ("init", "sft"):
        (whole / "eval" / folder / "rollouts.jsonl").unlink()
    assert not Page(render_report(whole)).find("article")
    (whole / "metrics.jsonl").unlink()
    assert "has not finished a step" in render_report(whole).read_text()


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(RunDirError, match=r"neither config\.json nor metrics\.jsonl"):
        render_report(tmp_path)


def test_rendering_twice_gives_the_same_bytes(run):
    assert render_report(run).read_bytes() == render_report(run).read_bytes()


def test_the_helper_answers_with_the_reference_when_it_is_right():
    class Always:
        def random(self):
            return 0.0

    row = {"ground_truth": "\\boxed{3}", "task": "math"}
    assert answer(row, "rl", Always())["response"] == "\\boxed{3}"
