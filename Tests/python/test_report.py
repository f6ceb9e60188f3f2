# SPDX-License-Identifier: Apache-2.0
"""The report of a run: a page that is whole by itself, says the numbers of the record, and escapes names."""

import dataclasses
import json
import re
import sys
from html.parser import HTMLParser

import pytest
import run_records

import mest

pytest.importorskip("matplotlib")

VOID = {"meta", "br", "img", "link", "input", "hr"}


class Page(HTMLParser):
    """Checks that elements are closed in order; collects what tests ask for."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.open, self.tags, self.words, self.attributes = [], [], [], []
        self.feed(text)
        self.close()
        assert not self.open, f"not closed: {self.open}"

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attributes]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attributes]

    def handle_endtag(self, tag):
        assert self.open and self.open[-1] == tag, f"</{tag}> in {self.open[-4:]}"
        self.open.pop()

    def handle_data(self, data):
        if not {"style", "script"} & set(self.open):
            self.words.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())

    def values(self, name):
        return [value for _, known, value in self.attributes if known == name]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """(run, page, parsed page)"""
    path = tmp_path_factory.mktemp("report") / "run.jsonl"
    run_records.write(path, name="<b>x</b>&\"'")
    run = mest.read_run(path)
    text = mest.report.html(run)
    return run, text, Page(text)


@pytest.fixture
def undrawn(monkeypatch):
    """Pictures get their lines and bars, but are not rendered, which takes most of the time."""
    from matplotlib.figure import Figure

    from mest.report import _svg

    def picture(draw, alt, **size):
        draw(Figure().subplots())
        return f'<svg role="img" aria-label="{len(alt)}"></svg>'

    monkeypatch.setattr(_svg, "picture", picture)


def test_it_is_whole_by_itself(trained):
    _, text, page = trained
    assert text.startswith("<!DOCTYPE html>") and 'lang="en"' in text
    assert not {"link", "iframe", "object", "base"} & set(page.tags)
    for name in ("src", "href", "xlink:href", "data", "action"):
        for value in page.values(name):
            assert value.startswith(("data:image/png;base64,", "#")), value[:80]
    for address in re.findall(r"\w+://[^\s\"'<]*", text):
        raise AssertionError(f"refers to {address}")
    assert "@import" not in text and "default-src 'none'" in text
    assert not re.search(r"url\((?!#)", text)
    assert len(text) < 600_000


def test_ids_are_different_and_links_lead_somewhere(trained):
    _, text, page = trained
    ids = page.values("id")
    assert len(ids) == len(set(ids))
    assert all(
        value[1:] in ids for name in ("href", "xlink:href") for value in page.values(name) if value[0] == "#"
    )
    assert all(name in ids for name in re.findall(r"url\(#([\w-]+)\)", text))


def test_pictures_have_words(trained):
    _, _, page = trained
    pictures = [value for tag, name, value in page.attributes if tag == "svg" and name == "aria-label"]
    assert len(pictures) == page.tags.count("svg") >= 12 and all(len(value) > 20 for value in pictures)
    assert page.tags.count("figcaption") == page.tags.count("figure") >= 12
    assert len(page.values("alt")) == page.tags.count("img") == len(trained[0].most_forgotten["ids"])
    assert page.tags.count("h1") == 1 and page.tags.count("h2") == 8


def test_it_says_the_numbers(trained):
    run, _, page = trained
    last, plan = run.epochs[-1], run.run["plan"]
    for said in (
        f"{100 * last['validation_accuracy']:.2f} %", f"{plan['total_bytes']:,} bytes", "em&s", "completed",
        f"{len(run.mutations)} mutations", f"{sum(m['dropped'] for m in run.mutations):,}",
        f"{run.forgetting[-1]['unforgettable']:,} of 300 samples", "learning_rate=0.02",
        "mest train <digits> & more",
        run.run["libmest"], run.run["machine"], f"#{run.most_forgotten['ids'][0]}",
    ):  # fmt: skip
        assert said in page.text, said
    weights = sum(plan[name] for name in ("weight_bytes", "index_bytes", "gradient_bytes", "state_bytes"))
    assert f"{100 * weights / plan['dense_bytes']:.1f} % of the dense network" in page.text
    for epoch in run.epochs:
        assert f"{epoch['loss']:.4f}" in page.text
    for layer in run.run["layers"]:
        assert layer["name"] in page.text and f"{layer['bytes']:,}" in page.text
    known = {field.name for field in dataclasses.fields(mest.Config)}
    assert all(name in page.text for name in known)


def test_names_are_escaped(trained):
    _, text, page = trained
    assert "<b>" not in text and "&lt;b&gt;x&lt;/b&gt;" in text
    assert "b" not in page.tags


def test_colours_follow_the_scheme(trained):
    _, text, _ = trained
    assert (
        "prefers-color-scheme: dark" in text and "color-scheme: light dark" in text and "@media print" in text
    )
    pictures = re.sub(r"data:image/png;base64,[^\"]*", "", text[text.index("<body>") :])
    from mest.report._svg import INK, VARIABLES

    for colour in [*VARIABLES, "#000000", INK]:
        assert colour not in pictures, "a fixed colour is not seen in one of the schemes"
    for variable in set(re.findall(r"var\((--[\w-]+)\)", text)):
        assert f"{variable}:" in text, f"{variable} has no value"


def test_without_matplotlib_there_are_tables(trained, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    page = Page(mest.report.html(trained[0]))
    assert "pip install matplotlib" in page.text and "svg" not in page.tags and "img" not in page.tags
    assert page.tags.count("table") >= 5 and f"{trained[0].run['plan']['total_bytes']:,}" in page.text


def test_of_a_training_that_runs(trained, tmp_path, undrawn):
    """Every prefix of lines is a run that somebody may want to see."""
    lines = [json.loads(line) for line in open(trained[0].path, encoding="utf-8")]
    for count in (1, 3, len(lines) - 2):
        path = tmp_path / f"{count}.jsonl"
        path.write_text("\n".join(map(json.dumps, lines[:count])))
        page = Page(mest.report.html(path))
        assert "not ended" in page.text and "Layers" in page.text


@pytest.mark.parametrize("fields", [
    dict(method="static", samples=None), dict(density=None, method="static", epochs=1),
    dict(method="rigl", samples=None, steps_per_epoch=10),
])  # fmt: skip
def test_of_other_trainings(tmp_path, fields, undrawn):
    path = tmp_path / "run.jsonl"
    run_records.write(path, epochs=fields.pop("epochs", 2), **fields)
    page = Page(mest.report.html(path, title="A & B"))
    assert "A & B" in page.text
    assert ("Forgetting" in page.text) == bool(mest.read_run(path).run["config"]["samples"])


def test_of_a_regression(tmp_path, undrawn):
    path = tmp_path / "run.jsonl"
    model = mest.Model(mest.mlp(4, [8], 2), loss="mse", epochs=2, batch=8, learning_rate=0.01, density=0.5)
    model.fit([[1.0] * 4] * 16, [[1.0, 2.0]] * 16, progress=False, callbacks=[mest.record(path)])
    page = Page(mest.report.html(path))
    assert "accuracy" not in page.text.split("All 2 epochs")[0] and "In the end loss" in page.text
    assert "nan" not in page.text.lower()


def test_of_a_failure(tmp_path, undrawn):
    path = tmp_path / "run.jsonl"

    def fails(_):
        raise RuntimeError("the <disk> is full")

    with pytest.raises(RuntimeError):
        mest.Model(mest.mlp(4, [8], 2), epochs=2, batch=8).fit(
            [[1.0] * 4] * 16, [0, 1] * 8, progress=False, callbacks=[mest.record(path), fails]
        )
    page = Page(mest.report.html(path))
    assert "failed" in page.text and "RuntimeError: the <disk> is full" in page.text


def test_a_file_is_replaced_as_a_whole(trained, tmp_path):
    path = tmp_path / "page.html"
    mest.report.write(trained[0], path)
    assert path.read_text(encoding="utf-8") == trained[1]  # the same run makes the same page
    path.write_text("what was there")
    with pytest.raises(TypeError):
        mest.report.write(object(), path)
    assert path.read_text() == "what was there" and [p.name for p in tmp_path.iterdir()] == ["page.html"]


def test_of_samples_that_are_no_pictures(trained, undrawn):
    """Two channels can be recorded; the page has their numbers alone."""
    most = {"ids": [7], "counts": [2], "images": [[[[0.0, 1.0]], [[1.0, 0.0]]]]}
    page = Page(mest.report.html(dataclasses.replace(trained[0], most_forgotten=most)))
    assert "#7" in page.text and "img" not in page.tags
