"""Report pages in a browser: they draw, react, and send no requests."""

import json
import shutil
import time

import pytest
from browsers import WIDTHS
from PIL import Image
from report_runs import START, make_run, start_at, write_lines

from trainer.report import comparison
from trainer.report.run_report import RunReport
from trainer.storage import RunDirectory

HOSTILE = "</script><script>document.title='hacked'</script><img src=x onerror=\"document.title='hacked'\">"

pytestmark = pytest.mark.slow


@pytest.fixture
def open_page(browser, tmp_path):
    """Opens a page at a width. At the end, it checks that there were no errors and no requests."""
    problems, contexts = [], []

    def show(content, width=1280, scheme="light"):
        path = tmp_path / "page.html"
        path.write_bytes(content)
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: problems.append(message.text))
        page.on("pageerror", lambda error: problems.append(str(error)))
        allowed = ("data:", path.as_uri())
        page.on("request", lambda request: request.url.startswith(allowed) or problems.append(request.url))
        page.goto(path.as_uri())
        return page

    yield show
    for context in contexts:
        context.close()
    assert problems == []


def page_of(folder):
    return RunReport(RunDirectory(folder)).render()


def comparison_of(tmp_path):
    folders = [
        make_run(tmp_path / name, seed=seed, generator_learning_rate=rate, evaluations={0: 500.0, 100: best})
        for name, seed, rate, best in (("a", 1, 0.1, 30.0), ("b", 2, 0.01, 9.0), ("c", 10, 0.001, 100.0))
    ]
    return comparison.render([RunReport(RunDirectory(folder)) for folder in folders])


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_pages_fit_their_width_and_draw_their_charts(open_page, tmp_path, width, scheme):
    for content, num_charts in ((page_of(make_run(tmp_path / "run")), 3), (comparison_of(tmp_path), 3)):
        page = open_page(content, width, scheme)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.locator(".chart canvas").count() == num_charts
        is_drawn = (
            """canvas => canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data.some(Boolean)"""
        )
        assert all(page.locator(".chart canvas").nth(index).evaluate(is_drawn) for index in range(num_charts))
        assert page.locator("h1").count() == 1


def test_the_slider_shows_the_grids_over_the_training_time(open_page, tmp_path):
    page = open_page(page_of(make_run(tmp_path / "run")))
    image, caption = page.locator(".samples img").first, page.locator(".samples figcaption").first
    seen = set()
    page.locator("#grid").focus()
    for step in (200, 100, 0):
        assert f"Step {step}" in caption.inner_text()
        assert f"{step}" in image.get_attribute("alt")
        page.wait_for_function("image => image.complete && image.naturalWidth", arg=image.element_handle())
        seen.add(image.get_attribute("src"))
        page.keyboard.press("ArrowLeft")
    assert len(seen) == 3
    page.get_by_role("button", name="Next").click()
    assert "Step 100" in caption.inner_text()


def plot_of(page, title):
    return page.locator(f'.chart[data-title="{title}"] .u-over')


def test_hovering_over_a_chart_reads_its_values(open_page, tmp_path):
    page = open_page(page_of(make_run(tmp_path / "run")))
    plot = plot_of(page, "frechet_digits_100")
    plot.scroll_into_view_if_needed()
    box = plot.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 20)
    reading = page.locator('.chart[data-title="frechet_digits_100"] .reading')
    assert "100" in reading.inner_text()
    assert "20" in page.locator('.chart[data-title="frechet_digits_100"] .legend output').first.inner_text()


def test_a_chart_is_read_and_zoomed_with_the_keyboard(open_page, tmp_path):
    page = open_page(page_of(make_run(tmp_path / "run")))
    chart = page.locator('.chart[data-title="Losses"]')
    chart.locator('[role="group"]').focus()
    page.keyboard.press("End")
    assert "200" in chart.locator(".reading").inner_text()
    page.keyboard.press("ArrowLeft")
    assert "190" in chart.locator(".reading").inner_text()
    before = chart.locator(".u-axis").first.evaluate("() => document.querySelector('canvas').toDataURL()")
    page.keyboard.press("+")
    page.keyboard.press("Home")
    first = chart.locator(".reading").inner_text()
    assert ": 10" not in first.replace(": 100", "") and before
    page.keyboard.press("0")
    page.keyboard.press("Home")
    assert chart.locator(".reading").inner_text().startswith("Steps: 10")


