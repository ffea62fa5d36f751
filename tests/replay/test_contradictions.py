"""An answer against a certain prediction is named, with what it refutes."""

from analyzer.kernel.profiles import find_profile
from analyzer.kernel.settings import Settings
from analyzer.replay.contradictions import contradictions
from analyzer.replay.run import Scope, replay
from tests.replay.real import capture, settings


def names(name, kernel, values, **scope):
    tracked = capture(name)
    return {c.name: c for c in contradictions(tracked, replay(tracked, find_profile(kernel), values, Scope(**scope)))}


def test_the_right_kernel_is_not_contradicted():
    assert not names("el7-recycle", "el7.9", settings("el7-recycle"))


def test_a_memory_that_rejects_nothing_refutes_tw_recycle():
    found = names("el7-norecycle", "el7.9", Settings(tw_recycle=1, backlog=128))
    refuted = found["memory_did_not_reject"]
    assert refuted.syns > 10
    assert 0 < len(refuted.frames) <= 20
    assert any("tcp_tw_recycle was 0" in why for why in refuted.refutes)
    assert any("4.12" in why for why in refuted.refutes)


def test_the_quirk_of_dual_stack_listeners_is_named_where_it_exists():
    found = names("el7-norecycle", "3.10", Settings(tw_recycle=1, backlog=128))
    assert any("IPv6" in why for why in found["memory_did_not_reject"].refutes)


def test_silence_on_a_certain_accept_is_one():
    found = names("el7-recycle", "6.1", Settings(backlog=1024))
    assert "taken_in_silence" in found
