"""Clients that are programs of their own: curl, and clients and browsers through nginx. `make clients` has more."""

import json
import shutil
import subprocess
import threading

import pytest

httpx, openai = (pytest.importorskip(name) for name in ("httpx", "openai"))

ASKED = {"prompt": "the ", "max_tokens": 60, "seed": 3, "temperature": 1}


def program(name):
    return shutil.which(name) or pytest.skip(f"{name} is not installed")


@pytest.fixture(scope="module")
def nginx(served, tmp_path_factory):
    """The server behind a bare proxy_pass, and below a prefix."""
    import nginx

    if nginx.found() is None:
        pytest.skip("nginx is not installed")
    with nginx.before(served.url, tmp_path_factory.mktemp("nginx")) as urls:
        yield urls


@pytest.mark.parametrize("version", ["--http1.0", "--http1.1"])
def test_curl_completes_and_streams_by_old_and_new_http(served, version):
    def curl(**more):
        command = [program("curl"), "--silent", "--show-error", version, f"{served.url}/v1/completions"]
        body = json.dumps(ASKED | more)
        return subprocess.run([*command, "-d", body], capture_output=True, text=True, check=True, timeout=600).stdout

    assert json.loads(curl())["choices"][0]["text"] == served.text("the ", 60, 3)
    *events, last = [line for line in curl(stream=True).splitlines() if line]
    assert last == "data: [DONE]"
    assert "".join(json.loads(e[6:])["choices"][0]["text"] for e in events) == served.text("the ", 60, 3)


def test_openais_client_works_through_nginx_bare_and_below_a_prefix(served, nginx):
    for url in nginx:
        with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
            assert client.completions.create(model="run", **ASKED).choices[0].text == served.text("the ", 60, 3)
            chunks = client.completions.create(model="run", stream=True, **ASKED)
            assert "".join(chunk.choices[0].text for chunk in chunks) == served.text("the ", 60, 3)


def test_nginx_gives_a_text_on_as_it_is_written(served, nginx, monkeypatch):
    """The second chunk is not computed before the first has come through."""
    from serving import wait_for

    wait_for(lambda: not served.engine.busy)  # with what others asked for
    arrived, advance, chunks = threading.Event(), served.engine._batch.advance, []

    def held(*args):
        chunks.append(1)
        assert len(chunks) == 1 or arrived.wait(600)
        return advance(*args)

    monkeypatch.setattr(served.engine._batch, "advance", held)
    body = ASKED | {"max_tokens": 1000, "stream": True}
    with httpx.stream("POST", f"{nginx[0]}/v1/completions", json=body, timeout=60) as answer:
        lines = (line for line in answer.iter_lines() if line)
        next(lines)
        arrived.set()
        *_, last = lines
    assert last == "data: [DONE]"
    assert len(chunks) > 1


def test_a_page_behind_a_bare_nginx_is_told_the_way_out(nginx):
    """Over plain HTTP a browser says where a page is from, and nginx does not say which name it was asked by."""
    answer = httpx.post(f"{nginx[0]}/v1/completions", json=ASKED, headers={"Origin": "http://proxy.example:8080"})
    assert answer.status_code == 403
    assert "start it with --public-url http://proxy.example:8080" in answer.json()["error"]["message"]


def test_the_described_addresses_are_tried_in_a_browser_below_a_prefix(served, nginx, browser):
    page, wrong = browser.new_page(), []
    page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
    page.goto(f"{nginx[1]}/docs")
    page.click("text=Text that goes on from a prompt")
    assert page.is_hidden(".scheme-container"), "a choice among one server"
    page.click("text=Try it out")
    page.click("button.execute")
    page.wait_for_selector(".live-responses-table")
    assert page.inner_text(".request-url pre") == f"{nginx[1]}/v1/completions"
    assert "text_completion" in page.inner_text(".live-responses-table")
    assert not wrong
    page.close()
