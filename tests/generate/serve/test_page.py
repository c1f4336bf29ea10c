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


def test_a_conversation_in_the_browser(browser: Browser) -> None:
    """One test for one start of the server and one page, because both take time."""
    with serving(access_log=True) as server:
        tab, complaints = opened(browser, server)
        expect(tab.locator("#model")).to_have_text("endless")
        tab.locator("summary").click()
        tab.fill("#max_tokens", "12")
        tab.fill("#seed", "6")
        answers = []
        for question in ("<b>雨停了吗？</b>", "风呢？"):
            tab.fill("#text", question)
            tab.press("#text", "Enter")
            expect(tab.locator("#send")).to_be_enabled()
            answers.append(tab.locator(".answer").last.text_content() or "")
            expect(tab.locator(".asked").last).to_have_text(question)
        client = server.client()
        messages: list[Any] = [{"role": "user", "content": "<b>雨停了吗？</b>"}]
        first = client.chat.completions.create(model="endless", messages=messages, max_tokens=12, seed=6)
        messages += [{"role": "assistant", "content": answers[0]}, {"role": "user", "content": "风呢？"}]
        second = client.chat.completions.create(model="endless", messages=messages, max_tokens=12, seed=6)
        assert answers == [first.choices[0].message.content, second.choices[0].message.content]
        expect(tab.locator(".told").last).to_contain_text("12 tokens")
        expect(tab.locator(".told").last).to_contain_text("seed 6, cut at the limit")

        tab.fill("#max_tokens", str(CONTEXT - 100))
        tab.fill("#text", "停")
        tab.click("#send")
        expect(tab.locator(".answer").last).not_to_be_empty()
        assert server.running() == 1
        tab.click("#stop")
        server.wait_for(0)
        expect(tab.locator("#send")).to_be_enabled()

        tab.fill("#max_tokens", str(CONTEXT - 20))  # no room for the questions before
        tab.fill("#text", "还在吗？")
        tab.click("#send")
        expect(tab.locator(".answer").nth(3)).not_to_be_empty()
        expect(tab.locator("#state")).to_contain_text("oldest questions were left out")
        tab.click("#stop")

        tab.click("#language")
        expect(tab.locator("#send")).to_have_text("发送", use_inner_text=True)
        expect(tab.locator("#lead")).to_contain_text("关闭本页即忘")
        found = [(each["id"], each["nodes"][0]["html"]) for each in Axe().run(tab).response["violations"]]
        assert found == []
        tab.click("#new")
        expect(tab.locator(".turn")).to_have_count(0)
        # The two conversations that did not fit were answered with 400, which Chromium reports.
        assert {each for each in complaints if "400" not in each} == set()
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
