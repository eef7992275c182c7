"""The page, served and exported, in Chromium, as a reader has it."""

import json
import re
from fnmatch import fnmatch
from pathlib import Path

import pytest
from test_export import TEXT, language_model
from test_serve import Server, wait_for

from charlm.config import KNOBS
from charlm.export import html
from charlm.page import learnt, source
from charlm.progress import Progress

ROOT = Path(__file__).parent.parent
CONTROLS = f"prompt {' '.join(KNOBS)} seed length before key write stop another copy curl"
IDLE = "document.getElementById('stop').disabled && document.getElementById('text').textContent"
PHONE, DESK = {"width": 390, "height": 844}, {"width": 1280, "height": 800}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    server = Server(language_model(tmp_path_factory.mktemp("page"), "lstm", units=32))
    yield server
    server.close()


@pytest.fixture(scope="module")
def exported(server, tmp_path_factory):
    path = tmp_path_factory.mktemp("exported") / "page.html"
    html.write(server.model, path)
    return path.as_uri()


@pytest.fixture
def opened(browser):
    """Opens a page in a window; whatever went wrong in it fails the test."""
    contexts, problems = [], []

    def opened(address, **settings):
        contexts.append(browser.new_context(**{"viewport": DESK, **settings}))
        page = contexts[-1].new_page()
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.goto(address)
        return page

    yield opened
    for context in contexts:
        context.close()
    assert not problems


@pytest.fixture(params=["served", "exported"])
def address(request, server, exported):
    return server.url + "/" if request.param == "served" else exported


def write(page, prompt="the ", **settings):
    page.fill("#prompt", prompt)
    page.evaluate("document.getElementById('settings').open = true")
    for name, value in {"length": 120, "seed": 7, "temperature": 1, **settings}.items():
        page.fill(f"#{name}", str(value))
    page.click("#write")
    page.wait_for_function(IDLE)


def middle_of(page, n):
    """Where a part of the text is."""
    box = page.evaluate("n => { const [box] = boxes(parts[n]); return [box.left, box.top, box.width, box.height] }", n)
    return box[0] + box[2] / 2, box[1] + box[3] / 2


def colour(page, selector, name="color"):
    return page.evaluate("([s, n]) => getComputedStyle(document.querySelector(s))[n]", [selector, name])


def test_it_is_one_page_with_the_same_controls_wherever_it_writes(server, address, opened):
    page, asked = opened(address), []
    page.on("request", lambda request: asked.append(request.url))
    controls = page.evaluate("[...document.querySelectorAll('input, textarea, button[id], summary')].map(e => e.id)")
    assert " ".join(filter(None, controls)) == CONTROLS
    write(page, seed=7)
    assert page.inner_text("#status").startswith("120 characters")
    if address.startswith("http"):
        text = server.text("the ", 120, 7)
        assert page.inner_text("#text").rstrip() == ("the " + text).rstrip()
    for n in page.evaluate(
        "[...parts.keys()].filter(n => /\\p{L}/u.test(parts[n].text)).filter((_, n) => n % 25 === 1)"
    ):
        page.mouse.move(*middle_of(page, n))
        assert page.inner_text("#hint").count("%") in (5, 6)
        assert page.evaluate("n => document.querySelector('#hint .drawn bdi').textContent === named(parts[n].text)", n)
    page.mouse.move(1, 1)
    assert page.is_hidden("#hint")
    assert all(url.startswith((server.url, "data:")) for url in asked)
    assert address.startswith("http") or not asked


def test_characters_that_the_model_has_never_seen_are_said(server, opened):
    page = opened(server.url)
    page.fill("#prompt", "the ☃ ")
    page.fill("#length", "20")
    page.click("#write")
    page.wait_for_function(IDLE)
    assert page.inner_text("#warning").startswith("the model has never seen '☃' (U+2603) in the prompt")
    assert page.inner_text("#status").startswith("20 characters")
    write(page)
    assert page.is_hidden("#warning")


def test_the_likeliest_are_reached_by_keyboard_alone_and_said_aloud(address, opened):
    page = opened(address)
    write(page)
    page.focus("#stop") if page.is_enabled("#stop") else page.focus("#more summary")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "text"
    for key, current in (("ArrowRight", 0), ("ArrowRight", 1), ("ArrowLeft", 0), ("End", 119), ("Home", 0)):
        page.keyboard.press(key)
        assert page.evaluate("current") == current
        assert page.is_visible("#hint")
    assert re.fullmatch(r".+, [\d.]+ %\. Others: .*%\.", page.inner_text("#said"), re.S)
    page.keyboard.press("ArrowDown")
    assert page.evaluate("boxes(parts[current])[0].top > boxes(parts[0])[0].top")
    page.keyboard.press("Escape")
    assert page.is_hidden("#hint")


