"""The resolver's door: queries in, answers out, and questions for the two upstreams in between.

Answers pass as they were received (types, response codes, TTLs, truncation); only the id, and the name where it was expanded, are put
back. What the cluster answered is kept as long as it says; what this machine's resolver answers is its own business, and its cache's.
The same question asked by several programs at once goes out once.

Not here: sockets; where a name goes (routing.py).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import Enum
from typing import TypeAlias

from dnslib import DNSRecord

from kt_net.dns.cache import Cache
from kt_net.dns.messages import (
    FORMERR,
    MAX_QUERY_RECORDS,
    NXDOMAIN,
    SERVFAIL,
    address_answer,
    answer_for,
    code_name,
    error_answer,
    has_plain_question,
    has_what_was_asked,
    in_other_letters,
    lifetime,
    name_of,
    parse_message,
    truncated,
    udp_limit,
    with_id,
    with_name,
)
from kt_net.dns.routing import Routing, Step, Upstream, Way
from kt_net.errors import MalformedMessage

#: Questions on their way at once, and askers of one; more are answered SERVFAIL (dnsmasq has 150, unbound a thousand a thread).
MAX_ASKS = 1024
MAX_ASKERS = 256
#: Seconds that an answer is kept at most, unless told otherwise; and one that a name is not there: a new Service is to be found at once.
LONGEST_KEPT = 60.0
LONGEST_NEGATIVE = 0.5
#: A bit for each letter of a name (RFC 1035 section 2.3.4: 255 octets).
MARK_OCTETS = 32
#: Seconds for which programs may keep what is not asked but known here.
OWN_TTL = 5
#: Seconds for an upstream; less than the five after which libc asks again (resolv.conf(5), "timeout").
ASK_SECONDS = 4.5


class Transport(Enum):
    """What a query came by, and goes on by."""

    UDP = "udp"
    TCP = "tcp"


@dataclass(frozen=True, slots=True)
class Ask:
    """A question for an upstream: a whole message under a fresh id. Its outcome goes to `receive_answer` or `ask_failed`."""

    ask: int
    upstream: Upstream
    data: bytes
    transport: Transport


@dataclass(frozen=True, slots=True)
class Asked:
    """One question on the way to an answer, and what came of it.

    Attributes:
        outcome: a response code by its name, or "no answer".
        records: in the answer section.
    """

    step: Step
    outcome: str
    records: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Answer:
    """A message for the client that asked; `trail` is empty when it was kept from an earlier question."""

    client: object
    data: bytes
    transport: Transport
    trail: tuple[Asked, ...] = ()


ResolverEvent: TypeAlias = Ask | Answer


@dataclass(slots=True)
class _Query:
    """A question on its way, and for whom (client, id)."""

    askers: list[tuple[object, int]]
    transport: Transport
    data: bytes
    record: DNSRecord
    way: Way  # what is left of it; the first step is being asked
    #: Of what was known of the cluster when it was asked.
    generation: int
    #: The name as it was sent, when it may come back.
    mark: str = ""
    message_id: int = 0
    since: float = 0.0
    deadline: float = 0.0
    trail: list[Asked] = field(default_factory=list)

    @property
    def key(self) -> tuple[bytes, Transport]:
        """Under which others with the same question find it: the message without its id."""
        return self.data[2:], self.transport


class Resolver:
    """See the module.

    Args:
        routing: where names go.
        entropy: like os.urandom: ids are not to be guessed (RFC 5452 section 4.3).
        longest_kept: seconds that an answer of the cluster is kept at most; 0 keeps none.
        ingress: addresses of the hosts of Ingress objects; without, these are names like any other.
    """

    def __init__(
        self,
        *,
        routing: Routing,
        entropy: Callable[[int], bytes],
        longest_kept: float = LONGEST_KEPT,
        ingress: tuple[str, ...] = (),
    ) -> None:
        self._routing = routing
        self._entropy = entropy
        self._ingress = ingress
        self._events: deque[ResolverEvent] = deque()
        self._queries: dict[int, _Query] = {}  # in the order of their deadlines
        self._asked: dict[tuple[bytes, Transport], _Query] = {}  # the same, by what was asked
        self._cache = Cache(longest=longest_kept)
        self._ids: set[int] = set()
        self._marked: set[str] = set()
        self._generation = 0
        self._next_ask = 1
        #: Queries that were no messages at all.
        self.dropped = 0

    def update_namespaces(self, namespaces: Iterable[str]) -> None:
        """The namespaces that are there now."""
        if self._routing.update_namespaces(namespaces):
            self._forget_answers()

    def update_services(self, namespace: str, services: Iterable[str]) -> None:
        """The Services of a `Routing.ambiguous` namespace that are there now."""
        if self._routing.update_services(namespace, services):
            self._forget_answers()

    def update_headless(self, services: Iterable[str]) -> None:
        """See `Routing.update_headless`."""
        if self._routing.update_headless(services):
            self._forget_answers()

    def update_hosts(self, hosts: Iterable[str]) -> None:
        """The hosts of Ingress objects that are there now."""
        self._routing.update_hosts(hosts)

    def pass_on(self, passed_on: bool) -> None:
        """See `Routing.pass_on`."""
        if self._routing.pass_on(passed_on):
            self._forget_answers()

    @property
    def routed(self) -> tuple[str, ...]:
        """See `Routing.routed`."""
        return self._routing.routed

    def _forget_answers(self) -> None:
        self._cache.clear()
        self._generation += 1

    @property
    def ambiguous(self) -> frozenset[str]:
        """See `Routing.ambiguous`."""
        return self._routing.ambiguous

    @property
    def namespaces(self) -> frozenset[str]:
        """See `Routing.namespaces`."""
        return self._routing.namespaces

    @property
    def under_way(self) -> int:
        """Questions that are asked, or that somebody waits for."""
        return len(self._queries) + len(self._asked) + len(self._ids) + len(self._marked)

    @property
    def kept(self) -> int:
        """Answers in the cache."""
        return len(self._cache)

    def receive_query(self, data: bytes, *, client: object, transport: Transport, now: float) -> None:
        """A program's query. Anything that is no query is answered FORMERR, or dropped when it has not even an id."""
        kept = self._cache.find(data[2:], now=now)
        if kept is not None:
            answer = with_id(kept.data, int.from_bytes(data[:2], "big"))
            if transport is Transport.UDP:
                answer = truncated(answer, kept.udp_octets)
            self._events.append(Answer(client, answer, transport))
            return
        under_way = self._asked.get((data[2:], transport))
        asker = (client, int.from_bytes(data[:2], "big"))
        if under_way is not None and len(under_way.askers) < MAX_ASKERS:
            if asker not in under_way.askers:  # it is, when a program asks again
                under_way.askers.append(asker)
            return
        try:
            if not has_plain_question(data):
                raise MalformedMessage("no query for one name")
            record = parse_message(data, most=MAX_QUERY_RECORDS)
            if record.header.qr:
                raise MalformedMessage("no query for one name")
        except MalformedMessage:
            self._error(data, FORMERR, client, transport)
            return
        if under_way is not None or len(self._queries) >= MAX_ASKS:
            self._error(data, SERVFAIL, client, transport)
            return
        name = name_of(record)
        if self._ingress and self._routing.is_host(name):
            self._answer_host(record, name, client, transport)
            return
        comes_back = str(record.q.qname) in self._marked
        way = (Step(Upstream.MACHINE, name),) if comes_back else self._routing.way(name)
        query = _Query([asker], transport, data, record, way, self._generation)
        self._asked[query.key] = query
        self._ask(query, now=now)

    def _answer_host(self, record: DNSRecord, name: str, client: object, transport: Transport) -> None:
        try:
            data = address_answer(record, self._ingress, ttl=OWN_TTL)
        except MalformedMessage:
            self.dropped += 1
            return
        trail = (Asked(Step(Upstream.INGRESS, name), "NOERROR", len(self._ingress), 0.0),)
        self._events.append(Answer(client, data, transport, trail))

    def receive_answer(self, ask: int, data: bytes, *, now: float) -> None:
        """What an upstream answered. An answer to another question than asked is taken for none."""
        query = self._queries.get(ask)
        if query is None:
            return
        try:
            answer = parse_message(data)
        except MalformedMessage:
            self.ask_failed(ask, now=now)
            return
        if not answer.header.qr or answer.header.id != query.message_id or not self._same_question(answer, query):
            return
        self._forget(ask)
        step = query.way[0]
        query.trail.append(Asked(step, code_name(answer.header.rcode), len(answer.rr), now - query.since))
        if answer.header.rcode == NXDOMAIN and len(query.way) > 1:
            query.way = query.way[1:]
            self._ask(query, now=now)
            return
        try:
            if step.name != name_of(query.record) or query.mark:
                data = answer_for(answer, query.record, step.name)
            if step.upstream is Upstream.CLUSTER:
                self._keep(query, answer, data, now=now)
        except MalformedMessage:
            self._failed(query, "an answer that makes no sense", now=now)
            return
        if query.transport is Transport.UDP:
            data = truncated(data, udp_limit(query.record))
        self._done(query)
        for client, message_id in query.askers:
            self._events.append(Answer(client, with_id(data, message_id), query.transport, tuple(query.trail)))

    def _keep(self, query: _Query, answer: DNSRecord, data: bytes, *, now: float) -> None:
        seconds: float | None = lifetime(answer)
        if seconds is None or query.generation != self._generation:
            return
        if answer.header.rcode == NXDOMAIN or not has_what_was_asked(answer):
            seconds = min(seconds, LONGEST_NEGATIVE)
        self._cache.keep(query.key[0], data, udp_octets=udp_limit(query.record), seconds=seconds, now=now)

    def _done(self, query: _Query) -> None:
        del self._asked[query.key]

    def _failed(self, query: _Query, outcome: str, *, now: float, rcode: int = SERVFAIL) -> None:
        self._done(query)
        query.trail.append(Asked(query.way[0], outcome, 0, now - query.since))
        for client, message_id in query.askers:
            self._error(with_id(query.data, message_id), rcode, client, query.transport, tuple(query.trail))

    def ask_failed(self, ask: int, *, now: float) -> None:
        """No answer will come: the client is told SERVFAIL, and not something else that might be taken for the truth."""
        query = self._queries.get(ask)
        if query is None:
            return
        self._forget(ask)
        self._failed(query, "no answer", now=now)

    def next_event(self) -> ResolverEvent | None:
        """What is to be sent, in order."""
        return self._events.popleft() if self._events else None

    def next_timer(self) -> float | None:
        """When the oldest question has waited long enough."""
        return next(iter(self._queries.values())).deadline if self._queries else None

    def handle_timer(self, *, now: float) -> None:
        """Give up on what has waited too long."""
        for ask in [ask for ask, query in self._queries.items() if query.deadline <= now]:
            self.ask_failed(ask, now=now)

    def _ask(self, query: _Query, *, now: float) -> None:
        query.message_id = self._fresh_id()
        query.since, query.deadline = now, now + ASK_SECONDS
        data = with_id(query.data, query.message_id)
        query.mark = ""
        while query.way[0] != Step(Upstream.MACHINE, name_of(query.record)):
            name = query.way[0].name
            if query.way[0].upstream is Upstream.CLUSTER and not self._routing.is_clusters(name):
                # The DNS of a cluster on this machine asks this machine for what it does not know: seen again, it goes elsewhere.
                name = query.mark = in_other_letters(name, self._entropy(MARK_OCTETS))
            elif name == name_of(query.record):
                break
            try:
                data = with_name(query.record, name, query.message_id)
                break
            except MalformedMessage:  # too long when it is expanded
                query.mark = ""
                if len(query.way) == 1:
                    self._failed(query, "no name", now=now, rcode=NXDOMAIN)
                    return
                query.way = query.way[1:]
        if query.mark:
            self._marked.add(f"{query.mark}.")
        ask = self._next_ask
        self._next_ask += 1
        self._ids.add(query.message_id)
        self._queries[ask] = query
        self._events.append(Ask(ask, query.way[0].upstream, data, query.transport))

    def _fresh_id(self) -> int:
        while True:
            number = int.from_bytes(self._entropy(2), "big")
            if number not in self._ids:
                return number

    def _forget(self, ask: int) -> None:
        query = self._queries.pop(ask)
        self._ids.discard(query.message_id)
        self._marked.discard(f"{query.mark}.")

    @staticmethod
    def _same_question(answer: DNSRecord, query: _Query) -> bool:
        if not answer.questions:
            return bool(answer.header.rcode)  # some servers leave the question out of an error
        return name_of(answer) == query.way[0].name and answer.q.qtype == query.record.q.qtype

    def _error(
        self, query: bytes, rcode: int, client: object, transport: Transport, trail: tuple[Asked, ...] = ()
    ) -> None:
        try:
            self._events.append(Answer(client, error_answer(query, rcode), transport, trail))
        except MalformedMessage:
            self.dropped += 1
