"""The page on which one draws: whom it answers, and that strokes in a browser are recognised."""

import base64
import http.client
import json
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mnist_bench.analysis.demo.server import HOST, MOST_BYTES, PAGE, Demo
from mnist_bench.errors import ConfigError
from mnist_bench.runs.load import load
from tests.support import browser
from tests.support.train_command import environment, started


@pytest.fixture(scope="module")
def demo(trained):
    with Demo(load(trained), 0) as served:
        thread = threading.Thread(target=served.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield served
        served.shutdown()
        thread.join()


def ask(demo, method, path, body=None, host=None, **headers):
    """Return the status, the headers and the content of an answer."""
    connection = http.client.HTTPConnection(HOST, demo.server_port, timeout=20)
    try:
        connection.putrequest(method, path, skip_host=True)
        connection.putheader("Host", host or f"{HOST}:{demo.server_port}")
        if body is not None and "Content_Length" not in headers:
            connection.putheader("Content-Length", str(len(body)))
        for name, value in headers.items():
            connection.putheader(name.replace("_", "-"), value)
        connection.endheaders(body)
        response = connection.getresponse()
        return response.status, response.headers, response.read()
    finally:
        connection.close()


def digit(images, number=0):
    picture = Image.fromarray(images.test_images[number].numpy()).resize((280, 280), 0)
    return picture.tobytes()


def test_a_drawing_is_answered_with_what_the_network_saw(demo, images) -> None:
    status, _, content = ask(demo, "POST", "/predict", digit(images))
    answer = json.loads(content)
    assert status == 200
    assert np.argmax(answer["probabilities"]) == int(images.test_labels[0])
    assert sum(answer["probabilities"]) == pytest.approx(1, abs=1e-4)
    seen = np.frombuffer(base64.b64decode(answer["seen"]), np.uint8).reshape(28, 28)
    assert np.abs(seen.astype(int) - images.test_images[0].numpy()).mean() < 2


def test_the_page_and_its_network(demo) -> None:
    status, headers, page = ask(demo, "GET", "/")
    assert status == 200 and headers["Content-Type"].startswith("text/html")
    nonce = headers["Content-Security-Policy"].partition("'nonce-")[2].partition("'")[0]
    assert f'<script nonce="{nonce}">'.encode() in page and b"NONCE" not in page
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    told = json.loads(ask(demo, "GET", "/network")[2])
    assert told["classes"] == list("0123456789") and told["shape"] == [28, 28, 1]
    text = PAGE.read_text().replace("http://www.w3.org/2000/svg", "")
    assert "//" not in "".join(line.partition("// ")[0] for line in text.splitlines())


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1", "127.0.0.1.evil.example:1", ""])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_another_host_is_refused(demo, images, method, host) -> None:
    path, body = ("/", None) if method == "GET" else ("/predict", digit(images))
    status, _, content = ask(demo, method, path, body, host=host or " ")
    assert status == 403 and b"alone" in content


def test_another_site_is_refused_and_this_one_is_not(demo, images) -> None:
    for origin, expected in [
        ("http://evil.example", 403),
        ("null", 403),
        (f"http://{HOST}:{demo.server_port}", 200),
        (f"http://localhost:{demo.server_port}", 200),
    ]:
        assert ask(demo, "POST", "/predict", digit(images), Origin=origin)[0] == expected
    assert ask(demo, "GET", "/", host=f"localhost:{demo.server_port}")[0] == 200


def test_what_is_no_drawing_is_refused(demo) -> None:
    for body, expected in [(b"12345", 422), (b"", 422), (bytes(280 * 280), 422)]:
        assert ask(demo, "POST", "/predict", body)[0] == expected
    # Refused before any of it is read.
    assert ask(demo, "POST", "/predict", None, Content_Length=str(MOST_BYTES + 1))[0] == 413
    for length in ("-1", "many", ""):
        assert ask(demo, "POST", "/predict", None, Content_Length=length)[0] == 411
    assert ask(demo, "POST", "/predict")[0] == 411
    assert ask(demo, "GET", "/../pyproject.toml")[0] == 404
    assert ask(demo, "POST", "/")[0] == 404


def test_a_port_that_is_taken_is_refused_or_another_found(demo, trained) -> None:
    with pytest.raises(ConfigError, match=f"--port {demo.server_port} cannot be had"):
        Demo(demo.network, demo.server_port)
    with Demo(demo.network) as first, Demo(demo.network) as second:
        assert first.server_port != second.server_port
        assert first.server_address[0] == HOST == second.server_address[0]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_ends_it_with_status_0(trained, tmp_path, mnist_root, number) -> None:
    options = (str(trained), "--no-open")
    environ = environment(mnist_root)
    with started(*options, cwd=tmp_path, environ=environ, verb="demo") as running:
        running.wait_until(lambda: "draw at http://127.0.0.1:" in running.out.read_text())
        time.sleep(0.2)
        running.send(number)
        done = running.end(30)
    assert done.returncode == 0 and done.stdout.endswith("Stopped.\n")
    assert "Traceback" not in done.stderr


# --- In a browser -----------------------------------------------------------------------------

# Strokes, in parts of the board's side.
STROKES = {
    "0": [
        *((0.5, 0.2), (0.36, 0.3), (0.32, 0.5), (0.37, 0.7), (0.5, 0.8)),
        *((0.63, 0.7), (0.68, 0.5), (0.63, 0.3), (0.51, 0.2)),
    ],
    "1": [(0.52, 0.2), (0.5, 0.5), (0.48, 0.8)],
    "3": [
        *((0.32, 0.27), (0.45, 0.2), (0.6, 0.22), (0.65, 0.33), (0.57, 0.44), (0.45, 0.47)),
        *((0.6, 0.52), (0.67, 0.64), (0.6, 0.77), (0.45, 0.8), (0.32, 0.73)),
    ],
    "7": [(0.3, 0.25), (0.5, 0.24), (0.7, 0.25), (0.6, 0.45), (0.5, 0.65), (0.43, 0.82)],
}


def draw(driver, points):
    from selenium.webdriver.common.actions.action_builder import ActionBuilder
    from selenium.webdriver.common.actions.pointer_input import PointerInput

    box = driver.execute_script(
        "const b = document.getElementById('board').getBoundingClientRect();"
        "return [b.left, b.top, b.width]"
    )
    actions = ActionBuilder(driver, mouse=PointerInput("mouse", "mouse"), duration=10)
    for n, (x, y) in enumerate(points):
        place = round(box[0] + x * box[2]), round(box[1] + y * box[2])
        actions.pointer_action.move_to_location(*place)
        if n == 0:
            actions.pointer_action.pointer_down()
    actions.pointer_action.pointer_up()
    actions.perform()


def text_of(driver, name):
    return driver.execute_script("return document.getElementById(arguments[0]).textContent", name)


def wait_for(condition, seconds=20):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.mark.needs_browser
def test_drawn_digits_are_recognised_while_they_are_drawn(demo, tmp_path: Path) -> None:
    with browser.open_browser(tmp_path / "profile", 1100, 800) as driver:
        driver.get(demo.url)
        wait_for(lambda: "trained on mnist" in text_of(driver, "network"))
        for expected, points in STROKES.items():
            draw(driver, points)
            wait_for(lambda expected=expected: text_of(driver, "answer") == expected)
            best = driver.execute_script(
                "return [...document.querySelectorAll('#bars li')].map(li => +li.dataset.share)"
            )
            assert np.argmax(best) == int(expected) and sum(best) == pytest.approx(1, abs=1e-3)
            seen = driver.execute_script(
                "const c = document.getElementById('seen');"
                "const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;"
                "return [c.width, c.height, d.filter((v, n) => n % 4 === 0 && v > 200).length]"
            )
            assert seen[:2] == [28, 28] and seen[2] > 20
            driver.execute_script("document.getElementById('clear').click()")
            wait_for(lambda: text_of(driver, "answer") == "")
        draw(driver, STROKES["1"])
        draw(driver, [(0.2, 0.3), (0.8, 0.7)])
        driver.execute_script("document.getElementById('undo').click()")
        wait_for(lambda: text_of(driver, "answer") == "1")
        for width in (1100, 360):
            browser.resize(driver, width, 800)
            assert driver.execute_script("return document.documentElement.scrollWidth") <= width
        assert browser.console_errors(driver) == []
        assert all(url.startswith(demo.url) for url in browser.requests(driver))