def test_the_likeliest_are_reached_by_touch_and_the_result_is_seen_on_a_phone_without_scrolling(address, opened):
    page = opened(address, viewport=PHONE, has_touch=True, is_mobile=True)
    assert not page.evaluate("document.getElementById('settings').open")
    page.fill("#prompt", "the ")
    page.tap("#write")
    page.wait_for_function(IDLE)
    tops = page.evaluate(
        "['write', 'stop', 'another', 'more'].map(id => document.getElementById(id).getBoundingClientRect().top)"
    )
    assert max(tops) - min(tops) < 1
    assert page.evaluate("scrollY") == 0
    assert page.locator("#text").bounding_box()["y"] < PHONE["height"] / 2
    page.touchscreen.tap(*middle_of(page, 20))
    assert page.inner_text("#hint").count("%") in (5, 6)
    page.touchscreen.tap(200, 5)
    assert page.is_hidden("#hint")
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    page.fill("#prompt", "")
    page.tap("#settings summary")
    page.fill("#length", "")
    page.tap("#settings summary")
    page.tap("#write")
    assert page.evaluate("document.getElementById('settings').open"), "what is missing must be seen"


def test_a_server_that_has_gone_is_said_under_the_buttons_and_the_old_text_stays(server, opened):
    page = opened(server.url)
    write(page)
    old = page.inner_text("#text")
    page.route("**/v1/completions", lambda route: route.abort())
    page.click("#write")
    page.wait_for_selector("#warning")
    assert page.inner_text("#warning") == "The server does not answer. Is it still running?"
    assert page.inner_text("#text") == old
    assert page.get_by_role("alert").inner_text() == page.inner_text("#warning")
    assert colour(page, "#warning") not in (colour(page, "#status"), colour(page, "body"))
    buttons, text = page.locator("#write").bounding_box(), page.locator("#text").bounding_box()
    assert buttons["y"] < page.locator("#warning").bounding_box()["y"] < text["y"]
    page.unroute("**/v1/completions")
    page.route("**/v1/completions", lambda route: route.fulfill(status=502, body="<html>Bad Gateway"))
    page.click("#write")
    page.wait_for_function("document.getElementById('warning').textContent.includes('502')")
    assert page.inner_text("#text") == old
    page.unroute("**/v1/completions")
    page.route("**/v1/completions", lambda route: route.fulfill(body='data: {"error": {"message": "it died"}}\n\n'))
    page.click("#write")
    page.wait_for_function("document.getElementById('warning').textContent === 'The server answered: it died.'")
    page.unroute("**/v1/completions")
    page.click("#write")
    page.wait_for_function(IDLE)
    assert page.is_hidden("#warning")


def test_a_missing_key_opens_a_field_for_it(server, opened):
    page = opened("about:blank")

    def guarded(route):
        borne = route.request.headers.get("authorization")
        refused = {"error": {"message": "a wrong API key, or none"}}
        route.continue_() if borne == "Bearer secret" else route.fulfill(status=401, json=refused)

    page.route("**/v1/completions", guarded)
    page.goto(server.url)
    page.wait_for_selector("#key")
    assert page.is_hidden("#warning")
    page.fill("#prompt", "the ")
    page.click("#write")
    page.wait_for_selector("#warning")
    assert page.inner_text("#warning") == "The server wants its API key."
    assert page.evaluate("document.activeElement.id") == "key"
    page.keyboard.type("wrong")
    page.keyboard.press("Enter")
    page.wait_for_function("document.getElementById('warning').textContent === 'The server has another API key.'")
    page.fill("#key", "secret")
    page.keyboard.press("Enter")
    page.wait_for_function(IDLE)
    assert page.is_hidden("#warning")


