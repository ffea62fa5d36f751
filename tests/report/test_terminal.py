"""The verdict on a terminal: one screen, any width, any terminal, no control character."""

import io
from dataclasses import replace

import pytest
from rich.console import Console

from analyzer.report.markdown import render as markdown
from analyzer.report.terminal import show


def shown(analysis, width=80, **options):
    out = io.StringIO()
    show(analysis, Console(file=out, width=width, highlight=False, **options))
    return out.getvalue()


@pytest.mark.parametrize("case", ["recycled", "behind_lb", "healthy", "two_syns"])
def test_one_screen_of_80_columns(case, request):
    lines = shown(request.getfixturevalue(case)).splitlines()
    assert len(lines) <= 30
    assert max(map(len, lines)) <= 80


def test_a_wide_screen_tells_more(everything):
    narrow, wide = shown(everything), shown(everything, 140)
    assert len(" ".join(wide.split())) > 1.2 * len(" ".join(narrow.split()))
    assert "Would refute it" in wide
    for text in (narrow, wide):
        words = " ".join(text.split())
        assert "731 of 1,265 SYNs got no SYN-ACK; 130 of 664 attempts failed for good." in words
        assert "30 of 400 clients are hit" in words
        assert "PAWSPassive +706 (as predicted); ListenDrops +750 (predicted +706)" in words
        assert "tcp_tw_recycle=0: 3 SYNs lost instead of 706." in words


def test_healthy_says_how_sure(healthy):
    words = " ".join(shown(healthy).split())
    assert "Nothing is wrong: all 3 SYNs were answered. 3 of 3 answered handshakes" in words
    assert "cannot be seen from here" in words


def test_colour_only_where_it_is_wanted(recycled, monkeypatch):
    assert "\x1b[" in shown(recycled, force_terminal=True, color_system="standard")
    assert "\x1b[" not in shown(recycled)
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[3" not in shown(recycled, force_terminal=True, color_system="standard")


def test_a_terminal_without_unicode(everything):
    raw = io.BytesIO()
    out = io.TextIOWrapper(raw, encoding="ascii", errors="strict")
    show(everything, Console(file=out, width=80, highlight=False))
    out.flush()
    assert b"731 of 1,265" in raw.getvalue()


HOSTILE = "evil\x1b]0;owned\x07\x1b[2J\u202e<b>.pcap\udcff|`*"


def test_hostile_names_move_no_cursor(two_syns):
    info = replace(two_syns.main.tracked.files[0], path=HOSTILE)
    before, two_syns.main.tracked.files = two_syns.main.tracked.files, [info]
    try:
        text = shown(two_syns, 200)
    finally:
        two_syns.main.tracked.files = before
    assert "\x1b" not in text and "\x07" not in text and "\u202e" not in text
    assert "\\x1b]0;owned" in text


def test_markdown_tells_the_same(everything):
    text = markdown(everything)
    assert text.startswith("# 731 of 1,265 SYNs got no SYN-ACK\n")
    assert "| 10.0.0.0 | 172.16.10.241 | 40 | 20 |" in text
    assert "| server | ListenDrops | 750 | 706 | +44 | another port |" in text
    assert "- tcp\\_tw\\_recycle=0: 3 SYNs lost instead of 706." in text


def test_markdown_takes_hostile_text_as_text(everything):
    from analyzer.report.markdown import plain

    assert plain(HOSTILE) == "evil\\\\x1b]0;owned\\\\x07\\\\x1b\\[2J\\\\u202e&lt;b>.pcap\\\\udcff\\|\\`\\*".replace(
        "x1b]", "x1b\\]"
    )
    assert "\x1b" not in markdown(everything)
