"""The report: its figures are the ledgers', and no text of a corpus can do anything in it.

The page is opened in a real Chromium where there is one; `.ci/run` installs it.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, ConsoleMessage, Error, Page, Request, expect, sync_playwright

from corpus.pipeline.dedup import stage as dedup
from corpus.pipeline.documents import stage as ingest
from corpus.pipeline.download import stage as download
from corpus.pipeline.errors import DamageError
from corpus.pipeline.manifest import CORPORA
from corpus.pipeline.pack import stage as pack
from corpus.pipeline.report import build, examples, facts, page
from corpus.pipeline.report.charts import bars, lines
from corpus.pipeline.tokenizer import files
from corpus.pipeline.tokenizer import stage as tokenizer
from corpus.pipeline.workspace.layout import Workspace
from corpus.pipeline.workspace.ledger import read_ledger
from tests.support.records import MIRROR, Shared
from tests.support.report import fill

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")


@pytest.fixture(scope="module")
def filled(shared: Shared, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    made = shared("report", fill) / "workspace"
    copy = tmp_path_factory.mktemp("report") / "workspace"
    return Workspace(shutil.copytree(made, copy, ignore=shutil.ignore_patterns(".lock*")))


@pytest.fixture(scope="module")
def path(filled: Workspace) -> Path:
    return build.run(build.ReportConfig(), filled)


class Tags(HTMLParser):
    """Every tag of a page with its attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


def numbers(path: Path) -> dict[str, int]:
    """The figures of a page by what they are."""
    found = Tags(path.read_text(encoding="utf-8")).tags
    return {own["data-key"]: int(own["data-n"] or "") for _, own in found if own.get("data-key")}  # type: ignore[misc]


def check_figures(shown: dict[str, int], workspace: Workspace, name: str) -> int:
    """The figures of a dataset are those of its ledgers; returns its records."""
    documents, packed = read_ledger(workspace.documents(name)), read_ledger(workspace.packed(name))
    assert documents
    assert packed
    assert shown[f"{name}.records"] == documents.counts["records"]
    assert shown[f"{name}.documents"] == documents.counts["documents"]
    assert shown[f"{name}.used"] == sum(split["documents"] for split in packed.counts["splits"].values())
    assert shown[f"text.{name}.rows"] == sum(split["rows"] for split in packed.counts["splits"].values())
    assert shown[f"{name}.tokens"] == packed.counts["splits"]["train"]["tokens"]
    for split, counts in documents.counts["splits"].items():
        assert shown[f"{name}.{split}.documents"] == counts
    records: int = documents.counts["records"]
    return records


def test_figures_are_those_of_the_ledgers(filled: Workspace, path: Path) -> None:
    shown, total = numbers(path), 0
    for name in ("baike2018qa", "translation2019zh"):
        total += check_figures(shown, filled, name)
    assert shown["total.records"] == total
    assert shown["baike2018qa.contaminated"] == 1
    found = read_ledger(filled.dedup)
    assert found
    assert shown["pairs.baike2018qa.baike2018qa"] == found.counts["pairs"]["baike2018qa"]["baike2018qa"] >= 3
    run = read_ledger(filled.models / "small")
    assert run
    assert shown["small.parameters"] == run.counts["parameters"]
    assert shown["small.tokens"] == run.counts["tokens"]
    assert '<span class="prompt">先想</span>' in path.read_text(encoding="utf-8")


def test_the_books_of_a_dataset_balance(filled: Workspace) -> None:
    for each in facts.gather(filled).datasets:
        assert each.records == each.documents + sum(each.dropped.values())
        assert each.documents == each.used + sum(each.left_out.values())
        assert sum(split.get("tokens", 0) for split in each.splits.values()) + each.padding == each.slots


