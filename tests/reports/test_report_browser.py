"""The page in a real browser: quiet console, working filters and dial, no overflow."""

from __future__ import annotations

import shutil

import pytest

from clipalign.reports.report import report

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

WIDTHS = ((360, 740), (1600, 1000))


@pytest.fixture(scope="module")
def browser():
    """Chromium: playwright's own, or the system's."""
    with playwright.sync_playwright() as started:
        system = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
        problem: Exception | None = None
        for path in (None, system):
            try:
                chromium = started.chromium.launch(executable_path=path, args=["--no-sandbox"])
            except playwright.Error as error:
                problem = error
                continue
            yield chromium
            chromium.close()
            return
        pytest.skip(f"there is no Chromium here: {str(problem).splitlines()[0]}")


@pytest.fixture(scope="module")
def address(world):
    path = world.root / "browser.html"
    report(world.first, world.second, world.people, output=path)
    return path.as_uri()


@pytest.fixture
def open_page(browser, address):
    """Open the report; nothing may be said on the console or asked of the network."""
    said, asked, contexts = [], [], []

    def go(width=1200, height=900, scheme="light"):
        context = browser.new_context(
            viewport={"width": width, "height": height},
            color_scheme=scheme,
            reduced_motion="reduce",
        )
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(address)
        return page

    yield go
    assert said == []
    assert [url for url in asked if not url.startswith(("data:", address))] == []
    for context in contexts:
        context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("width", "height"), WIDTHS)
def test_nothing_is_wider_than_the_window(open_page, width, height, scheme):
    page = open_page(width, height, scheme)
    page.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    beyond = page.evaluate(
        """[...document.querySelectorAll('main *')]
        .filter((e) => !e.closest('.scroll, pre, .hidden, svg') && e.getClientRects().length)
        .filter((e) => e.getBoundingClientRect().right > innerWidth + 0.5)
        .map((e) => e.outerHTML.slice(0, 100))"""
    )
    assert beyond == []
    labels = page.evaluate(
        """[...document.querySelectorAll('svg.chart')].flatMap((svg) => {
          const edge = svg.getBoundingClientRect().right + 12;
          return [...svg.querySelectorAll('text')]
            .filter((t) => t.getBoundingClientRect().right > edge).map((t) => t.textContent);
        })"""
    )
    assert labels == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_its_ground(open_page, scheme):
    """At least 4.5 : 1, the contrast that WCAG asks of text."""
    page = open_page(scheme=scheme)
    ratios = page.evaluate(
        """(() => {
          const light = (colour) => {
            const parts = colour.match(/[0-9.]+/g).slice(0, 3).map(Number).map((v) => v / 255)
              .map((v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
            return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2];
          };
          const ground = light(getComputedStyle(document.body).backgroundColor);
          return ['body', '.lead', '.kicker', '.interval', '.sure', '.better', '.bar a', '.counts']
            .map((s) => document.querySelector(s)).filter(Boolean)
            .map((e) => light(getComputedStyle(e).color))
            .map((c) => (Math.max(c, ground) + 0.05) / (Math.min(c, ground) + 0.05));
        })()"""
    )
    assert len(ratios) >= 6
    assert min(ratios) >= 4.5


def test_the_theme_follows_the_system_until_it_is_chosen(open_page):
    page = open_page(scheme="dark")
    ground = "getComputedStyle(document.body).backgroundColor"
    dark = page.evaluate(ground)
    button = page.locator("#theme")
    assert button.get_attribute("aria-label") == "Switch to light"
    button.click()
    light = page.evaluate(ground)
    assert light != dark
    page.emulate_media(color_scheme="light")
    assert page.evaluate(ground) == light
    button.click()
    assert page.evaluate(ground) == dark