def test_dragging_zooms_and_a_double_click_shows_everything(open_page, tmp_path):
    page = open_page(page_of(make_run(tmp_path / "run")))
    plot = plot_of(page, "Losses")
    plot.scroll_into_view_if_needed()
    box = plot.bounding_box()
    canvas = page.locator('.chart[data-title="Losses"] canvas')
    before = canvas.evaluate("canvas => canvas.toDataURL()")
    page.mouse.move(box["x"] + box["width"] * 0.3, box["y"] + 50)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.6, box["y"] + 60, steps=5)
    page.mouse.up()
    assert canvas.evaluate("canvas => canvas.toDataURL()") != before
    page.mouse.dblclick(box["x"] + box["width"] * 0.5, box["y"] + 50)
    assert canvas.evaluate("canvas => canvas.toDataURL()") == before


@pytest.mark.parametrize(("control", "value"), [("#y-scale", "log"), ("#x-axis", "hours"), ("#x-axis", "images")])
def test_axes_can_be_changed(open_page, tmp_path, control, value):
    page = open_page(page_of(make_run(tmp_path / "run")))
    canvas = page.locator('.chart[data-title="Losses"] canvas')
    before = canvas.evaluate("canvas => canvas.toDataURL()")
    page.locator(control).select_option(value)
    canvas = page.locator('.chart[data-title="Losses"] canvas')
    assert canvas.evaluate("canvas => canvas.toDataURL()") != before


def test_a_log_scale_of_values_below_zero_says_what_is_missing(open_page, tmp_path):
    folder = make_run(tmp_path / "run")
    lines = [{"step": step, "loss/a": step - 5.0, "penalty/b": -1.0, "other": 0} for step in range(10)]
    write_lines(folder / "metrics.jsonl", lines)
    page = open_page(page_of(folder))
    page.locator("#y-scale").select_option("log")
    assert "0" in page.locator('.chart[data-title="Losses"] .reading').inner_text()
    assert "linear" in page.locator('.chart[data-title="Penalties"] .reading').inner_text()


def test_smoothing_changes_curves_and_legend_buttons_hide_them(open_page, tmp_path):
    page = open_page(page_of(make_run(tmp_path / "run")))
    picture = """() => document.querySelector('.chart[data-title="Losses"] canvas').toDataURL()"""
    pictures = [page.evaluate(picture)]
    page.locator("#smoothing").fill("0.9")
    pictures.append(page.evaluate(picture))
    button = page.locator('.chart[data-title="Losses"] .legend button')
    button.click()
    pictures.append(page.evaluate(picture))
    assert button.get_attribute("aria-pressed") == "false"
    assert len(set(pictures)) == 3


def test_the_table_of_a_comparison_is_sorted_by_buttons(open_page, tmp_path):
    page = open_page(comparison_of(tmp_path))

    def order():
        return page.locator("#runs tbody th").all_inner_texts()

    assert order() == ["b", "a", "c"]  # by the best value
    heading = page.locator("#runs thead th", has_text="seed")
    heading.get_by_role("button").focus()
    for direction, expected in (("ascending", ["a", "b", "c"]), ("descending", ["c", "b", "a"])):
        page.keyboard.press("Enter")
        assert order() == expected and heading.get_attribute("aria-sort") == direction
    assert page.locator("#parallel path").count() == 3
    assert page.locator("#parallel path.best").get_attribute("aria-label").startswith("b:")
    assert page.locator("#parallel > text ~ path").count() == 0  # no line covers a text
    texts, frame = page.locator("#parallel text"), page.locator("#parallel").bounding_box()
    boxes = [texts.nth(index).bounding_box() for index in range(texts.count())]
    assert min(box["x"] for box in boxes) >= frame["x"]
    assert max(box["x"] + box["width"] for box in boxes) <= frame["x"] + frame["width"]


def test_a_comparison_of_runs_on_different_data_marks_no_run_as_the_best(open_page, tmp_path):
    runs = [
        make_run(tmp_path / name, dataset=name, evaluations={100: best}) for name, best in (("a", 30.0), ("b", 9.0))
    ]
    page = open_page(comparison.render([RunReport(RunDirectory(run)) for run in runs]))
    assert page.locator("#runs tbody th").all_inner_texts() == ["a", "b"]
    assert page.locator("#parallel path").count() == 2 and page.locator("#parallel path.best").count() == 0
    notice = page.locator(".warnings li").first.inner_text()
    assert "'a'" in notice and "'b'" in notice