def test_texts_of_a_corpus_are_only_text(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    tags = Tags(text).tags
    kinds = [own.get("type") for tag, own in tags if tag == "script"]
    assert kinds == ["application/json", None]
    assert not [tag for tag, _ in tags if tag in {"img", "link", "iframe", "object", "embed", "base"}]
    assert not [own for _, own in tags if "style" in own or any(name.startswith("on") for name in own)]
    assert not [own for _, own in tags if re.match(r"(?!#|application)", own.get("href") or own.get("src") or "#")]
    assert "document.title='taken'" in text.replace("&#39;", "'")  # it is there, to be read
    assert "\u202e" not in text
    assert "⟨202E⟩" in text
    assert len(text) < 2_000_000  # in spite of a line of a million characters
    assert "长" * 3000 not in text


def test_the_policy_names_what_is_in_the_page(path: Path) -> None:
    (policy,) = [own["content"] for tag, own in Tags(path.read_text(encoding="utf-8")).tags if "http-equiv" in own]
    assert policy is not None
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "unsafe" not in policy


def test_equal_workspaces_and_seeds_give_equal_pages(filled: Workspace, path: Path) -> None:
    first = path.read_bytes()
    assert build.run(build.ReportConfig(), filled).read_bytes() == first
    assert build.run(build.ReportConfig(seed=2), filled).read_bytes() != first
    assert build.run(build.ReportConfig(), filled).read_bytes() == first


@pytest.mark.parametrize(
    "left", [(), ("raw",), ("raw", "documents"), ("tokenizer",), ("models", "packed", "chat", "dedup")]
)
def test_a_workspace_that_holds_only_some_has_a_report_too(
    filled: Workspace, tmp_path: Path, left: tuple[str, ...]
) -> None:
    part = Workspace(tmp_path / "part")
    shutil.copytree(filled.root, part.root, ignore=shutil.ignore_patterns(".lock*", "report"))
    for area in left or ("raw", "documents", "tokenizer", "models", "packed", "chat", "dedup", "decontaminate"):
        shutil.rmtree(part.root / area)
    text = build.run(build.ReportConfig(), part).read_text(encoding="utf-8")
    assert ("no documents yet" in text) == (not left or "documents" in left)
    assert ('data-state="dropped"' in text) == (bool(left) and "raw" not in left)


def test_it_can_be_made_while_another_command_writes(filled: Workspace) -> None:
    with filled.writing("train"):
        assert build.run(build.ReportConfig(), filled).is_file()


def test_half_a_line_of_a_run_at_work_is_passed_over(filled: Workspace, tmp_path: Path) -> None:
    part = Workspace(tmp_path / "part")
    shutil.copytree(filled.root, part.root, ignore=shutil.ignore_patterns(".lock*"))
    folder = part.models / "small"
    (folder / "ledger.json").unlink()
    with (folder / "metrics.jsonl").open("ab") as file:
        file.write(b'{"step": 9, "lo')
    (run,) = facts.gather(part).runs
    assert not run.counts
    assert run.points("loss")
    assert "not finished" in build.run(build.ReportConfig(), part).read_text(encoding="utf-8")


def test_runs_of_any_name_and_damaged_figures_are_shown(filled: Workspace, tmp_path: Path) -> None:
    part = Workspace(tmp_path / "part")
    shutil.copytree(filled.root, part.root, ignore=shutil.ignore_patterns(".lock*"))
    shutil.copytree(part.models / "small", part.models / "a\\slash \"(x)'")
    (part.models / "odd").mkdir()
    (part.models / "odd" / "run.json").write_text('{"config": null}')
    (part.models / "odd" / "samples.jsonl").write_text('{"step": 1}\n')
    figures = [
        '{"step": 1, "loss": NaN}',
        '{"step": 2, "loss": 1e308}',
        '{"step": 3, "loss": Infinity}',
        '{"step": 4, "loss": 2}',
    ]
    (part.models / "odd" / "metrics.jsonl").write_text("\n".join(figures))
    text = build.run(build.ReportConfig(), part).read_text(encoding="utf-8")
    assert "a\\slash" in text
    assert facts.gather(part).runs[1].points("loss") == [(4, 2)]


@pytest.mark.parametrize("bytes_left", [0, 700])
def test_a_damaged_shard_of_rows_is_named(filled: Workspace, tmp_path: Path, bytes_left: int) -> None:
    part = Workspace(tmp_path / "part")
    shutil.copytree(filled.root, part.root, ignore=shutil.ignore_patterns(".lock*"))
    for path in part.packed("baike2018qa").rglob("data-*.arrow"):
        path.write_bytes(path.read_bytes()[:bytes_left])
    with pytest.raises(DamageError, match=r"data-00000\.arrow cannot be read"):
        build.run(build.ReportConfig(), part)


def test_a_picture_has_its_numbers_and_its_words() -> None:
    chart = bars(
        "k", "lost", page.said("lost", "too_short 823"), {"too_short": 823, "a<b>": 2}, whole=1000, logarithmic=True
    )
    assert chart.rows == [("too_short", "823 · 82.30%"), ("a<b>", "2 · 0.20%")]
    assert 'role="img"' in chart.svg
    assert "too_short 823" in chart.svg
    assert "a&lt;b&gt;" in chart.svg
    assert "<b>" not in chart.svg
    assert "style" not in chart.svg
    assert "#" not in re.sub(r'(href="#|url\(#)', "", chart.svg)  # every colour is a class


def test_a_curve_of_one_point_is_drawn() -> None:
    assert "<path" in lines("k", "loss_chart", page.said("loss_chart", ""), {"loss": [(1, 2.0)]}).svg


def test_classes_of_characters() -> None:
    assert examples.class_of("㐀") == "Han"
    assert examples.class_of("〇") == "Han"
    assert examples.class_of("Ａ") == "Latin"
    assert examples.class_of("か") == "other_letters"
    assert examples.class_of("\u200b") == "other"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("no Chromium here (Debian: apt-get install chromium)")
    quiet = ["--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
    quiet += ["--disable-component-update", "--disable-sync", *(["--no-sandbox"] if os.getuid() == 0 else [])]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=quiet)
        yield browser
        browser.close()


@pytest.fixture
def opened(browser: Browser, path: Path) -> Iterator[Page]:
    """The page; at the end of each test nothing was complained about and nothing asked for."""
    context = browser.new_context(viewport={"width": 1100, "height": 900}, locale="en-US")
    tab = context.new_page()
    complaints: list[str] = []

    def heard(message: ConsoleMessage) -> None:
        complaints.append(message.text)

    def failed(error: Error) -> None:
        complaints.append(str(error))

    def asked(request: Request) -> None:
        if request.url.partition("#")[0] != path.as_uri():
            complaints.append(request.url)

    tab.on("console", heard)
    tab.on("pageerror", failed)
    tab.on("request", asked)
    tab.goto(path.as_uri())
    yield tab
    assert tab.title() == "corpus report"
    assert complaints == []
    context.close()


def test_every_part_is_reached_by_its_link(opened: Page) -> None:
    links = opened.locator("nav a")
    assert links.count() == 9
    for number in range(links.count()):
        link = links.nth(number)
        link.click()
        target = link.get_attribute("href")
        assert target
        expect(opened.locator(target)).to_be_in_viewport()


def test_the_box_segments_as_the_tokenizer_does(opened: Page, filled: Workspace) -> None:
    model = files.load(filled.tokenizer)
    texts = [
        "先想清楚第7个问题问的是什么，再用自己的话慢慢说。",
        "The 3rd bridge isn't  42 meters\u3000long!\n\n  好的 \t。",
        "😀 é ü ﬁ \ufeff\u200b\u0085x<b>&amp;</b> \u2028 ١٢٣ かな 한국 𠀀",
        "<|endoftext|> <|user|>",
        "'s 'll I'LL 100,000.5 ……——（一）",
        "",
    ]
    for text in texts:
        opened.locator("#try").fill(text)
        opened.evaluate("document.getElementById('try').dispatchEvent(new Event('input'))")
        typed = opened.evaluate("document.getElementById('try').value")
        ids = [
            int(each or "") for each in opened.locator("#pieces li").evaluate_all("all => all.map(n => n.dataset.id)")
        ]
        assert ids == model.encode(typed, add_special_tokens=False).ids, typed
        assert int(opened.locator("#token-count").inner_text()) == len(ids)
        assert int(opened.locator("#character-count").inner_text()) == len(typed)


def test_a_very_long_text_in_the_box_is_survived(opened: Page) -> None:
    opened.evaluate(
        "t => { const b = document.getElementById('try'); b.value = t; b.dispatchEvent(new Event('input')); }",
        "长" * 50_000,
    )
    assert int(opened.locator("#character-count").inner_text()) == 50_000
    assert opened.locator("#pieces li").count() == 2_000


def test_search_and_filters_hide_what_is_not_asked_for(opened: Page, path: Path) -> None:
    everything = opened.locator(".document").count()
    opened.locator("#search").fill("document.title")
    hostile = opened.locator(".document:visible")
    assert 0 < hostile.count() < everything
    assert int(opened.locator("#found").inner_text()) == hostile.count()
    opened.locator("#search").fill("没有人写过这样的话")
    expect(opened.locator("#nothing")).to_be_visible()
    expect(opened.locator("#needs-script")).to_be_hidden()
    opened.locator("#search").fill("")
    opened.locator("#by-state").select_option("dropped")
    opened.locator("#by-reason").select_option("too_short")
    for state in opened.locator(".document:visible .state").all_inner_texts():
        assert state == "dropped"
    opened.locator("#by-dataset").select_option("translation2019zh")
    expect(opened.locator("#nothing")).to_be_visible()


def test_what_was_changed_is_marked_side_by_side(opened: Page) -> None:
    opened.locator("#by-state").select_option("changed")
    opened.locator("#by-reason").select_option("mobile_number")
    first = opened.locator(".document:visible").first
    assert first.locator("del").count() >= 1
    assert "[手机号]" in "".join(first.locator("ins").all_inner_texts())
    assert first.locator(".sides > div").count() == 2
    first.locator("summary").click()
    expect(first.locator("pre")).to_contain_text("corpus trace --dataset baike2018qa --document ")


def test_language_and_colours_are_chosen_by_button(opened: Page) -> None:
    expect(opened.locator("#overview-heading")).to_have_text("Overview总览")
    assert opened.locator("#overview-heading").inner_text() == "Overview"
    opened.locator("#language").click()
    assert opened.locator("#overview-heading").inner_text() == "总览"
    assert opened.evaluate("document.documentElement.lang") == "zh"
    assert (opened.locator(".chart svg").first.get_attribute("aria-label") or "").startswith("各数据集的训练词元")
    light = opened.evaluate("getComputedStyle(document.body).backgroundColor")
    opened.locator("#scheme").click()
    assert opened.evaluate("getComputedStyle(document.body).backgroundColor") != light
    assert opened.locator("#scheme").get_attribute("aria-pressed") == "true"


def test_a_piece_of_a_row_says_what_it_is_by_pointer_and_keyboard(opened: Page) -> None:
    strip = opened.locator(".strip").first
    strip.locator(".segment").first.hover()
    assert re.match(r"0\+\d+", strip.locator(".say").inner_text())
    strip.locator(".segment").last.focus()
    said = strip.locator(".segment").last.get_attribute("data-say")
    assert said
    expect(strip.locator(".say")).to_contain_text(said[:10])


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1100])
def test_it_is_accessible_on_a_phone_and_in_the_dark(browser: Browser, path: Path, scheme: Any, width: int) -> None:
    context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme)
    tab = context.new_page()
    context.set_default_timeout(60_000)
    tab.goto(path.as_uri())
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    result = Axe().run(tab)
    assert result.violations_count == 0, json.dumps(
        [(each["id"], each["nodes"][:2]) for each in result.response["violations"]]
    )
    context.close()


