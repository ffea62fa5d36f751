"""Every figure answers its question, can be read, and stays small."""

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from analyzer.report.figures import draw_all, draw_one, modules
from analyzer.report.figures.style import save

ALL = {module.NAME for module in modules()}


def _drawn(analysis):
    return {one.name: one for one in draw_all(analysis)}


@pytest.fixture(scope="module")
def pictures(everything):
    return _drawn(everything)


def test_each_question_is_answered_where_the_data_allow_it(pictures):
    assert set(pictures) == ALL


def test_titles_are_findings_with_numbers(pictures):
    assert "706 SYNs were dropped by the timestamp check" in pictures["age-delta"].title
    assert "731 of 1,265 SYNs went wrong" in pictures["outcomes"].title
    assert "repeated after 1.0 s, 3.0 s, 7.0 s" in pictures["retries"].title
    assert "30 of 400 clients are hit" in pictures["who-is-hit"].title
    assert "1 of 2 counters rose otherwise than predicted, most ListenDrops: +44" in pictures["counters"].title
    assert "lb is 0.250000 s ± 35 µs behind that of server, drift +50.00 ± 0.40 ppm" in pictures["clock-offset"].title
    assert "of the same four numbers came within 60 s" in pictures["reuse"].title
    assert "came within 60 s of the close" in pictures["closing"].title


def test_what_does_not_apply_is_left_out(healthy, two_syns):
    assert set(_drawn(healthy)) == {"outcomes"}
    assert set(_drawn(two_syns)) == {"ladder", "outcomes", "retries"}


def _boxes(labels, renderer):
    return [label.get_window_extent(renderer) for label in labels if label.get_visible() and label.get_text()]


@pytest.mark.parametrize("case", ["everything", "behind_lb", "two_syns"])
def test_nothing_overlaps_or_leaves_the_picture(case, request):
    for one in draw_all(request.getfixturevalue(case)):
        canvas = FigureCanvasAgg(one.figure)
        canvas.draw()
        renderer = canvas.get_renderer()
        whole = one.figure.bbox.padded(2)
        for axes in one.figure.axes:
            for labels in (axes.get_xticklabels(), axes.get_yticklabels()):
                boxes = _boxes(labels, renderer)
                hits = [a for i, a in enumerate(boxes) for b in boxes[i + 1 :] if a.overlaps(b)]
                assert not hits, one.name
            for text in (axes._left_title, axes.xaxis.label, axes.yaxis.label, *axes.texts):
                box = text.get_window_extent(renderer)
                if text.get_text():
                    assert whole.x0 <= box.x0 and box.x1 <= whole.x1 and whole.y0 <= box.y0 and box.y1 <= whole.y1, (
                        one.name,
                        text.get_text(),
                    )


def test_no_axes_is_empty(pictures):
    for one in pictures.values():
        assert all(axes.has_data() or axes.texts for axes in one.figure.axes), one.name


def test_three_lanes_and_one_arrow_for_a_packet_seen_twice(behind_lb):
    axes = draw_one(behind_lb, "ladder").axes[0]
    words = [text.get_text() for text in axes.texts]
    assert [w.split("\n")[0] for w in words if w.split("\n")[0] in ("client", "load balancer", "server")] == [
        "client",
        "load balancer",
        "server",
    ]
    assert any("server1 " in w and "lb_server.pcap.zst " in w for w in words)


def test_a_rejected_syn_is_marked_inside_the_region(recycled):
    axes = draw_one(recycled, "age-delta").axes[0]
    crosses = axes.collections[-1].get_offsets()
    inside = (crosses[:, 0] <= -2) & (crosses[:, 1] < 60)
    assert np.count_nonzero(inside) >= len(crosses) - 1 > 600


def test_memory_step_holds_the_values_that_were_kept(recycled):
    axes = draw_one(recycled, "tsval-time").axes[0]
    step = next(line for line in axes.lines if "remembers" in str(line.get_label()))
    kept = set(recycled.main.replayed.peer_states["tsval"].tolist())
    assert all(min(abs(round(v * 1e9) - k) for k in kept) <= 1 for v in step.get_ydata())


def test_unknown_figure_is_named(recycled):
    with pytest.raises(KeyError, match="ladder"):
        draw_one(recycled, "pie")


def test_files_are_the_same_each_time(everything, tmp_path):
    first, second = tmp_path / "a", tmp_path / "b"
    for folder in (first, second):
        folder.mkdir()
        save(_drawn(everything)["reuse"], folder)
    for name in ("reuse.svg", "reuse.png"):
        assert (first / name).read_bytes() == (second / name).read_bytes()