def test_a_model_that_is_loading_is_said_to_be_and_when_it_is_ready(server, opened):
    page = opened("about:blank")
    page.route("**/ready", lambda route: route.fulfill(status=503, json={"ready": False, "status": "loading"}))
    page.goto(server.url)
    page.wait_for_function("document.getElementById('status').textContent === 'Loading the model…'")
    page.unroute("**/ready")
    page.wait_for_function(r"/^Ready after \d+ s\.$/.test(document.getElementById('status').textContent)")
    page.wait_for_selector("#openings button")
    page.route("**/ready", lambda route: route.fulfill(status=503, json={"ready": False, "status": "out of memory"}))
    page.goto(server.url)
    page.wait_for_selector("#warning")
    assert page.inner_text("#warning") == "The server cannot use its model: out of memory."


def test_the_time_until_the_first_symbol_is_not_in_the_rate(exported, opened):
    """A clock that stands still but where it is moved by hand."""
    page = opened(exported)
    page.evaluate("""() => {
      let now = 0;
      performance.now = () => now;
      const symbol = { token: "a", nats: 1, likeliest: [["a", -1]] };
      engine.write = async function* () { now += 60_000; yield [symbol]; now += 500; yield Array(50).fill(symbol); };
    }""")
    page.click("#write")
    page.wait_for_function(IDLE)
    assert page.inner_text("#status") == "51 characters, 100 a second."


def test_an_empty_page_offers_beginnings_and_says_what_it_learnt_from(address, opened):
    page = opened(address)
    page.wait_for_selector("#openings button")
    offers = page.locator("#openings button").all_inner_texts()
    assert 1 <= len(offers) <= 3
    assert page.inner_text("#learnt") == f"It learnt from fox.txt ({len(TEXT)} characters)."
    page.locator("#openings button").first.click()
    page.wait_for_function(IDLE)
    assert page.inner_text("#text").startswith(offers[0])
    assert page.is_hidden("#openings")


def test_the_score_is_in_bits_and_belongs_to_the_checkpoint():
    class Scored:
        step = 7
        record = {"corpus": {"paths": ["/home/a/b.txt", "-", "c", "d", "e"], "chars": 12_345}}  # noqa: RUF012

        def __init__(self, best):
            self.best = best

        def standing(self):
            return Progress(best=self.best, best_nats=1.1203)

    read = "It learnt from b.txt, standard input, c and 2 more (12,345 characters)."
    assert learnt(Scored(5), "character") == read
    assert learnt(Scored(7), "byte") == read + " It scores 1.62 bits per byte on text that it has not read."


def test_a_screen_reader_has_one_text_and_not_a_thing_for_each_character(address, opened):
    page = opened(address)
    write(page)
    assert page.evaluate("[...document.getElementById('text').childNodes].map(node => node.nodeName)") == ["#text"]
    assert page.inner_text("#said") == "120 characters written."
    assert page.evaluate("document.getElementById('status').role") is None
    assert page.evaluate("document.querySelector('main :is([aria-live], [role=status])').id") == "said"
    assert page.get_by_role("button", name="Write", exact=True).count() == 1
    for name in "Prompt", "Seed", "Characters", "Temperature 1", "Top p 1", "Repetition penalty 1", "Stop before":
        assert page.get_by_label(name, exact=True).count() == 1, name


def test_arabic_is_shaped_and_set_from_right_to_left(exported, opened):
    """Shades change no letter's form: the text is as wide as without them."""
    page, arabic = opened(exported, viewport=PHONE), "كان يا ما كان في قديم الزمان"
    wide = """text => {
      const range = document.createRange(), plain = document.createElement("div");
      plain.style = "font: 1rem/1.6 ui-monospace, monospace; width: max-content; white-space: pre";
      plain.textContent = text;
      document.body.append(plain);
      range.selectNodeContents(at("text"));
      return [range.getBoundingClientRect().width, plain.getBoundingClientRect().width];
    }"""
    page.evaluate(
        """text => {
      begin("");
      append([...text].map((text, n) => ({ text, nats: n % 6, likeliest: [[text, -1]] })));
    }""",
        arabic,
    )
    shaded, plain = page.evaluate(wide, arabic)
    assert shaded == pytest.approx(plain, abs=0.5)
    assert colour(page, "#text", "direction") == "rtl"
    page.focus("#text")
    for key, current in (("ArrowLeft", 0), ("ArrowLeft", 1), ("ArrowRight", 0)):
        page.keyboard.press(key)
        assert page.evaluate("current") == current
    page.fill("#prompt", arabic)
    assert colour(page, "#prompt", "direction") == "rtl"


