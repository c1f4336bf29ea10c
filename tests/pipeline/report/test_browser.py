"""The report in Chromium: nothing is complained about, nothing is requested, everything can be reached.

Skipped where there is no Chromium; `.ci/run` installs it.
"""

from __future__ import annotations

import io
import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from axe_playwright_python.sync_playwright import Axe
from PIL import Image
from playwright.sync_api import Browser, ConsoleMessage, Error, Page, Request, expect, sync_playwright

from corpus.pipeline.dedup import stage as dedup
from corpus.pipeline.documents import stage as ingest
from corpus.pipeline.download import stage as download
from corpus.pipeline.manifest import CORPORA
from corpus.pipeline.pack import stage as pack
from corpus.pipeline.report import build
from corpus.pipeline.tokenizer import files
from corpus.pipeline.tokenizer import stage as tokenizer
from corpus.pipeline.workspace.layout import Workspace
from tests.support.records import MIRROR
from tests.support.report import check_figures, numbers

pytestmark = pytest.mark.browser
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")


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
    labels = set(opened.locator(".chart svg text").all_text_contents())
    assert {"记录", "文档", "使用", "汉字", "标点"} <= labels
    assert not {"records", "documents", "used", "Han", "punctuation"} & labels
    titles = opened.locator(".chart svg title").all_text_contents()
    assert any(title.startswith("记录: ") for title in titles)
    assert not any(title.startswith("records: ") for title in titles)
    assert opened.locator("#baike2018qa tbody th").all_inner_texts()[:2] == ["训练集", "验证集"]
    assert opened.locator("#overview td.whole").first.inner_text() == "语料库整体为 MIT 许可，文本本身的版权未作说明"
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


def test_a_phone_shows_the_title_in_one_line_and_that_a_table_goes_on(browser: Browser, path: Path) -> None:
    context = browser.new_context(viewport={"width": 390, "height": 800}, locale="zh-CN")
    tab = context.new_page()
    tab.goto(path.as_uri())
    title, table = tab.locator("h1").bounding_box(), tab.locator("#overview .wide").first
    assert title
    assert title["height"] < 60  # two lines take 80
    assert table.evaluate("each => each.scrollWidth > each.clientWidth")

    def is_shaded(at: float) -> bool:
        """Whether the edge of the table, at this share of its width, is darker than the page."""
        with Image.open(io.BytesIO(table.screenshot())) as picture:
            edge, paper = (picture.convert("L").getpixel((int(x * (picture.width - 1)), 1)) for x in (at, 0.5))
            return bool(edge != paper)

    assert (is_shaded(0.0), is_shaded(1.0)) == (False, True)
    table.evaluate("each => { each.scrollLeft = each.scrollWidth; }")
    assert (is_shaded(0.0), is_shaded(1.0)) == (True, False)
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
    path = build.run(whole)
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