@pytest.mark.parametrize("kind", ["run", "comparison"])
def test_hostile_text_is_shown_as_text(open_page, tmp_path, kind):
    events = [start_at(START) | {"version": HOSTILE, "weights": {HOSTILE: HOSTILE}}]
    folder = make_run(tmp_path / "run", recipe=HOSTILE, dataset=HOSTILE, events=events)
    line = {"step": 300, f"loss/{HOSTILE}": 1.0, f"metric/{HOSTILE}": 1.0, "event/rollback": 1}
    with (folder / "metrics.jsonl").open("a") as file:
        file.write(json.dumps(line) + "\n")
    reports = [RunReport(RunDirectory(folder)), RunReport(RunDirectory(make_run(tmp_path / "other")))]
    page = open_page(reports[0].render() if kind == "run" else comparison.render(reports))
    page.wait_for_timeout(200)
    assert page.title() != "hacked" and page.locator("script").count() == 2
    assert "<script>document.title" in page.locator("main").inner_text()


@pytest.mark.parametrize("missing", ["metrics.jsonl", "samples", "events.jsonl"])
def test_a_run_without_results_has_a_page_that_says_so(open_page, tmp_path, missing):
    folder = make_run(tmp_path / "run")
    shutil.rmtree(folder / missing) if (folder / missing).is_dir() else (folder / missing).unlink()
    for content in (page_of(folder), comparison.render([RunReport(RunDirectory(folder))] * 2)):
        page = open_page(content, 390)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_a_page_can_be_printed(open_page, tmp_path):
    page = open_page(page_of(make_run(tmp_path / "run")), scheme="dark")
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert not page.locator("#y-scale").is_visible()
    assert len(page.pdf()) > 10_000


def test_a_page_of_a_long_run_opens_quickly(open_page, tmp_path):
    folder = make_run(tmp_path / "run", num_lines=100_000, every_steps=1, grids=())
    for step in range(200):
        Image.effect_noise((342, 342), 80).convert("RGB").save(folder / f"samples/step-{step:08d}.png")
    content = page_of(folder)
    begin = time.monotonic()
    page = open_page(content)
    assert page.locator(".chart canvas").count() == 3
    assert time.monotonic() - begin < 3


@pytest.mark.parametrize("width", WIDTHS)
def test_long_settings_take_one_line_until_their_run_is_expanded(open_page, tmp_path, width):
    options = [{"filters": [8 * number] * 30, "blocks": 2} for number in (1, 2)]
    folders = [
        make_run(tmp_path / str(index), architecture_options=value, dataset=f"{index}: flowers and trees" * 4)
        for index, value in enumerate(options)
    ]
    page = open_page(comparison.render([RunReport(RunDirectory(folder)) for folder in folders]), width)
    line = page.locator("#runs thead tr").bounding_box()["height"]
    rows = page.locator("#runs tbody tr")
    assert all(rows.nth(index).bounding_box()["height"] <= 1.2 * line for index in range(2))
    cell = rows.first.locator("span", has_text="filters")
    assert rows.first.locator("[tabindex]").count() == 0 and rows.first.locator("button").count() == 1
    rows.first.locator("button").focus()
    page.keyboard.press("Enter")
    assert json.loads(cell.inner_text()) in options and cell.get_attribute("title") == cell.inner_text()
    assert cell.evaluate("cell => cell.scrollWidth <= cell.clientWidth")


def test_a_narrow_page_breaks_no_word_in_the_names_of_settings_and_no_short_cell(open_page, tmp_path):
    page = open_page(page_of(make_run(tmp_path / "run")), width=390)
    page.locator("details summary").first.click()
    count_lines = """nodes => nodes.flatMap(node => [...node.childNodes])
      .filter(node => node.nodeType === Node.TEXT_NODE)
      .map(text => {
        const range = document.createRange();
        range.selectNode(text);
        return range.getClientRects().length;
      })"""
    for cells in ("th code", "td:has-text('lower is better')"):
        lines = page.locator(cells).evaluate_all(count_lines)
        assert lines and set(lines) == {1}, cells
