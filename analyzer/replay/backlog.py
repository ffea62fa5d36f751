"""The two queues of a listener as data: half-open requests with their timers, and connections not yet accepted."""

from collections import deque
from dataclasses import dataclass
from heapq import heappop, heappush

from analyzer.units import NS

SURE_LIFE = 7 * NS
"""No request is given up sooner: three timeouts, even in a crowded queue."""


@dataclass(slots=True)
class Request:
    """A half-open request: when it came, whether its SYN-ACK was seen lately, and its SYN-ACK timer."""

    born: int
    sure: bool
    timeouts: int
    due: int


class Requests:
    """The SYN queue: half-open requests with their SYN-ACK timers.

    net/ipv4/inet_connection_sock.c ``reqsk_timer_handler``, up to 4.3 ``inet_csk_reqsk_queue_prune``.

    Args:
        limit: Length at which the queue counts as full.
        retries: tcp_synack_retries.
    """

    def __init__(self, limit: int, retries: int) -> None:
        self.limit = limit
        self.retries = retries
        self.young = 0
        self._by_chain: dict[int, Request] = {}
        self._timers: list[tuple[int, int, int]] = []
        self._given_up: dict[int, Request] = {}  # what a crowded queue probably dropped early
        self._patient = False
        self._sure = 0
        self._confirmed: deque[tuple[int, int]] = deque()

    def __len__(self) -> int:
        return len(self._by_chain)

    def add(self, chain: int, born: int) -> None:
        """A request begins, as far as is predicted."""
        self.remove(chain)
        self._given_up.pop(chain, None)
        self._by_chain[chain] = Request(born, False, 0, born + NS)
        self.young += 1
        heappush(self._timers, (born + NS, chain, born))

    def confirm(self, chain: int, born: int) -> None:
        """Its SYN-ACK was seen: it exists, whatever was predicted."""
        request = self._by_chain.get(chain)
        if request is None:
            self.add(chain, born)
            request = self._by_chain[chain]
        if request.born == born and not request.sure:
            request.sure = True
            self._sure += 1
            self._confirmed.append((born, chain))

    def doubt(self, chain: int) -> bool:
        """A request may have ended; returns whether there was one."""
        request = self._by_chain.get(chain)
        if request is not None:
            self._sure -= request.sure
            request.sure = False
        return request is not None

    def remove(self, chain: int) -> bool:
        """A request ends; returns whether there was one."""
        request = self._by_chain.pop(chain, None)
        if request is not None:
            self.young -= not request.timeouts
            self._sure -= request.sure
        return request is not None

    def deny(self, chain: int, born: int) -> None:
        """No SYN-ACK came: the request never began."""
        request = self._by_chain.get(chain)
        if request is not None and request.born == born:
            self.remove(chain)

    def run_timers(self, now: int) -> None:
        """Fire SYN-ACK timers; a queue more than half full gives its old requests up early."""
        timers = self._timers
        while timers and timers[0][0] <= now:
            due, chain, born = heappop(timers)
            request = self._by_chain.get(chain) or self._given_up.get(chain)
            if request is None or request.born != born or request.due != due:
                continue
            if request.timeouts >= self._allowed() and self.remove(chain):
                self._given_up[chain] = request
            if request.timeouts >= self.retries:
                self._given_up.pop(chain, None)
                continue
            self.young -= chain in self._by_chain and not request.timeouts
            request.timeouts += 1
            request.due = due + (NS << request.timeouts)
            heappush(timers, (request.due, chain, born))

    def none_given_up(self) -> None:
        """The queue proved fuller than counted: requests are kept for their whole time."""
        self._patient = True
        self._by_chain.update(self._given_up)
        self._given_up.clear()

    def had_room(self, most: int) -> None:
        """The kernel took another one, so it held at most *most*: those beyond are gone, the oldest first."""
        self._patient = False
        self._given_up.clear()
        for chain in list(self._by_chain)[: max(len(self) - most, 0)]:
            self.remove(chain)

    def _allowed(self) -> int:
        """SYN-ACK timeouts that a request may have: fewer while young requests are few in a half-full queue."""
        allowed, length = self.retries, len(self)
        if not self._patient and length * 2 > max(8, self.limit):
            young = 2 * self.young
            while allowed > 2 and length >= young:
                allowed -= 1
                young *= 2
        return allowed

    @property
    def most(self) -> int:
        """Upper bound of the length: with those that a crowded queue may have kept after all."""
        return len(self._by_chain) + len(self._given_up)

    def least(self, now: int) -> int:
        """Lower bound of the length: requests whose SYN-ACK was seen, too young to be given up."""
        while self._confirmed and now - self._confirmed[0][0] >= SURE_LIFE:
            born, chain = self._confirmed.popleft()
            request = self._by_chain.get(chain)
            if request is not None and request.born == born:
                request.sure = False
                self._sure -= 1
        return self._sure


class AcceptQueue:
    """Connections whose third ACK came, in order, that are not known to be accepted by the application."""

    def __init__(self) -> None:
        self._order: deque[int] = deque()
        self._place: dict[int, int] = {}
        self._first = 0
        self.hidden_accepts = 0

    def __len__(self) -> int:
        return len(self._order)

    def add(self, chain: int) -> None:
        """A handshake is complete."""
        self._place[chain] = self._first + len(self._order)
        self._order.append(chain)

    def taken(self, chain: int) -> None:
        """The application works on *chain*: it, and all before it, have left."""
        place = self._place.get(chain)
        if place is None:
            return
        while self._first <= place:
            gone = self._order.popleft()
            if self._place.get(gone) == self._first:
                del self._place[gone]
            self._first += 1
        self.hidden_accepts = min(self.hidden_accepts, len(self._order))

    def had_room(self, chain: int, backlog: int) -> None:
        """The kernel let *chain* in: of those before it, all but *backlog* must have left."""
        place = self._place.get(chain)
        if place is not None:
            self.hidden_accepts = max(self.hidden_accepts, place - self._first - backlog)
