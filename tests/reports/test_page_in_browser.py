"""The report in a browser: figures, responses, a phone, dark mode, hostile texts.

These tests need Chromium with its driver, and are skipped where there is none.
"""

import shutil

import hostile
import pytest
from test_hostile_texts import hostile_page
from test_reports import results
from test_responses import rows

from infalign.reports import plots
from infalign.reports.page import render
from infalign.reports.responses import MOST_BYTES, _fitted

TRAP = "window.alert = () => { window.ran = true; };"
PHONE, DESKTOP = 390, 1280


@pytest.fixture(scope="module")
def driver():
    """Headless Chromium, whose console stays empty."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    programs = [shutil.which(name) for name in ("chromium", "chromedriver")]
    if None in programs:
        pytest.skip("chromium and chromedriver (Debian: chromium-driver) are not installed")
    options = webdriver.ChromeOptions()
    options.binary_location = programs[0]
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(programs[1]))
    driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": TRAP})
    yield driver
    complaints = driver.get_log("browser")
    driver.quit()
    assert complaints == [], "the browser's console stays empty"


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """A report of 30 prompts."""
    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_text(render(results(), responses=_fitted(rows(30), MOST_BYTES)))
    return path.as_uri()


def show(driver, address, width=DESKTOP, scheme="light"):
    size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width == PHONE}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    wanted = [{"name": "prefers-color-scheme", "value": scheme}]
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": wanted})
    driver.get(address)


def shown(driver):
    """Ids of the prompts that the browser of responses shows."""
    return driver.execute_script(
        "return [...document.querySelectorAll('[data-cards] .top span:first-child')]"
        ".map(s => s.textContent.replace('prompt ', ''))"
    )


def choose(driver, label, words):
    """Choose an entry of a list, or type into the field."""
    driver.execute_script(
        "const node = document.querySelector(`.browse [aria-label='${arguments[0]}']`);"
        "node.value = node.options ? [...node.options].find(o => o.text === arguments[1]).value"
        " : arguments[1]; node.dispatchEvent(new Event('input', {bubbles: true}));",
        label,
        words,
    )


def test_every_figure_is_drawn_with_what_it_shows_in_words(driver, page):
    show(driver, page)
    drawn = driver.execute_script(
        "const words = f => [...f.querySelectorAll('svg')].map(s => s.getAttribute('aria-label'));"
        "return Object.fromEntries([...document.querySelectorAll('[data-figure]')].map("
        "f => [f.dataset.figure, words(f)]))"
    )
    assert {name: len(words) > 0 for name, words in drawn.items()} == dict.fromkeys(
        plots.FIGURES, True
    )
    assert "InfAlign-CTRL landed at 0.502 nats, α = 0.63" in drawn["training"][0]
    assert [len(drawn[name]) for name in ("win_rate", "by_n")] == [2, 4]
    assert "91.2 %" in drawn["win_rate"][0]
    assert driver.execute_script("return document.querySelectorAll('.landing').length") == 1
    # One filled point for each policy, and a hollow one by the gold reward.
    assert driver.execute_script(
        "const host = document.querySelector('[data-figure=win_rate] .plot');"
        "return [host.querySelectorAll('circle.dot').length,"
        " host.querySelectorAll('circle.hollow').length]"
    ) == [4, 2]


def test_figures_are_dark_in_dark_mode(driver, page):
    seen = {}
    for scheme in ("light", "dark"):
        show(driver, page, scheme=scheme)
        seen[scheme] = driver.execute_script(
            "const of = (q, key) => getComputedStyle(document.querySelector(q))[key];"
            "return ['.plot', 'body'].map(q => of(q, 'backgroundColor'))"
            ".concat([of('.curve.k-optimal', 'stroke'), of('.plot text', 'fill')])"
        )

    def brightness(color):
        return sum(map(int, color.partition("(")[2].rstrip(")").split(",")[:3])) / 765

    light, dark = (list(map(brightness, seen[scheme])) for scheme in ("light", "dark"))
    assert min(light[:2]) > 0.9 and max(light[2:]) < 0.45
    assert max(dark[:2]) < 0.2 and min(dark[2:]) > 0.55


@pytest.mark.parametrize("width", [320, PHONE, 768])
def test_nothing_is_out_of_sight_on_a_narrow_screen(driver, page, width):
    show(driver, page, width)
    assert driver.execute_script("return document.documentElement.scrollWidth") <= width
    outside = driver.execute_script(
        "const beyond = b => b.width && (b.left < -1 || b.right > innerWidth + 1);"
        "return [...document.querySelectorAll('td, tbody th, h1, dd, p, h4, svg')]"
        ".filter(e => e.offsetParent || e.tagName === 'svg')"
        ".filter(e => beyond(e.getBoundingClientRect())).map(e => e.textContent.slice(0, 40))"
    )
    assert outside == []
    if width <= PHONE:  # every cell with its column's name
        names = driver.execute_script(
            "return [...document.querySelectorAll('table.cards td')].filter(e => e.textContent)"
            ".map(e => getComputedStyle(e, '::before').content)"
        )
        assert len(names) > 20 and '""' not in names and '"none"' not in names


def test_responses_are_searched_filtered_and_sorted(driver, page):
    table = rows(30).to_pylist()
    rates = {}
    for row in table:
        rates.setdefault(row["prompt_id"], {})[row["policy"]] = row["win_rate"]
    show(driver, page)
    assert len(shown(driver)) == 12
    driver.execute_script("document.querySelector('[data-more]').click()")
    driver.execute_script("document.querySelector('[data-more]').click()")
    spread = {p: abs(own["rloo"] - own["rlhf"]) for p, own in rates.items()}
    order = shown(driver)
    assert len(order) == 30
    assert [spread[p] for p in order] == sorted(spread.values(), reverse=True)
    assert driver.execute_script("return document.querySelector('[data-more]').hidden")

    choose(driver, "Sort", "InfAlign-CTRL: worst first")
    assert [rates[p]["rloo"] for p in shown(driver)] == sorted(
        own["rloo"] for own in rates.values()
    )[:12]
    choose(driver, "Filter", "Plain RLHF loses (under 50 %)")
    losing = [p for p, own in rates.items() if own["rlhf"] < 0.5]
    assert set(shown(driver)) <= set(losing)
    count = driver.execute_script("return document.querySelector('[data-count]').textContent")
    assert count.startswith(f"{len(losing)} of 30 prompts")
    choose(driver, "Filter", "All prompts")
    choose(driver, "Search in prompts and responses", "prompt 17?")
    assert shown(driver) == ["p17"]


def test_tables_sort_by_a_click_on_a_head(driver, page):
    show(driver, page)
    script = (
        "const table = [...document.querySelectorAll('table.sortable')][1];"
        "const rows = () => [...table.tBodies[0].rows];"
        "const column = () => rows().map(r => parseFloat(r.cells[2].textContent));"
        "const head = table.querySelectorAll('thead button')[2]; head.click();"
        "const down = column();"
        "head.click(); return [down, column(), head.parentNode.getAttribute('aria-sort')]"
    )
    down, up, said = driver.execute_script(script)
    assert down == [91.2, 83.0, 74.1, 70.2] and up == down[::-1] and said == "ascending"


def test_texts_are_shown_as_text_and_nothing_runs(driver, tmp_path):
    for name in ("HTML", "an attribute", "a template", "a formula", "right to left", "a long name"):
        text = hostile.TEXTS[name]
        path = tmp_path / "report.html"
        path.write_text(hostile_page(text))
        show(driver, path.as_uri(), PHONE)
        state = driver.execute_script(
            "return [window.ran, document.images.length, document.scripts.length,"
            " document.querySelector('[data-cards] .text').textContent,"
            " document.documentElement.scrollWidth]"
        )
        assert state[:3] == [None, 0, 4] and state[4] <= PHONE
        assert state[3] == text.replace("\u202e", "\\u202e").replace("\u202c", "\\u202c")


def test_csv_of_the_page_is_whole_and_holds_no_formulas(driver, tmp_path):
    path = tmp_path / "report.html"
    path.write_text(hostile_page('=HYPERLINK("x")\nb, c'))
    show(driver, path.as_uri())
    written = driver.execute_script(
        "const data = dataOf('responses');"
        "return asCsv(data.prompts.map(p => unpack(p, data)), data.columns)"
    )
    head, *lines = written.split("\r\n")
    assert head.startswith("prompt_id,prompt,policy,response,sample,tokens,quantile,win_rate")
    assert len(lines) == 3
    assert lines[0].startswith("""p0,"'=HYPERLINK(""x"")\nb, c",reference,"'=HYPERLINK(""x"")\nb""")


def test_the_page_stays_quick_with_many_prompts(driver, tmp_path):
    path = tmp_path / "report.html"
    path.write_text(render(results(), responses=_fitted(rows(2000, length=900), MOST_BYTES)))
    show(driver, path.as_uri())
    assert len(shown(driver)) == 12  # what is not shown costs no element
    choose(driver, "Search in prompts and responses", "prompt 1999?")
    assert shown(driver) == ["p1999"]
