import base64
import hashlib
import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from plotly.offline import get_plotlyjs

from kneepoint.reports import RunView, write_report
from kneepoint.reports.html import report_html
from kneepoint.tasks.errors import RunError

WriteRun = Callable[..., Path]
EVIL = "</script><script>alert('evil')</script><img src=x onerror=alert(1)>\x1b[2J"


class Page(HTMLParser):
    """What a browser makes of a report: its tags, its text outside scripts, its scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._open = [tag] if tag in ("script", "style") else []
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        self._open = []

    def handle_data(self, data: str) -> None:
        if self._open == ["script"]:
            self.scripts[-1] += data
        elif not self._open:
            self.text += data

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="module")
def report(run_directory: Path) -> str:
    return report_html(RunView.read(run_directory))


@pytest.fixture(scope="module")
def page(report: str) -> Page:
    return Page(report)


def figures(page: Page) -> dict[str, Any]:
    found = [attributes for attributes in page.named("script") if attributes.get("type") == "application/json"]
    data = [json.loads(text) for text in page.scripts if text.startswith("{")]
    return {str(attributes["id"]): content for attributes, content in zip(found, data, strict=True)}


def test_writes_one_file_into_the_run(make_run: WriteRun) -> None:
    directory = make_run()
    before = {one.name for one in directory.iterdir()}
    path = write_report(str(directory))
    assert path == directory / "report.html"
    assert {one.name for one in directory.iterdir()} == before | {"report.html"}
    assert path.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")


def test_loads_nothing(report: str, page: Page) -> None:
    assert report.count(get_plotlyjs()) == 1
    rest = report.replace(get_plotlyjs(), "")
    assert not re.search(r"https?://|@import|url\(|//cdn", rest)
    assert not any("src" in attributes for _, attributes in page.tags)
    assert [attributes["href"] for attributes in page.named("link")] == ["data:,"]


def test_the_policy_lets_exactly_its_own_scripts_run(page: Page) -> None:
    policy = next(one["content"] for one in page.named("meta") if one.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    executed = [text for text in page.scripts if not text.startswith("{")]
    digests = {base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in executed}
    assert digests == set(re.findall("'sha256-([^']+)'", policy))
    assert len(executed) == 2


def test_says_in_words_what_was_found(page: Page) -> None:
    for words in (
        "The search for digits-resnet measured 86 trials",
        "The knee, ",
        "faster on raspberry-pi-4b than the teacher",
        "outside the charts: double-click one",
        "OutOfMemoryError: the recovery of block3.conv2 did not fit",
        "trial timed out",
        "sampler: kneepoint",
        "onnxruntime",
    ):
        assert words in page.text


def test_a_figure_for_each_cost_and_the_curve(page: Page) -> None:
    found = figures(page)
    assert list(found) == ["front-0", "front-1", "front-2", "hypervolume"]
    assert [one["data-figure"] for one in page.named("div") if "data-figure" in one] == list(found)
    assert found["front-2"]["layout"]["xaxis"]["title"]["text"] == "size_mb (MB), lower is better"


def test_every_layer_has_a_switch(page: Page) -> None:
    keys = {one["data-layer"] for one in page.named("button") if "data-layer" in one}
    assert keys == {trace["meta"] for trace in figures(page)["front-0"]["data"]}


def test_the_front_has_a_row_for_each_candidate_with_its_policy(run_directory: Path, page: Page) -> None:
    view = RunView.read(run_directory)
    ids = [one["data-id"] for one in page.named("tr") if "data-id" in one]
    assert ids[:10] == [member.id for member in view.members()]
    assert view.knee is not None
    assert [one["data-id"] for one in page.named("tr") if one.get("class") == "knee"] == [view.knee.id]
    labels = [one.get("aria-label") or "" for one in page.named("svg")]
    first = view.bits(view.members()[0].policy)
    assert "weight bits by layer: " + ", ".join(f"{name} {bits} bits" for name, bits in first.items()) in labels


def test_baselines_come_with_their_hypervolumes(page: Page) -> None:
    assert re.search(r"all baselines\s*16\s*0\.6912\s*\+17\.5%", page.text)
    assert "16 baseline candidates" in page.text
    assert "uniform 2-bit breaks a constraint" in page.text


def poison_policy(policy: dict[str, Any]) -> None:
    policy["layers"] = {EVIL + name: one for name, one in policy["layers"].items()}
    policy["keep"] = {EVIL + name: one for name, one in policy["keep"].items()}
    if policy["student"] != "teacher":
        policy["student"] = policy["student"] | {EVIL: EVIL}


def poison_front(content: dict[str, Any]) -> None:
    content["task"] = EVIL
    content["objectives"][0]["unit"] = EVIL
    content["baselines"] = {EVIL + name: entry for name, entry in content["baselines"].items()}
    for candidate in content["candidates"]:
        candidate["fidelity"] = candidate["artifact"] = EVIL
        poison_policy(candidate["policy"])


def poison_log(log: list[dict[str, Any]]) -> None:
    for record in log:
        record["worker"] = EVIL
        record["fidelity"] = EVIL
        record["error"] = record["error"] and EVIL
        poison_policy(record["policy"])


def test_names_from_a_run_are_nothing_but_text(make_run: WriteRun) -> None:
    job = json.dumps({"task": EVIL, "sampler": EVIL, "versions": {EVIL: EVIL}})
    view = RunView.read(make_run(front=poison_front, records=poison_log, job=job))
    text = report_html(view)
    hostile = Page(text)
    assert EVIL.replace("\x1b", "\\x1b") in hostile.text
    assert "<script>alert" not in text
    assert len(hostile.scripts) == 2 + len(figures(hostile))
    assert hostile.named("img") == []
    assert not any(name.startswith("on") for _, attributes in hostile.tags for name in attributes)
    assert "\x1b" not in text.replace(get_plotlyjs(), "")
    hover = figures(hostile)["front-0"]["data"][-1]["hovertext"][0]
    assert "&lt;/script&gt;" in hover
    assert "<script" not in hover


def test_objectives_with_hostile_names(make_run: WriteRun) -> None:
    def front(content: dict[str, Any]) -> None:
        content["objectives"][3]["name"] = EVIL
        content["reference"][EVIL] = content["reference"]["size_mb"]
        for candidate in content["candidates"]:
            candidate["scores"][EVIL] = candidate["scores"]["size_mb"]

    hostile = Page(report_html(RunView.read(make_run(front=front))))
    assert hostile.named("img") == []
    assert "&lt;/script&gt;" in figures(hostile)["front-2"]["layout"]["xaxis"]["title"]["text"]


def test_a_job_that_would_explode_is_shown_as_it_is_written(make_run: WriteRun) -> None:
    levels = [f"l{at}: &l{at} [{', '.join([f'*l{at - 1}'] * 9)}]" for at in range(1, 12)]
    job = "\n".join(["l0: &l0 [lol]", *levels, "sampler: *l11", "seed: *l11", "versions: {a: *l11, torch: 2.13.0}"])
    text = report_html(RunView.read(make_run(job=job)))
    assert "versions: {a: *l11" in text
    assert "<td>torch</td>" in text


def test_an_empty_front_and_no_trials(make_run: WriteRun) -> None:
    def front(content: dict[str, Any]) -> None:
        content.update(fronts={"all": []}, knee=None, candidates=[], baselines={}, teacher={}, hypervolume=0.0)

    text = Page(write_report(make_run(front=front, records=list.clear, job="task: t\n")).read_text()).text
    assert "The front is empty" in text
    assert "This run has no baselines" in text
    assert "Hypervolume over the trials" not in text
    assert "Failed trials" not in text


def test_a_single_objective_has_no_charts_of_the_front(make_run: WriteRun) -> None:
    view = RunView.read(make_run(front=lambda content: content.update(objectives=content["objectives"][:1])))
    assert list(figures(Page(report_html(view)))) == ["hypervolume"]


def test_long_lists_of_failures_are_cut(make_run: WriteRun) -> None:
    def records(log: list[dict[str, Any]]) -> None:
        failed = next(one for one in log if one["error"])
        log.extend(failed | {"id": str(at)} for at in range(300))

    assert "102 more are in trials.jsonl" in report_html(RunView.read(make_run(records=records)))


def test_a_directory_that_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"front\.json, trials\.jsonl and job\.yaml"):
        write_report(tmp_path)


def test_the_front_names_what_cannot_be_told_apart(make_run: WriteRun) -> None:
    def alike(content: dict[str, Any]) -> None:
        one, *others = content["fronts"]["all"]
        content["alike"] = {"all": {one: others[:5], others[0]: [one]}}

    page = report_html(RunView.read(make_run(front=alike)))
    assert "not told apart from" in page
    assert "and 2 more" in page
    assert "not told apart from" not in report_html(RunView.read(make_run()))
