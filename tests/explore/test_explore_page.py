"""The page of the explorer in a browser: it draws, reacts to every control, and sends requests only to its server."""

import threading
from pathlib import Path

import pytest
from browsers import WIDTHS
from conftest import tiny_gan
from PIL import Image

from trainer.explore.points import Explorer
from trainer.explore.server import ExploreServer

pytestmark = pytest.mark.slow
HOSTILE = "</option><script>document.title='hacked'</script>"


@pytest.fixture(scope="module")
def server():
    gan = tiny_gan("dcgan", model="conditional")
    server = ExploreServer(
        Explorer(gan, [HOSTILE, *(f"class {number}" for number in range(1, 10))], "digits at step 4")
    )
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.finish()


@pytest.fixture
def open_page(browser, server):
    problems, contexts = [], []

    def show(width=1280, scheme="light"):
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: problems.append(message.text))
        page.on("pageerror", lambda error: problems.append(str(error)))
        allowed = ("data:", "blob:", server.address)
        page.on("request", lambda request: request.url.startswith(allowed) or problems.append(request.url))
        page.goto(server.address)
        wait(page)
        return page

    yield show
    for context in contexts:
        context.close()
    assert problems == []


def wait(page):
    """Waits until the page has shown the newest image."""
    page.wait_for_function("() => !images.isBusy && !maps.isBusy && state.shown !== null")


def picture_of(page):
    """The pixels of the image."""
    wait(page)
    return page.evaluate("""() => {
      const image = document.getElementById("image"), canvas = document.createElement("canvas");
      [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
      canvas.getContext("2d").drawImage(image, 0, 0);
      return canvas.toDataURL();
    }""")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_the_page_fits_its_width_and_draws(open_page, width, scheme):
    page = open_page(width, scheme)
    for base in ("seed", "corners"):
        page.locator(f"input[value={base}]").check()
        wait(page)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate("document.getElementById('image').naturalWidth") == 28
    assert page.evaluate("document.getElementById('map-image').naturalWidth") == 140
    assert page.title() != "hacked" and page.locator("#status").inner_text() == ""


def test_every_control_changes_the_image(open_page):
    page = open_page()
    seen = [picture_of(page)]

    def use(action):
        action()
        seen.append(picture_of(page))
        assert len(set(seen)) == len(seen)

    use(lambda: page.locator("#seed").fill("12"))
    use(lambda: page.locator("#class").select_option("3"))
    use(lambda: page.locator("#truncates").check())
    use(lambda: page.locator("#truncation").fill("0.2"))
    use(lambda: page.locator("#sliders input").first.fill("3"))
    page.locator("#kind").select_option("coordinates")
    page.locator("#sliders input").last.focus()
    use(lambda: page.keyboard.press("End"))
    use(lambda: page.locator("#random").click())
    page.locator("#reset").click()
    page.locator("input[value=corners]").check()
    wait(page)
    use(lambda: page.locator("#map").click(position={"x": 20, "y": 30}))
    page.locator("#map").focus()
    use(lambda: page.keyboard.press("ArrowRight"))


def test_two_fixed_points_are_interpolated_and_an_image_is_saved(open_page, tmp_path):
    page = open_page()
    first = picture_of(page)
    page.locator("#fix-a").click()
    page.locator("#seed").fill("5")
    second = picture_of(page)
    page.locator("#fix-b").click()
    page.locator("input[value=between]").check()
    page.locator("#share").fill("0.5")
    between = picture_of(page)
    assert len({first, second, between}) == 3
    page.locator("#point-a").click()
    assert picture_of(page) == first
    with page.expect_download() as download:
        page.locator("#save").click()
    assert download.value.suggested_filename == "seed-00000000-label-0.png"
    path = Path(tmp_path / "saved.png")
    download.value.save_as(path)
    assert Image.open(path).text["seed"] == "0"


def test_moves_of_fixed_points_apply_once_between_them(open_page):
    page = open_page()
    slider = page.locator("#sliders input").first
    slider.fill("3")
    moved = picture_of(page)
    for slot in "ab":
        page.locator(f"#fix-{slot}").click()
    page.locator("input[value=between]").check()
    assert picture_of(page) == moved and slider.input_value() == "0"
    slider.fill("-2")
    moved_again = picture_of(page)
    for slot in "ab":
        page.locator(f"#point-{slot}").click()
        assert picture_of(page) == moved
    slider.fill("-2.05")
    slider.fill("-2")
    picture_of(page)
    page.locator("#fix-a").click()
    page.locator("#share").fill("0")
    assert picture_of(page) == moved_again and slider.input_value() == "0"
    page.locator("input[value=seed]").check()
    assert picture_of(page) == moved and slider.input_value() == "3"


@pytest.mark.parametrize("base", ["seed", "corners"])
def test_a_bad_seed_is_explained_and_not_sent(open_page, base):
    page, sent = open_page(), []
    page.locator(f"input[value={base}]").check()
    before = picture_of(page)
    page.on("request", lambda request: sent.append(request.url))
    for text in ("", "-1", "1.5", "100000000"):
        page.locator(f"[data-base={base}] input").first.fill(text)
        assert "from 0 to 99999999" in page.locator("#status").inner_text()
    assert picture_of(page) == before and sent == []
    page.locator(f"[data-base={base}] input").first.fill("11")
    assert picture_of(page) != before and page.locator("#status").inner_text() == ""
