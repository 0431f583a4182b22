"""The explorer: one file that needs nothing else, and numbers that the package confirms.

The tests in a browser need Chromium with its driver, and are skipped where there is none.
"""

import ast
import itertools
import json
import re
import shutil
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path

import pytest
import yaml

import infalign as ia
from infalign import explorer, storage
from infalign.config import parse_config
from infalign.core import PROCEDURES, words
from infalign.explorer import server
from infalign.explorer.tables import FORMULAS

BASE = {"model": "m", "reward": "r", "prompts": {"file": "p"}}


# ---- the file ----------------------------------------------------------------------------------


def test_the_page_asks_the_network_for_nothing():
    page = explorer.build_page()
    assert set(re.findall(r"https?://[^\s\"'<)]+", page)) == {"http://www.w3.org/2000/svg"}
    assert (
        re.search(r"\bsrc=|@import|url\((?!#)|\bfetch\(|XMLHttp|WebSocket|import\(", page) is None
    )
    assert "default-src 'none'" in page


def test_the_page_writes_no_markup_from_texts():
    script = explorer.build_page().split("<script>")[1]
    assert (
        re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", script) is None
    )


def test_the_page_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    page = explorer.write_page(tmp_path / "new" / "explorer.html")
    assert page.read_text(encoding="utf-8") == explorer.build_page()
    page.write_text("before")

    def fail(_):
        raise OSError("the disk is full")

    monkeypatch.setattr(storage.os, "fsync", fail)
    with pytest.raises(OSError, match="full"):
        explorer.write_page(page)
    assert page.read_text() == "before" and list(page.parent.iterdir()) == [page]


# ---- the command and the server ----------------------------------------------------------------


def test_the_command_writes_the_page_and_says_where(cli, tmp_path):
    code, out, _ = cli("explore", "--out", tmp_path / "e.html")
    assert code == 0 and out.strip() == str(tmp_path / "e.html")
    assert (tmp_path / "e.html").read_text(encoding="utf-8").startswith("<!doctype html>")


def test_a_port_without_serving_is_a_wrong_usage(cli):
    code, _, error = cli("explore", "--port", "8000")
    assert code == 2 and "--serve" in error


def test_ctrl_c_ends_the_server_cleanly():
    command = [Path(sys.executable).with_name("infalign"), "explore", "--serve"]
    with subprocess.Popen(command, stdout=-1, stderr=-1, text=True) as process:
        address = process.stdout.readline().strip()
        with urllib.request.urlopen(address) as answer:
            assert answer.status == HTTPStatus.OK
        process.send_signal(signal.SIGINT)
        _, error = process.communicate()
    assert process.returncode == 0 and "Traceback" not in error