def test_parts_of_characters_are_joined_and_what_cannot_be_seen_is_named(exported, opened):
    page = opened(exported)
    tokens = ["a", "bytes:\\xe4", "bytes:\\xb8\\x96", "bytes:\\xff", " ", "\ufffd"]
    joined = page.evaluate(
        "tokens => { const join = joiner(); return tokens.flatMap(token => join({ token, nats: 1, likeliest: [] })) }",
        tokens,
    )
    assert [(part["text"], part["nats"]) for part in joined] == [
        ("a", 1),
        ("世", 2),
        ("\ufffd", 1),
        (" ", 1),
        ("\ufffd", 1),
    ]
    for token, name in (
        (" ", "space"),
        ("\n", "line end"),
        ("\u200f", "U+200F"),
        ("\u0301", "\u25cc\u0301"),
        ("bytes:\\xe4", "byte E4"),
        ("e", "e"),
    ):
        assert page.evaluate("token => named(token)", token) == name


def test_trailing_blanks_are_not_shaded_beyond_the_column(exported, opened):
    page = opened(exported, viewport=PHONE)
    page.evaluate("append([...' '.repeat(200)].map(text => ({ text, nats: 9, likeliest: [] })))")
    assert colour(page, "#text", "overflowX") == "clip"
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]


def test_labels_stand_on_one_line(exported, opened):
    page = opened(exported)
    boxes = page.evaluate(
        """[...document.querySelectorAll('.controls span')].map(label => {
          const box = label.getBoundingClientRect();
          return [box.top, box.height];
        })"""
    )
    tops, heights = zip(*boxes, strict=True)
    assert (len(tops), len(set(tops)), len(set(heights))) == (8, 2, 1)


def test_it_is_stopped_copied_and_asked_for_another(server, opened):
    page = opened(server.url, permissions=["clipboard-read", "clipboard-write"])
    page.wait_for_function("document.activeElement.id === 'prompt'")
    page.keyboard.type("the ")
    page.fill("#seed", "7")
    page.fill("#length", "120")
    page.keyboard.press("Tab")
    page.focus("#prompt")
    page.keyboard.press("Control+Enter")
    page.wait_for_function(IDLE)
    page.click("#more summary")
    page.click("#copy")
    page.wait_for_function("document.getElementById('status').textContent === 'Copied.'")
    assert page.evaluate("navigator.clipboard.readText()") == page.evaluate("at('text').textContent")
    page.click("#more summary")
    page.click("#curl")
    page.wait_for_function("navigator.clipboard.readText().then(text => text.startsWith('curl '))")
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied.startswith(f"curl {server.url}/v1/completions -d '")
    body = json.loads(copied.split(" -d ")[1][1:-1])
    assert server.complete(**body)["choices"][0]["text"] == server.text("the ", 120, 7, temperature=0.8)
    page.fill("#length", "100000")
    page.click("#another")
    page.wait_for_function("parts.length > 50 && running")
    assert page.input_value("#seed") != "7"
    page.keyboard.press("Escape")
    page.wait_for_function("document.getElementById('stop').disabled")
    wait_for(lambda: not server.engine.busy)


# ---- Without a browser.


def luminance(colour):
    parts = (int(colour[n : n + 2], 16) / 255 for n in (1, 3, 5))
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize(
    ("name", "least"), [("border", 3), ("ink", 7), ("dim", 4.5), ("accent", 4.5), ("warning", 4.5)]
)
@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_borders_and_words_are_seen(name, least, scheme):
    found = re.findall(r"--(\w+): light-dark\((#\w{6}), (#\w{6})\)", source("page.css"))
    colours = {name: luminance(pair[scheme]) for name, *pair in found}
    low, high = sorted((colours[name], colours["paper"]))
    assert (high + 0.05) / (low + 0.05) >= least


def test_the_package_has_every_file_of_the_page():
    listed = re.search(r"^charlm = (\[.*\])$", (ROOT / "pyproject.toml").read_text("utf-8"), re.M)[1]
    files = [path.relative_to(ROOT / "charlm").as_posix() for path in (ROOT / "charlm").rglob("*.*")]
    for file in files:
        if not file.endswith((".py", ".pyc")):
            assert any(fnmatch(file, pattern) for pattern in json.loads(listed)), file


def test_the_picture_of_the_page_is_small():
    assert "docs/page.png" in (ROOT / "README.md").read_text("utf-8")
    assert (ROOT / "docs/page.png").stat().st_size < 150_000