def test_without_scripts_it_can_be_read(browser: Browser, path: Path) -> None:
    context = browser.new_context(java_script_enabled=False)
    tab = context.new_page()
    tab.goto(path.as_uri())
    expect(tab.locator("#overview-heading")).to_be_visible()
    expect(tab.locator(".document").first).to_be_visible()
    expect(tab.get_by_text("This box needs JavaScript.")).to_be_visible()
    context.close()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """All five corpora's sample, from archives to rows."""
    if not (MIRROR / "SHA256SUMS").is_file():
        pytest.skip("the shared sample of real text is not here")
    workspace = Workspace(tmp_path_factory.mktemp("whole") / "workspace")
    with workspace.writing("test"):
        for name in CORPORA:
            download.run(download.DownloadConfig(dataset=name, source=str(MIRROR)), workspace)
            ingest.run(ingest.IngestConfig(dataset=name), workspace)
        dedup.run(dedup.DedupConfig(), workspace)
        tokenizer.run(tokenizer.TokenizerConfig(vocab_size=32_000), workspace)
        for name in CORPORA:
            pack.run(pack.PackConfig(dataset=name), workspace)
    return workspace


@pytest.mark.slow
def test_the_report_of_the_whole_sample(browser: Browser, whole: Workspace) -> None:
    """Every part is opened, typed into, switched and read back against the ledgers; nothing is complained about."""
    path = build.run(build.ReportConfig(), whole)
    assert path.stat().st_size < 10_000_000
    shown, complaints = numbers(path), []
    for name in CORPORA:
        check_figures(shown, whole, name)
    context = browser.new_context(viewport={"width": 1100, "height": 900}, locale="en-US")
    context.set_default_timeout(120_000)
    tab = context.new_page()
    tab.on("console", lambda message: complaints.append(message.text))
    tab.on("pageerror", lambda error: complaints.append(str(error)))
    tab.on("request", lambda request: complaints.append(request.url))
    tab.goto(path.as_uri())
    assert complaints == [path.as_uri()]
    for link in tab.locator("nav a").all():
        link.click()
        expect(tab.locator(link.get_attribute("href") or "")).to_be_in_viewport()
    model = files.load(whole.tokenizer)
    texts = [text[:400] for name in CORPORA for text in _some_texts(whole, name)]
    for text in texts:
        tab.locator("#try").fill(text)
        typed = tab.evaluate("document.getElementById('try').value")
        ids = [int(each or "") for each in tab.locator("#pieces li").evaluate_all(_IDS)]
        assert ids == model.encode(typed, add_special_tokens=False).ids, typed
    tab.locator("#by-state").select_option("dropped")
    tab.locator("#by-dataset").select_option("webtext2019zh")
    dropped = tab.locator(".document:visible").count()
    assert 0 < dropped == int(tab.locator("#found").inner_text())
    tab.locator("#search").fill("too_short")
    assert 0 < tab.locator(".document:visible").count() <= dropped
    for width, colours in ((1100, False), (360, True)):
        tab.set_viewport_size({"width": width, "height": 900})
        tab.locator("#language").click()
        if colours:
            tab.locator("#scheme").click()
        assert tab.evaluate("document.documentElement.scrollWidth") <= width
        assert Axe().run(tab).violations_count == 0
    assert [each for each in complaints if not each.startswith(path.as_uri())] == []
    context.close()


_IDS = "all => all.map(node => node.dataset.id)"


def _some_texts(workspace: Workspace, name: str) -> list[str]:
    table = pq.read_table(workspace.documents(name) / "part-00000.parquet", columns=["text"])
    found: list[str] = table["text"].slice(0, 4000).to_pylist()[::500]
    return found