@pytest.fixture
def address():
    with server.make_server() as served:
        thread = threading.Thread(target=served.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield served.server_address
        served.shutdown()
        thread.join()


def test_the_server_has_the_page_and_nothing_else(address):
    assert address[0] == "127.0.0.1"
    url = f"http://127.0.0.1:{address[1]}"
    with urllib.request.urlopen(f"{url}/") as answer:
        assert answer.read().decode() == explorer.build_page()
    for path in ("/index.html", "/../pyproject.toml", "/?x"):
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(url + path)
        with refused.value as answer:
            assert answer.status == HTTPStatus.NOT_FOUND


def test_a_port_that_is_taken_is_named(address):
    with pytest.raises(ValueError, match=rf"`port`.*{address[1]}.*free one"):
        server.make_server(address[1])


# ---- procedures that others register ------------------------------------------------------------


def define_middle():
    """A family of procedures that the package does not know."""

    @ia.register_procedure("middle-of-n", words="middle of {n}", family=True)
    @dataclass(frozen=True)
    class Middle(ia.RankProcedure):
        """Draw n responses, n odd, and select the middle one."""

        n: int

        def __post_init__(self):
            if self.n % 2 == 0:
                raise ValueError("`n` must be odd.")

        @property
        def draws(self):
            return self.n

        @property
        def _law(self):
            return ia.OrderStatistic(self.n, (self.n + 1) // 2)

        def cdf(self, u):
            return self._law.cdf(u)

        def density(self, u):
            return self._law.density(u)

        def slope(self, u):
            return self._law.slope(u)

    return Middle


@pytest.fixture
def middle():
    yield define_middle()
    PROCEDURES.remove("middle-of-n")


def test_every_registered_procedure_by_rank_is_offered(middle):
    page = explorer.build_page()
    offered = set(re.findall(r'<option value="([^"]+)">', page))
    for name, entry in PROCEDURES.items():
        by_rank = issubclass(entry.kind, ia.RankProcedure)
        assert any(choice.split(":")[0] == name for choice in offered) == by_rank, name
    for n in (3, 5):
        assert f'<option value="middle-of-n:{n}">middle of {n}</option>' in page
    assert "middle-of-n:4" not in page, "an n that the family does not have"


def test_what_the_page_has_formulas_for_is_what_it_gets_no_tables_for():
    script = (Path(explorer.__file__).parent / "laws.js").read_text()
    laws = script[script.index("const LAWS = {") : script.index("function tabulated")]
    assert re.findall(r'^  "([a-z-]+)": \(', laws, re.M) == list(FORMULAS)


# ---- in a browser ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def driver():
    """Headless Chromium, whose console stays empty."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    programs = [shutil.which(name) for name in ("chromium", "chromedriver")]
    if None in programs:
        pytest.skip("chromium and chromedriver (Debian: chromium-driver) are not installed")
    options = webdriver.ChromeOptions()
    options.binary_location = programs[0]
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1280,1000"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(programs[1]))
    driver.set_script_timeout(60)
    yield driver
    complaints = driver.get_log("browser")
    driver.quit()
    assert complaints == [], "the browser's console stays empty"


@pytest.fixture(scope="module")
def browser(driver, tmp_path_factory):
    """The page in a browser, at its start."""
    driver.get(explorer.write_page(tmp_path_factory.mktemp("explorer") / "e.html").as_uri())
    return driver


FINISHED = """
const done = arguments[arguments.length - 1], results = document.getElementById("results");
const poll = () => results.getAttribute("aria-busy") === "false" ? done() : setTimeout(poll, 10);
"""


def settled(browser):
    """Wait until the page has computed what it shows."""
    browser.execute_async_script(FINISHED + "poll();")


def visit(browser, fragment):
    """Show the view of `fragment`."""
    browser.execute_async_script(
        FINISHED
        + """
        if (location.hash === "#" + arguments[0]) return poll();
        addEventListener("hashchange", () => setTimeout(poll), {once: true});
        location.hash = arguments[0];
        """,
        fragment,
    )


def rows(browser):
    """The table: transform -> what its row holds."""
    return browser.execute_script(
        "return Object.fromEntries([...document.querySelectorAll('#rows tr')].map(r =>"
        " [r.dataset.transform, {...r.dataset, text: r.innerText}]))"
    )


def text(browser, name):
    return browser.execute_script("return document.getElementById(arguments[0]).innerText", name)


SETTINGS = [
    ("sampling", None, 0.5),
    ("best-of-n:4", None, 0.5),
    ("best-of-n:8", None, 0.02),
    ("best-of-n:8", None, 2),
    ("best-of-n:32", None, 0.05),
    ("worst-of-n:4", None, 0.5),
    ("worst-of-n:8", None, 0.1),
    ("best-of-n:4", "sampling", 0.5),
    ("worst-of-n:4", "sampling", 1),
    ("sampling", "best-of-n:8", 0.5),
    ("order-statistic:8:3", None, 0.4),
    ("order-statistic:8:2", "best-of-n:4", 0.5),
    ("best-of-poisson:4", None, 0.5),
]
TRANSFORMS = ["identity", "probit", "log", "exponential:10", "power:3"]


@pytest.mark.parametrize(("procedure", "against", "kl"), SETTINGS)
def test_the_page_and_the_package_agree(browser, procedure, against, kl):
    fragment = f"procedure={procedure}{f'&against={against}' if against else ''}&kl={kl}"
    visit(browser, f"{fragment}&transforms={','.join(TRANSFORMS)}")
    shown = rows(browser)
    expected = ia.compare(
        ia.parse_procedure(procedure),
        [ia.parse_transform(spec) for spec in TRANSFORMS],
        kl=kl,
        against=ia.parse_procedure(against) if against else None,
    )
    assert set(shown) == {row.transform for row in expected}
    for row in expected:
        own = shown[row.transform]
        assert float(own["win"]) == pytest.approx(row.win_rate, abs=2e-6), row
        assert float(own["beta"]) == pytest.approx(row.beta, rel=1e-4), row
        assert f"{100 * float(own['win']):.2f} %" in own["text"]


@pytest.mark.parametrize(
    ("procedure", "against", "kl"),
    [
        ("best-of-n:64", "best-of-n:64", 2),
        ("best-of-n:128", "best-of-n:128", 2),
        ("best-of-n:128", "sampling", 1),
        ("best-of-n:1024", "best-of-n:1024", 4),
        ("best-of-n:8", "worst-of-n:8", 1),
        ("worst-of-n:64", "worst-of-n:64", 0.5),
    ],
)
def test_the_page_answers_where_the_win_rate_is_next_to_1(browser, procedure, against, kl):
    visit(browser, f"procedure={procedure}&against={against}&kl={kl}&transforms=identity")
    best = ia.design(ia.parse_procedure(procedure), against=ia.parse_procedure(against), kl=kl)
    own = rows(browser)["optimal"]
    assert float(own["win"]) == pytest.approx(best.win_rate, abs=1e-8)
    assert float(own["beta"]) == pytest.approx(best.beta, rel=1e-4)


def test_a_strength_gives_the_optimum_of_that_strength(browser):
    visit(browser, "procedure=best-of-n:8&beta=0.2&transforms=identity")
    best = ia.design(ia.BestOfN(8), beta=0.2)
    assert float(rows(browser)["optimal"]["win"]) == pytest.approx(best.win_rate, abs=2e-6)
    assert f"At {best.kl:.3g} nats" in text(browser, "sentences").replace("\xa0", " ")


def test_no_exponent_beats_the_best_one(browser):
    visit(browser, "procedure=best-of-n:8&kl=0.5&transforms=exponential:best")
    (found,) = (spec for spec in rows(browser) if spec.startswith("exponential"))
    t = float(found.split(":")[1])
    nearby = [ia.Exponential(t * factor) for factor in (0.9, 1, 1.1)]
    _, below, best, above = ia.compare(ia.BestOfN(8), nearby, kl=0.5)
    assert best.win_rate > max(below.win_rate, above.win_rate)


@pytest.mark.parametrize(
    ("samples", "exponential", "identity"),
    # Simulated apart from this page, to about 0.0005.
    [(16, 0.8305, 0.788), (64, 0.8586, 0.797)],
)
def test_few_samples_cost_what_they_should(browser, samples, exponential, identity):
    visit(
        browser,
        f"procedure=best-of-n:4&kl=0.5&samples={samples}&transforms=identity,exponential:10",
    )
    shown = rows(browser)
    assert float(shown["exponential:10"]["counted"]) == pytest.approx(exponential, abs=0.004)
    assert float(shown["identity"]["counted"]) == pytest.approx(identity, abs=0.003)
    assert f"{samples} samples" in text(browser, "sentences")


@pytest.mark.parametrize("t", [-35, 1000])
def test_sharp_transforms_get_a_grid_that_is_fine_enough(browser, t):
    # At 0.8 nats t < 0 cuts off the lower half within 1/|t|.
    visit(browser, f"procedure=best-of-n:2&kl=0.8&transforms=exponential:{t}")
    _, expected = ia.compare(ia.BestOfN(2), [ia.Exponential(t)], kl=0.8)
    shown = float(rows(browser)[f"exponential:{t}"]["win"])
    assert shown == pytest.approx(expected.win_rate, abs=1e-5)


def test_what_is_beyond_the_page_is_said(browser):
    visit(browser, "procedure=worst-of-n:1024&kl=1")
    with pytest.raises(ia.SolveError):
        ia.design(ia.WorstOfN(1024), kl=1)
    assert "beyond what this page computes" in text(browser, "sentences")
    assert "optimal" not in rows(browser)


def test_a_view_is_its_address(browser):
    fragment = (
        "procedure=order-statistic:6:2&against=best-of-n:3&kl=0.25&samples=24"
        "&transforms=identity,log,exponential:-3,exponential:best,power:0.5&zoom=top&use=log"
    )
    visit(browser, fragment)
    script = "document.getElementById('show-log').click();"
    browser.execute_script(script + script)  # there and back: the page writes its address anew
    settled(browser)
    assert browser.execute_script("return location.hash") == f"#{fragment}"
    assert [browser.execute_script(f"return document.getElementById('{i}').value") for i in
            ("procedure", "n", "k", "versus", "v-procedure", "v-n", "kl", "samples", "t", "a",
             "zoom", "use")] == ["order-statistic", "6", "2", "other", "best-of-n", "3", "0.25",
                                 "24", "-3", "0.5", "top", "log"]  # fmt: skip


def test_reset_forgets_the_address(browser):
    visit(browser, "procedure=worst-of-n:16&kl=0.1")
    browser.execute_script("document.getElementById('reset').click()")
    settled(browser)
    assert browser.execute_script("return location.hash") == ""
    assert "At 0.5 nats, best-of-8" in text(browser, "sentences").replace("\xa0", " ")


def test_an_address_that_cannot_be_read_is_quoted_as_text(browser):
    visit(
        browser,
        "procedure=best-of-n:4&kl=<img src=x>&n=5000&against=best-of-n:0&constructor=1"
        "&transforms=power:2,power:3",
    )
    said = text(browser, "error")
    for part in ("kl=", "img", "n=5000", "against=best-of-n:0", "constructor=1", "power:3"):
        assert part in said
    assert browser.execute_script("return document.images.length") == 0
    assert "At 0.5 nats, best-of-4" in text(browser, "sentences").replace("\xa0", " ")


def test_a_number_out_of_range_changes_nothing_and_says_why(browser):
    visit(browser, "procedure=best-of-n:4&kl=0.5")
    before = text(browser, "sentences")
    browser.execute_script(
        "const n = document.getElementById('n'); n.value = '2000';"
        "n.dispatchEvent(new Event('input', {bubbles: true}))"
    )
    settled(browser)
    assert "n must be a whole number from 1 to 1024; got 2000" in text(browser, "error")
    assert text(browser, "sentences") == before


def test_the_keyboard_is_enough(browser):
    from selenium.webdriver import ActionChains, Keys

    def press(*keys):
        ActionChains(browser).send_keys(*keys).perform()
        settled(browser)

    def focused():
        return browser.execute_script("return document.activeElement.id")

    visit(browser, "procedure=best-of-n:8&kl=0.5&transforms=identity")
    browser.execute_script("document.activeElement.blur(); document.getElementById('skip').focus()")
    press(Keys.TAB)
    assert focused() == "procedure"
    press(Keys.ARROW_DOWN)
    assert "worst-of-8" in text(browser, "sentences")
    press(Keys.TAB)
    assert focused() == "n-slider"
    press(Keys.ARROW_LEFT)
    assert "worst-of-7" in text(browser, "sentences")
    for _ in range(40):
        press(Keys.TAB)
        if focused() == "frontier":
            break
    ring = browser.execute_script(
        "return getComputedStyle(document.activeElement).outlineStyle + '/' +"
        "document.getElementById('frontier').querySelector('.readout').hidden"
    )
    assert ring == "solid/false"
    press(*[Keys.ARROW_LEFT] * 10, Keys.ENTER)
    spoken = browser.execute_script("return document.activeElement.ariaValueText")
    assert spoken.startswith("0.4 nats: optimal ")
    assert "At 0.4 nats" in text(browser, "sentences").replace("\xa0", " ")


def test_everything_that_is_set_has_a_name(browser):
    visit(browser, "procedure=order-statistic:8:2&against=best-of-poisson:3&beta=0.2&samples=8")
    assert browser.execute_script(
        "return [...document.querySelectorAll('input, select, button, [tabindex=\"0\"]')].filter("
        "e => !(e.labels && e.labels.length) && !e.ariaLabel && !e.innerText"
        " && !e.hasAttribute('aria-labelledby')).map(e => e.id)"
    ) == []  # fmt: skip


CODE = [
    "procedure=best-of-n:8&kl=0.5&transforms=identity,probit,log,exponential:10,exponential:best",
    "procedure=worst-of-n:4&against=sampling&beta=0.2&samples=16&transforms=exponential:-5,power:2",
    "procedure=best-of-n:64&against=best-of-poisson:40&kl=0.1&transforms=identity",
    "procedure=order-statistic:8:2&kl=0.3&transforms=log",
]


@pytest.mark.parametrize("fragment", CODE)
def test_what_is_copied_runs_and_gives_the_number_shown(browser, fragment):
    visit(browser, fragment)
    names = browser.execute_script(
        "return [...document.getElementById('use').options].map(o => o.value)"
    )
    for name in names:
        visit(browser, f"{fragment}&use={name}")
        python, configuration = text(browser, "python"), text(browser, "yaml")
        *body, last = ast.parse(python).body
        scope = {}
        exec(compile(ast.Module(body, []), "<copied>", "exec"), scope)
        value = eval(compile(ast.Expression(last.value), "<copied>", "eval"), scope)
        assert value == pytest.approx(float(python.rsplit("# ", 1)[1]), abs=1e-4), python
        config = parse_config(BASE | yaml.safe_load(configuration))
        assert f"procedure={config.procedure}" in fragment.split("&")
        assert (config.against is not None) == ("against" in fragment)
        assert ("samples" in fragment) == (config.calibration.samples == 16)


def test_the_buttons_copy(browser):
    from selenium.webdriver import ActionChains, Keys
    from selenium.webdriver.common.by import By

    visit(browser, "procedure=best-of-n:8&kl=0.5")
    for button in ("copy-python", "copy-yaml"):
        browser.execute_script(
            "document.body.append(Object.assign(document.createElement('textarea'), {id: 'paste'}))"
        )
        browser.execute_script(f"document.getElementById('{button}').focus()")
        ActionChains(browser).send_keys(Keys.ENTER).perform()
        browser.execute_async_script(
            "const [id, done] = arguments, poll = () => document.getElementById(id).innerText =="
            " 'Copied' ? done() : setTimeout(poll, 10); poll()",
            button,
        )
        paste = browser.find_element(By.ID, "paste")
        paste.send_keys(Keys.CONTROL, "v")
        pasted = paste.get_property("value")
        browser.execute_script("document.getElementById('paste').remove()")
        assert pasted == text(browser, button.removeprefix("copy-"))


def test_the_scripts_stand_in_strict_order():
    named = explorer.page.SCRIPTS
    folder = Path(explorer.__file__).parent
    assert sorted(named) == sorted(file.name for file in folder.glob("*.js"))


def test_a_phone_needs_no_sideways_scrolling(browser):
    for width, scheme in itertools.product((360, 1280), ("light", "dark")):
        metrics = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        feature = {"name": "prefers-color-scheme", "value": scheme}
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
        visit(browser, f"procedure=best-of-n:8&kl=0.5&samples={width}")
        sizes = browser.execute_script("return [document.documentElement.scrollWidth, innerWidth]")
        assert sizes[0] <= sizes[1], json.dumps(metrics)
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


TABULATED = [
    ("middle-of-n:5", None, 0.5),
    ("middle-of-n:3", "best-of-n:4", 0.2),
    ("best-of-n:4", "middle-of-n:5", 1),
    ("mixture:0.5*best-of-n:4+0.5*sampling", None, 0.5),
]


@pytest.fixture
def extended(browser, middle, tmp_path):
    """The page as it is with another procedure registered."""
    address = browser.current_url.partition("#")[0]
    browser.get(explorer.write_page(tmp_path / "e.html").as_uri())
    yield browser
    browser.get(address)


def test_a_procedure_from_a_table_and_the_package_agree(extended):
    for procedure, against, kl in TABULATED:
        visit(
            extended,
            f"procedure={procedure}{f'&against={against}' if against else ''}&kl={kl}&samples=64"
            "&transforms=identity,exponential:10",
        )
        played, opponent = ia.parse_procedure(procedure), against and ia.parse_procedure(against)
        shown = rows(extended)
        for row in ia.compare(played, [ia.Identity(), ia.Exponential(10)], kl=kl, against=opponent):
            own = shown[row.transform]
            assert float(own["win"]) == pytest.approx(row.win_rate, abs=2e-6), row
            assert float(own["beta"]) == pytest.approx(row.beta, rel=1e-4), row
        assert words(played) in text(extended, "sentences")
        last = ast.parse(text(extended, "python")).body[-1].value
        scope = {"ia": ia}
        exec(text(extended, "python"), scope)
        assert eval(ast.unparse(last), scope) == pytest.approx(
            float(text(extended, "python").rsplit("# ", 1)[1]), abs=1e-4
        )
        stated = yaml.safe_load(text(extended, "yaml"))
        assert (stated["procedure"], stated.get("against")) == (procedure, against)