def test_filters_keep_what_matches(open_page):
    page = open_page()
    wall = page.locator(".wall").first
    shown = wall.locator(".tile:visible")
    total = shown.count()
    assert total > 10
    kinds = wall.locator("select[name=kind] option").evaluate_all("all => all.map((o) => o.value)")
    counts = []
    for kind in kinds[1:]:
        wall.locator("select[name=kind]").select_option(kind)
        counts.append(shown.count())
        of_kind = shown.evaluate_all("all => all.map((tile) => tile.dataset.kind)")
        assert set(of_kind) == {kind}
        assert wall.locator(".count").inner_text() == f"{counts[-1]} of {total} shown"
    assert sum(counts) == total
    wall.locator("select[name=kind]").select_option("")
    wall.locator("select[name=style]").select_option("note")
    assert 0 < shown.count() < total
    wall.locator("input[type=search]").fill("APPLE")
    found = shown.evaluate_all("all => all.map((tile) => tile.textContent.toLowerCase())")
    assert found
    assert all("apple" in text for text in found)
    wall.locator("input[type=search]").fill("nothing is called this")
    assert shown.count() == 0


def test_the_dial_turns_with_the_keyboard(open_page):
    page = open_page()
    gallery = page.locator(".gallery")
    dial = gallery.locator("input[type=range]")
    images = "all => all.map((image) => image.src)"
    pictures = gallery.locator(".shelf img")
    assert dial.get_attribute("aria-valuetext") == "the model"
    after = pictures.evaluate_all(images)
    dial.focus()
    page.keyboard.press("ArrowLeft")
    assert dial.get_attribute("aria-valuetext") == "the reference"
    assert gallery.locator(".stop").inner_text() == "the reference"
    before = pictures.evaluate_all(images)
    assert before != after
    assert len(before) == len(after) == 4 * 4  # searches of the top 4
    assert all(source.startswith("data:image/webp") for source in before)
    for card in gallery.locator(".search").all():
        men = card.locator(".shelf li.v1").count()
        assert f"man {men}" in card.locator(".composition").get_attribute("aria-label")
        assert card.locator(".counts data").nth(1).inner_text() == str(men)
    gallery.locator("[data-stop='1']").click()
    assert pictures.evaluate_all(images) == after


def test_a_press_on_a_heading_sorts(open_page):
    page = open_page()
    table = page.locator("table.sortable").first
    heading = table.locator("thead th").nth(1)
    values = "all => all.map((d) => d ? Number(d.value) : null)"
    column = table.locator("tbody tr td:nth-child(2) data")
    heading.locator("button").press("Enter")
    assert heading.get_attribute("aria-sort") == "descending"
    down = column.evaluate_all(values)
    assert down == sorted(down, reverse=True)
    heading.locator("button").click()
    assert heading.get_attribute("aria-sort") == "ascending"
    assert column.evaluate_all(values) == sorted(down)
    first = table.locator("thead th").first
    first.locator("button").click()
    assert first.get_attribute("aria-sort") == "ascending"
    assert heading.get_attribute("aria-sort") is None


def test_on_paper_everything_is_open_and_the_controls_are_gone(open_page):
    page = open_page()
    page.emulate_media(media="print")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.locator("details:not([open])").count() == 0
    assert page.locator("img[loading=lazy]").count() == 0
    for selector in (".bar", ".filters", ".dial input", ".sortable button"):
        assert not page.locator(selector).first.is_visible()
    for table in page.locator("table").all():  # nothing is cut at the edge, no heading is lost
        assert table.evaluate("t => t.parentElement.scrollWidth <= t.parentElement.clientWidth")
    first = page.locator(".sortable thead th").first
    assert "class" in first.evaluate("th => getComputedStyle(th, '::before').content")


def test_without_scripts_the_numbers_and_pictures_are_there(browser, address):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(address)
    assert page.locator(".numbers tbody tr").count() > 10
    assert page.locator(".tile img").first.is_visible()
    assert not page.locator(".filters").first.is_visible()
    assert page.locator(".composition").count() == 4
    context.close()
