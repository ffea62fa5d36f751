"""Which side of the load balancer a service lies on, where no SYN passes through."""

import pytest

from analyzer.capture import open_capture
from analyzer.connections import track
from analyzer.connections.names import host_text
from analyzer.schema import LEGS
from analyzer.snat.joining import join
from analyzer.snat.model import Seen
from tests.frames import S, Segment, write
from tests.snat.estate import SNAT, VIP, talk

MEMBERS = ("10.30.0.11", "10.30.0.12")
COUNT = 40
ANSWER = b"HTTP/1.1 200 OK"


def legs(tap, folder):
    """Legs of every address that was asked, in one capture at the load balancer."""
    path = write(folder / "lb.pcap", sorted(tap, key=lambda s: s.time))
    seen = Seen("lb", "lb", track(open_capture([str(path)], "lb", digests=True)))
    rows = seen.tracked.syns.to_array()
    paths = join([seen]).path("lb", len(rows))
    hosts = [host_text(seen.tracked.hosts, int(h)) for h in rows["resp"]]
    return {host: LEGS[leg] for host, leg in zip(hosts, paths["leg"], strict=True)}


def request(number: int, common: bool) -> bytes:
    return b"GET / HTTP/1.1" if common else b"GET /%d HTTP/1.1" % number


@pytest.mark.parametrize("common", [True, False])
@pytest.mark.parametrize("sources", [1, 2, 4])
def test_members_asked_in_turn_are_no_legs_of_each_other(tmp_path, common, sources):
    tap = []
    for n in range(COUNT):
        snat = f"10.20.0.{101 + (n // 2) % sources}"
        talk(tap, 0.3 * n + 0.01 * (n % 2), (snat, 4000 + n, MEMBERS[n % 2], 80), 9000 * n, request(n, common), ANSWER)
    assert set(legs(tap, tmp_path).values()) == {"other"}


def test_members_that_always_answer_the_same_question_in_one_order_are_no_legs(tmp_path):
    tap = []
    for n in range(COUNT):
        for m, member in enumerate(MEMBERS):
            talk(tap, n + 0.002 * m, (SNAT, 4000 + 2 * n + m, member, 80), 9000 * n + m, b"GET /health", ANSWER)
    assert set(legs(tap, tmp_path).values()) == {"other"}


def proxied(common: bool, told: bytes) -> list:
    tap: list = []
    for n in range(COUNT):
        client = (f"192.0.2.{n % 16 + 1}", 5000 + n, VIP, 443)
        talk(tap, 0.4 * n, client, 9000 * n, request(n, common), told)
        talk(tap, 0.4 * n + 0.0004, (SNAT, 6000 + n, MEMBERS[n % 2], 80), 9000 * n + 7, request(n, common), ANSWER)
    return tap


@pytest.mark.parametrize("common", [True, False])
def test_a_proxys_legs_are_told_by_payload_and_addresses(tmp_path, common):
    found = legs(proxied(common, ANSWER), tmp_path)
    assert found == {VIP: "client_leg", **dict.fromkeys(MEMBERS, "lb_server_leg")}


def test_a_proxy_that_decrypts_is_told_by_who_begins_first(tmp_path):
    tap: list = []
    for n in range(COUNT):
        client = (f"192.0.2.{n % 16 + 1}", 5000 + n, VIP, 443)
        talk(tap, 0.4 * n, client, 9000 * n, b"\x16\x03\x01%d" % n, b"\x16\x03\x03%d" % n)
        talk(tap, 0.4 * n + 0.0004, (SNAT, 6000 + n, MEMBERS[n % 2], 80), 9000 * n + 7, request(n, False), ANSWER)
    assert legs(tap, tmp_path) == {VIP: "client_leg", **dict.fromkeys(MEMBERS, "lb_server_leg")}


def test_two_services_whose_connections_follow_each_other_by_chance_are_no_proxy(tmp_path):
    tap: list = []
    for n in range(COUNT):
        early, late = (0.0, 0.02) if n % 3 else (0.02, 0.0)
        talk(tap, 0.4 * n + early, ("192.0.2.7", 5000 + n, MEMBERS[0], 80), 9000 * n, request(n, False), b"one %d" % n)
        talk(tap, 0.4 * n + late, ("192.0.2.8", 5000 + n, MEMBERS[1], 81), 9000 * n + 7, b"ask %d" % n, b"two %d" % n)
    assert set(legs(tap, tmp_path).values()) == {"other"}


def test_a_member_that_only_the_balancer_itself_asks_is_no_virtual_service(tmp_path):
    tap = proxied(False, ANSWER)
    talk(tap, 20.0, (SNAT, 7000, "10.30.0.13", 80), 77, b"GET /health", b"ok")
    assert legs(tap, tmp_path)["10.30.0.13"] == "lb_server_leg"


def test_a_retry_on_another_member_is_no_second_leg(tmp_path):
    tap = []
    for n in range(12):
        talk(tap, 2.0 * n, (SNAT, 4000 + n, MEMBERS[n % 2], 80), 9000 * n, request(n, False), b"%d" % n)
    tap.append(Segment(30.0, SNAT, 5000, MEMBERS[0], 80, S, 123456))
    tap.append(Segment(31.0, SNAT, 5001, MEMBERS[1], 80, S, 123456))
    assert set(legs(tap, tmp_path).values()) == {"other"}
