"""Clients that are programs of their own: curl, and clients and browsers through nginx. `make clients` has more."""

import json
import os
import shutil
import socket
import subprocess
import threading

import pytest

httpx, openai = (pytest.importorskip(name) for name in ("httpx", "openai"))

from serving import wait_for  # noqa: E402

ASKED = {"prompt": "the ", "max_tokens": 60, "seed": 3, "temperature": 1}
NGINX = """
daemon off; pid {folder}/pid; error_log {folder}/log;
events {{}}
http {{
  access_log off; client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f;
  uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  server {{ listen 127.0.0.1:{bare}; location / {{ proxy_pass {url}; }} }}
  server {{ listen 127.0.0.1:{below}; location /charlm/ {{ proxy_pass {url}/; }} }}
}}
"""


def program(name):
    found = shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin")
    return found or pytest.skip(f"{name} is not installed")


def free_port():
    with socket.socket() as tried:
        tried.bind(("127.0.0.1", 0))
        return tried.getsockname()[1]


@pytest.fixture(scope="module")
def nginx(served, tmp_path_factory):
    """The server behind a bare proxy_pass, and below a prefix."""
    folder, bare, below = tmp_path_factory.mktemp("nginx"), free_port(), free_port()
    settings = folder / "nginx.conf"
    settings.write_text(NGINX.format(folder=folder, bare=bare, below=below, url=served.url))
    urls = f"http://127.0.0.1:{bare}", f"http://127.0.0.1:{below}/charlm"
    with subprocess.Popen([program("nginx"), "-c", str(settings)]) as process:
        try:
            wait_for(lambda: process.poll() is not None or all(map(answers, urls)))
            yield urls
        finally:
            process.terminate()


def answers(url):
    try:
        return httpx.get(f"{url}/health").status_code == 200
    except httpx.TransportError:
        return False


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
    page.click("text=Try it out")
    page.click("button.execute")
    page.wait_for_selector(".live-responses-table")
    assert page.inner_text(".request-url pre") == f"{nginx[1]}/v1/completions"
    assert "text_completion" in page.inner_text(".live-responses-table")
    assert not wrong
    page.close()
