"""The live server's machinery: writes, queues, timers, cookies; one behaviour each, typed from the specification."""

import pytest

from analyzer.kernel.events import ACK, FIN, RST, SYN, Accept, Close, Connect, Segment, Send, Shutdown, Timer
from analyzer.kernel.model import Machine, Server
from analyzer.kernel.profiles import find_profile
from analyzer.kernel.settings import Settings
from analyzer.seqnum import add32

NS = 1_000_000_000
T0 = 1_500_000_000 * NS
US, PEER, PORT = "server", "peer", 1120


class Talk:
    """A client typed by hand against a live server; times are seconds from the start."""

    def __init__(self, kernel="el7.9", port=5000, ts=1000, server=None, backlog=128, **settings):
        self.server = server or Server(find_profile(kernel), Settings(tw_recycle=1, **settings))
        if server is None:
            self.server.listen(PORT, backlog)
        self.port, self.ts, self.seq, self.ack = port, ts, 7_000, 0
        self.key = (US, PORT, PEER, port)

    def say(self, at, flags, length=0, ts=None, seq=None, ack=None):
        seq = self.seq if seq is None else seq
        tsval = self.ts + round(at * 1_000) if ts is None else ts
        said = self.server.feed(
            Segment(T0 + round(at * NS), PEER, self.port, US, PORT, flags, seq, self.ack if ack is None else ack,
                    tsval, 0, length)
        )  # fmt: skip
        for reply in said.replies:
            self.ack = add32(reply.seq, reply.length + bool(reply.flags & (SYN | FIN)))
        return said

    def open(self, at=0.0):
        first = self.say(at, SYN)
        assert first.verdict == "accept"
        self.seq = add32(self.seq, 1)
        assert self.say(at + 0.001, ACK).third == "accepted"
        self.server.feed(Accept(T0 + round((at + 0.002) * NS), PORT))
        return self

    def act(self, at, kind, *more):
        said = self.server.feed(kind(T0 + round(at * NS), self.key, *more))
        for reply in said.replies:
            self.ack = add32(reply.seq, reply.length + bool(reply.flags & FIN))
        return said

    def memory(self):
        return self.server.peers.get((US, PEER))


def test_a_close_is_remembered_at_the_ack_and_again_at_the_fin():
    talk = Talk().open()
    talk.act(1, Close)
    assert talk.memory() is None
    first = talk.say(1.5, ACK)
    assert (first.write.event, talk.memory()[0]) == ("E3", 2_500)
    second = talk.say(3, FIN | ACK)
    assert (second.write.event, talk.memory()[0]) == ("E5", 4_000)


def test_a_shutdown_is_remembered_at_the_fin_only():
    talk = Talk().open()
    talk.act(1, Shutdown)
    assert talk.say(1.5, ACK).write is None
    assert talk.say(3, FIN | ACK).write.event == "E1"


def test_a_close_after_shutdown_and_ack_writes_without_a_packet():
    talk = Talk().open()
    talk.act(1, Shutdown)
    talk.say(1.5, ACK)
    said = talk.act(2.5, Close)
    assert not said.replies
    assert (said.write.event, said.write.tsval) == ("E4", 2_500)


def test_crossed_fins_write_at_the_ack():
    talk = Talk().open()
    talk.act(1, Close)
    before = talk.ack
    assert talk.say(1.1, FIN | ACK, ack=before - 1).write is None
    talk.seq = add32(talk.seq, 1)
    assert talk.say(1.2, ACK, ack=before).write.event == "E2"


def test_a_long_fin_timeout_writes_when_the_excess_is_over():
    talk = Talk(fin_timeout=120).open()
    talk.act(1, Close)
    assert talk.say(1.5, ACK).write is None
    assert talk.server.next_timer() == T0 + round(61.5 * NS)
    assert talk.server.feed(Timer(T0 + 62 * NS)).write.event == "E3_timer"


@pytest.mark.parametrize("close_first", ["client", "reset"])
def test_passive_closes_and_resets_write_nothing(close_first):
    talk = Talk().open()
    if close_first == "client":
        talk.say(1, FIN | ACK)
        talk.seq = add32(talk.seq, 1)
        talk.act(1.1, Close)
        talk.say(1.2, ACK)
    else:
        talk.say(1, RST | ACK)
    assert talk.memory() is None
    assert talk.key not in talk.server.table


def test_the_peers_check_and_its_minute():
    talk = Talk().open()
    talk.act(10, Close)
    talk.say(10.5, FIN | ACK)
    stamp = talk.memory()[0]
    for at, ts, verdict in ((20, stamp - 1, "accept"), (21, stamp - 2, "drop"), (69.9, 5, "drop"), (70, 5, "accept")):
        other = Talk(port=6_000 + at, server=talk.server)
        said = other.say(at, SYN, ts=ts)
        assert said.verdict == verdict, at
        assert ("PAWSPassive" in said.counters) == (verdict == "drop")


