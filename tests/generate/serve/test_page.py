"""The page of `corpus serve` in Chromium: it streams, stops, keeps a conversation, and asks nobody else.

Skipped where there is no Chromium.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, Route, expect, sync_playwright

from corpus.pipeline.workspace.ledger import Ledger, write_ledger
from tests.support.serving import CONTEXT, Running, serving

pytestmark = pytest.mark.browser
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
KEY = "correct-horse-battery-staple"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("no Chromium here (Debian: apt-get install chromium)")
    quiet = ["--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-component-update"]
    quiet += ["--disable-sync", *(["--no-sandbox"] if os.getuid() == 0 else [])]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=quiet)
        yield browser
        browser.close()


def opened(browser: Browser, server: Running, locale: str = "en-US") -> tuple[Page, list[str]]:
    """The page, and what it complained about or asked of others."""
    tab = browser.new_context(viewport={"width": 380, "height": 700}, locale=locale).new_page()
    complaints: list[str] = []

    def asked(route: Route) -> None:
        if not route.request.url.startswith(server.url):
            complaints.append(route.request.url)
        route.continue_()

    tab.route("**/*", asked)
    tab.on("console", lambda message: complaints.append(message.text))
    tab.on("pageerror", lambda error: complaints.append(str(error)))
    tab.goto(server.url)
    return tab, complaints


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with serving() as running:
        yield running


def test_a_conversation_is_streamed_and_kept(browser: Browser, server: Running) -> None:
    tab, complaints = opened(browser, server)
    expect(tab.locator("#model")).to_have_text("endless")
    tab.locator("summary").click()
    tab.fill("#temperature", "3")
    tab.locator("summary").click()
    tab.fill("#text", "太热")
    tab.click("#send")
    expect(tab.locator("#settings")).to_have_attribute("open", "")
    expect(tab.locator(".turn")).to_have_count(0)
    for name, value in (("temperature", "0.87"), ("max_tokens", "12"), ("seed", "6")):
        tab.fill(f"#{name}", value)
    answers = []
    for question in ("<b>雨停了吗？</b>", "风呢？"):
        tab.fill("#text", question)
        tab.press("#text", "Enter")
        expect(tab.locator("#send")).to_be_enabled()
        answers.append(tab.locator(".answer").last.text_content() or "")
        expect(tab.locator(".asked").last).to_have_text(question)
    ask = server.client().chat.completions.create
    settings: dict[str, Any] = {"model": "endless", "temperature": 0.87, "max_tokens": 12, "seed": 6}
    messages: list[Any] = [{"role": "user", "content": "<b>雨停了吗？</b>"}]
    first = ask(messages=messages, **settings)
    messages += [{"role": "assistant", "content": answers[0]}, {"role": "user", "content": "风呢？"}]
    second = ask(messages=messages, **settings)
    assert answers == [first.choices[0].message.content, second.choices[0].message.content]
    expect(tab.locator(".told").last).to_contain_text("12 tokens")
    expect(tab.locator(".told").last).to_contain_text("seed 6, cut at the limit")
    tab.click("#new")
    expect(tab.locator(".turn")).to_have_count(0)
    assert complaints == []
    tab.context.close()


def test_an_answer_is_stopped_and_old_questions_are_left_out(browser: Browser, server: Running) -> None:
    tab, complaints = opened(browser, server)
    expect(tab.locator("#model")).to_have_text("endless")
    tab.locator("summary").click()
    for number, room in enumerate((100, 20)):  # the second time there is no room for the first question
        tab.fill("#max_tokens", str(CONTEXT - room))
        tab.fill("#text", "还在吗？")
        tab.click("#send")
        expect(tab.locator(".answer").nth(number)).not_to_be_empty()
        expect(tab.locator("#state")).to_contain_text("oldest questions were left out" if number else "writing")
        tab.click("#stop")
        server.wait_for(0)
        expect(tab.locator("#send")).to_be_enabled()
    tab.click("#language")
    expect(tab.locator("#send")).to_have_text("发送", use_inner_text=True)
    expect(tab.locator("#lead")).to_contain_text("关闭本页即忘")
    found = [(each["id"], each["nodes"][0]["html"]) for each in Axe().run(tab).response["violations"]]
    assert found == []
    assert len(complaints) == 1
    assert "400" in complaints[0], "Chromium reports the request that did not fit"
    tab.context.close()


def test_a_model_that_continues_and_a_server_with_a_key(browser: Browser, tmp_path: Path) -> None:
    ledger = Ledger(
        stage="train", dataset="", version=1, config={"objective": "text"}, inputs=[], outputs=[], counts={},
        fingerprint="0",
    )  # fmt: skip
    write_ledger(tmp_path, ledger, {})
    with serving(folder=tmp_path, keys=[KEY]) as server:
        tab, complaints = opened(browser, server, "zh-CN")
        expect(tab.locator("#ask")).to_be_hidden()
        for key in ("wrong-key-of-some-length", KEY):
            tab.fill("#key", key)
            tab.press("#key", "Enter")
            expect(tab.locator("#state")).to_have_text("密钥不对。" if key != KEY else "")
        expect(tab.locator("#lead")).to_have_text("此模型未经问答微调：它会续写你给的文字。")
        tab.locator("summary").click()
        for name, value in (("temperature", "0"), ("max_tokens", "9")):
            tab.fill(f"#{name}", value)
        tab.fill("#text", "河边")
        tab.press("#text", "Enter")
        written = server.client(KEY).completions.create(model="endless", prompt="河边", temperature=0, max_tokens=9)
        expect(tab.locator(".answer")).to_have_text(written.choices[0].text)
        refused = server.post(
            "v1/chat/completions", {"messages": [{"role": "user", "content": "a"}]}, Authorization=f"Bearer {KEY}"
        )
        assert refused.json()["error"]["code"] == "no_chat_form"
        assert "corpus train --objective sft --init endless" in refused.json()["error"]["message"]
        assert {each for each in complaints if "401" not in each} == set()
        tab.context.close()
