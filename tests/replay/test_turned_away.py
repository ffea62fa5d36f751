"""Third ACKs at a full accept queue leave their requests half-open."""

from types import SimpleNamespace

from analyzer.kernel.profiles import find_profile
from analyzer.kernel.settings import Settings
from analyzer.replay.judge import Ruling
from analyzer.replay.queues import Queues

PROFILE = find_profile("el7.9")
"""It drops a SYN at a full accept queue only while more than one request is young."""

REACHED = SimpleNamespace(refuses=lambda *_: False, shown=lambda *_: True)


def queues() -> Queues:
    settings = Settings(backlog=1, syncookies=0, max_syn_backlog=64).with_defaults(PROFILE)
    return Queues(PROFILE, settings, lambda chain: chain, REACHED)


def handshake(queue: Queues, chain: int, now: int) -> Ruling:
    ruling = Ruling("accept", True, "listener", by_listener=True)
    queue.judge_syn(chain, now, ruling, has_ts=True)
    queue.syn(chain, now, ruling)
    if ruling.verdict == "accept":
        queue.answered(chain, now)
        queue.third_ack(chain)
    return ruling


def test_young_requests_of_a_full_queue_make_it_drop():
    queue = queues()
    said = [handshake(queue, chain, 1_000_000 * chain).verdict for chain in range(1, 6)]
    assert said == ["accept"] * 4 + ["drop"]  # two accepted, two turned away, and those are young
    assert (len(queue.accepts), len(queue.requests)) == (2, 2)


def test_a_word_of_the_server_proves_that_there_was_room_after_all():
    queue = queues()
    for chain in range(1, 5):
        handshake(queue, chain, 1_000_000 * chain)
    for chain in range(1, 5):
        queue.alive(chain, application=True)
    assert (len(queue.accepts), len(queue.requests)) == (0, 0)
    assert handshake(queue, 9, 10_000_000).verdict == "accept"


def test_an_accept_queue_that_may_be_full_leaves_a_doubt():
    queue = queues()
    for chain in range(1, 4):
        handshake(queue, chain, 1_000_000 * chain)
    ruling = Ruling("accept", True, "listener", by_listener=True)
    assert queue.judge_syn(4, 4_000_000, ruling, has_ts=True)
    assert ruling.alternative == "accept_queue_full"