def test_syn_acks_are_repeated_and_the_request_ends_after_63_seconds():
    talk = Talk("4.9.337")
    talk.say(0, SYN)
    times = []
    while (due := talk.server.next_timer()) is not None:
        said = talk.server.feed(Timer(due))
        times += [(due - T0) / NS for reply in said.replies if reply.flags & SYN]
    assert times == [1, 3, 7, 15, 31]
    assert talk.key not in talk.server.table


@pytest.mark.parametrize(("abort", "third", "flags"), [(0, "dropped", None), (1, "reset", RST)])
def test_a_third_ack_at_a_full_accept_queue(abort, third, flags):
    server = Talk(backlog=0, abort_on_overflow=abort).server
    first, second = (Talk(port=p, server=server) for p in (1, 2))
    for talk in (first, second):
        assert talk.say(0, SYN).verdict == "accept"
        talk.seq = add32(talk.seq, 1)
    assert first.say(0.1, ACK).third == "accepted"
    said = second.say(0.2, ACK)
    assert said.third == third
    assert {"ListenOverflows", "ListenDrops"} <= set(said.counters)
    assert [r.flags for r in said.replies] == ([flags] if flags else [])


def test_a_cookie_comes_back_and_an_invented_one_does_not():
    talk = Talk("4.9.337", syncookies=2)
    assert talk.say(0, SYN).verdict == "cookie"
    assert talk.server.listeners[PORT].requests == 0
    talk.seq = add32(talk.seq, 1)
    invented = talk.say(0.1, ACK, ack=talk.ack + 5)
    assert invented.replies[0].flags & RST
    talk.ack = add32(talk.server.cookie(talk.key, 7_000, T0 // (60 * NS)), 1)
    assert talk.say(0.2, ACK).third == "accepted"


@pytest.mark.parametrize(("rfc1337", "gone"), [(0, True), (1, False)])
def test_a_reset_ends_time_wait_unless_rfc1337(rfc1337, gone):
    talk = Talk("6.1", rfc1337=rfc1337).open()
    talk.act(1, Close)
    talk.say(1.1, FIN | ACK)
    talk.say(1.2, RST, ts=9_000, seq=add32(talk.seq, 1))
    assert (talk.key not in talk.server.table) == gone


def test_time_wait_answers_once_in_500_ms():
    talk = Talk("6.1").open()
    talk.act(1, Close)
    talk.say(1.1, FIN | ACK)
    rules = [talk.say(at, SYN, ts=5, seq=99).rule for at in (2, 2.4, 2.6)]
    assert rules == ["time_wait_paws", "time_wait_paws_rate_limited", "time_wait_paws"]


@pytest.mark.parametrize(("kernel", "continues"), [("4.9.337", True), ("6.1", False), ("6.18", True)])
def test_a_number_out_of_time_wait(kernel, continues):
    talk = Talk(kernel, port=7, ts=0)
    talk.server.settings = Settings(tw_recycle=0).with_defaults(talk.server.profile)
    talk.open()
    talk.act(1, Close)
    talk.say(1.1, FIN | ACK)
    end = talk.server.table[talk.key].snd_nxt
    said = talk.say(5, SYN, seq=50)
    assert said.rule == "time_wait_reuse"
    assert (said.replies[0].seq == add32(end, 65_537)) == continues


def test_data_is_repeated_until_acknowledged_and_parked_until_in_order():
    talk = Talk("4.9.337").open()
    talk.act(1, Send, 300)
    again = talk.server.feed(Timer(T0 + 2 * NS))
    assert again.replies[0].length == 300
    assert again.replies[0].again
    talk.say(2.1, ACK)
    ahead = talk.say(3, ACK, 50, seq=add32(talk.seq, 50))
    assert ahead.replies[0].ack == talk.seq
    filled = talk.say(3.1, ACK, 50)
    assert filled.replies[0].ack == add32(talk.seq, 100)
    assert filled.notices == [("data", talk.key, 100)]


def test_the_opening_side_repeats_gives_up_and_answers_a_challenge():
    machine = Machine(syn_timeouts=(NS, 2 * NS, 4 * NS), quick_retry=True)
    client = Server(find_profile("4.9.337"), Settings(), machine)
    key = ("me", 40_000, "you", PORT)
    syn = client.feed(Connect(T0, key)).replies[0]
    challenge = client.feed(Segment(T0 + 1_000_000, "you", PORT, "me", 40_000, ACK, 5, add32(syn.seq, 900)))
    assert [(r.flags, r.seq) for r in challenge.replies] == [(RST, add32(syn.seq, 900))]
    assert client.next_timer() - T0 < NS // 10
    words = []
    while (due := client.next_timer()) is not None:
        words += [word for word, *_ in client.feed(Timer(due)).notices]
    assert words == ["timeout"]
