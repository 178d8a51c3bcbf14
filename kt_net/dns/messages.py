"""DNS messages by way of dnslib: the one place that parses them, and the one that may see its errors.

Not here: decisions.
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from dnslib import AAAA, EDNS0, QTYPE, RCODE, RR, SOA, A, DNSError, DNSHeader, DNSLabel, DNSQuestion, DNSRecord
from dnslib.label import DNSBuffer, DNSLabelError

from kt_net.errors import MalformedMessage

#: RFC 1035 section 4.2.1, without EDNS.
PLAIN_UDP_OCTETS = 512
_HEADER_OCTETS = 12
#: How many questions, answers, authorities and additional records (RFC 1035 section 4.1.1); a record after its name (4.1.3).
_COUNTS = struct.Struct("!4H")
_RECORD = struct.Struct("!HHIH")
#: The first octet of a compression pointer (RFC 1035 section 4.1.4).
_POINTER = 0xC0
#: RFC 2181 section 8: a TTL beyond it is none.
MAX_TTL = 0x7FFFFFFF
#: As many address records as a message of 64 KiB holds. A query has one of EDNS, and another one when it is signed.
MAX_RECORDS = 4096
MAX_QUERY_RECORDS = 8
#: In one name; whoever compresses needs one or two (RFC 1035 section 4.1.4).
MAX_POINTERS = 16
_QR = 0x8000
_OPCODE_AND_RD = 0x7900

SERVFAIL = int(RCODE.SERVFAIL)
FORMERR = int(RCODE.FORMERR)
NXDOMAIN = int(RCODE.NXDOMAIN)
NOERROR = int(RCODE.NOERROR)


def code_name(rcode: int) -> str:
    """A response code as people know it: NOERROR, NXDOMAIN, or RCODE and a number."""
    return str(RCODE.forward.get(rcode, f"RCODE{rcode}"))


@contextmanager
def _dnslib(what: str) -> Iterator[None]:
    """What dnslib raises of foreign octets, of which its own errors are a small part, as ours."""
    try:
        yield
    except MalformedMessage:
        raise
    except Exception as error:
        raise MalformedMessage(what, why=str(error)) from error


class _Buffer(DNSBuffer):  # type: ignore[misc]  # dnslib has no types
    """A message in which a name that leads from pointer to pointer without end costs nothing."""

    _depth = 0

    def decode_name(self, last: int = -1) -> DNSLabel:
        """See `DNSBuffer`.

        Raises:
            MalformedMessage: too many pointers in one name.
        """
        self._depth += 1
        if self._depth > MAX_POINTERS:
            raise MalformedMessage(f"a name of more than {MAX_POINTERS} pointers")
        found = super().decode_name(last)
        self._depth -= 1
        return found


def parse_message(data: bytes, *, most: int = MAX_RECORDS) -> DNSRecord:
    """A message.

    Args:
        most: how many records it may have.

    Raises:
        MalformedMessage: it is none.
    """
    with _dnslib("no DNS message"):
        buffer = _Buffer(data)
        header = DNSHeader.parse(buffer)
        if header.q > 1 or header.a + header.auth + header.ar > most:
            raise MalformedMessage("a message of too many questions or records")
        questions = [DNSQuestion.parse(buffer) for _ in range(header.q)]
        answers, authorities, others = (
            [RR.parse(buffer) for _ in range(count)] for count in (header.a, header.auth, header.ar)
        )
        return DNSRecord(header, questions, answers, auth=authorities, ar=others)


def question(name: str, kind: str, message_id: int) -> bytes:
    """A query as a modern stub resolver makes it, EDNS with 1232 octets.

    Raises:
        MalformedMessage: no such type, or this is no name.
    """
    try:
        record = DNSRecord(DNSHeader(id=message_id, rd=1), q=DNSQuestion(DNSLabel(name), QTYPE.reverse[kind.upper()]))
        record.add_ar(EDNS0(udp_len=1232))
        return bytes(record.pack())
    except (DNSError, DNSLabelError, ValueError, KeyError) as error:
        why = "labels have 1 to 63 octets, names 253"
        if kind.upper() not in QTYPE.reverse:
            why = f"there is no type {kind}: A, AAAA, SRV, PTR, TXT and others"
        raise MalformedMessage(f"{name} {kind} cannot be asked", why=why) from error


def records_of(data: bytes) -> tuple[str, list[str]]:
    """The response code and the records of an answer, in words.

    Raises:
        MalformedMessage: it is none.
    """
    answer = parse_message(data)
    with _dnslib("a record that cannot be read"):
        return code_name(answer.header.rcode), [
            f"{record.rname} {record.ttl} {QTYPE[record.rtype]} {record.rdata}" for record in answer.rr
        ]


def name_of(record: DNSRecord) -> str:
    """The name in question, lower case, without the final dot ("" for the root)."""
    return str(record.q.qname).rstrip(".").lower()


def udp_limit(record: DNSRecord) -> int:
    """How long an answer over UDP the asker takes (RFC 6891 section 6.2.3)."""
    for extra in record.ar:
        if extra.rtype == QTYPE.OPT:
            return max(PLAIN_UDP_OCTETS, int(extra.rclass))
    return PLAIN_UDP_OCTETS


def lifetime(answer: DNSRecord) -> int | None:
    """Seconds for which an answer may be kept (RFC 2181 section 5.2, RFC 2308 section 5); None: not at all.

    An answer without records is kept as long as the SOA record beside it says.
    """
    if answer.header.tc or answer.header.rcode not in (NOERROR, NXDOMAIN):
        return None
    records = [record for record in (*answer.rr, *answer.auth, *answer.ar) if record.rtype != QTYPE.OPT]
    if not records or any(record.ttl > MAX_TTL for record in records):
        return None
    if answer.header.rcode == NXDOMAIN or not answer.rr:
        authorities = [record for record in answer.auth if record.rtype == QTYPE.SOA]
        if not authorities or not isinstance(authorities[0].rdata, SOA):
            return None
        return int(min(*(record.ttl for record in records), authorities[0].rdata.times[4]))
    return int(min(record.ttl for record in records))


def ttl_offsets(message: bytes) -> list[int]:
    """Where the TTLs of a message are, except that of OPT, which is none.

    Raises:
        MalformedMessage: the message ends too early.
    """
    found: list[int] = []
    try:
        questions, *records = _COUNTS.unpack_from(message, 4)
        at = _HEADER_OCTETS
        for _ in range(questions):
            at = _after_name(message, at) + 4
        for _ in range(sum(records)):
            at = _after_name(message, at)
            kind, _, _, length = _RECORD.unpack_from(message, at)
            if kind != QTYPE.OPT:
                found.append(at + 4)
            at += _RECORD.size + length
    except (struct.error, IndexError) as error:
        raise MalformedMessage("a DNS message ends too early") from error
    return found


def aged(message: bytes, offsets: Iterable[int], seconds: int) -> bytes:
    """`message` with its TTLs smaller by `seconds`; one never below 0."""
    if not seconds:
        return message
    changed = bytearray(message)
    for at in offsets:
        left = max(0, int.from_bytes(changed[at : at + 4], "big") - seconds)
        changed[at : at + 4] = left.to_bytes(4, "big")
    return bytes(changed)


def _after_name(message: bytes, at: int) -> int:
    while True:
        length = message[at]
        if length >= _POINTER:
            return at + 2
        at += 1 + length
        if not length:
            return at


def with_name(record: DNSRecord, name: str, message_id: int) -> bytes:
    """The same question for another name, under another id.

    Raises:
        MalformedMessage: the name is too long.
    """
    with _dnslib(f"{name} is no name"):
        asked = DNSRecord(
            DNSHeader(id=message_id, bitmap=record.header.bitmap, q=1),
            questions=[_question(record, name)],
            ar=[extra for extra in record.ar if extra.rtype == QTYPE.OPT],
        )
        return bytes(asked.pack())


def _question(record: DNSRecord, name: str) -> object:
    return type(record.q)(DNSLabel(name), record.q.qtype, record.q.qclass)


def with_id(data: bytes, message_id: int) -> bytes:
    """The same octets under another id."""
    return message_id.to_bytes(2, "big") + data[2:]


def answer_for(answer: DNSRecord, asked: DNSRecord, expanded: str) -> bytes:
    """`answer`, which is about `expanded`, as an answer to `asked`: its id, its question, and its name in place of `expanded`.

    Raises:
        MalformedMessage: what was received cannot be written again.
    """
    with _dnslib("an answer that cannot be written again"):
        answer.header.id = asked.header.id
        answer.questions = list(asked.questions)
        for record in answer.rr:
            if str(record.rname).rstrip(".").lower() == expanded:
                record.rname = asked.q.qname
        return bytes(answer.pack())


def address_answer(query: DNSRecord, addresses: Iterable[str], *, ttl: int) -> bytes:
    """An answer of our own: the addresses of the family in question, none for other types.

    Raises:
        MalformedMessage: it cannot be written.
    """
    kinds = {int(QTYPE.A): (4, A), int(QTYPE.AAAA): (6, AAAA)}
    version, data = kinds.get(query.q.qtype, (0, None))
    with _dnslib("an answer that cannot be written"):
        answer = query.reply(ra=1, aa=0)
        for address in addresses:
            if data is not None and ipaddress.ip_address(address).version == version:
                answer.add_answer(RR(query.q.qname, query.q.qtype, rdata=data(address), ttl=ttl))
        return bytes(answer.pack())


def has_what_was_asked(answer: DNSRecord) -> bool:
    """Whether the answer section has a record of the type in question; a CNAME alone leads nowhere."""
    return any(record.rtype == answer.q.qtype for record in answer.rr) or (
        bool(answer.rr) and answer.q.qtype == QTYPE.ANY
    )


def in_other_letters(name: str, chance: bytes) -> str:
    """`name` with letters large where `chance` says so, a bit a letter: the same name (RFC 4343), and recognised when it is seen again."""
    bits = int.from_bytes(chance, "big")
    return "".join(letter.upper() if bits >> at & 1 else letter for at, letter in enumerate(name))


def error_answer(query: bytes, rcode: int) -> bytes:
    """An answer of nothing but a response code, with the question when there is one to be read.

    Raises:
        MalformedMessage: not even an id.
    """
    if len(query) < _HEADER_OCTETS:
        raise MalformedMessage("shorter than a DNS header")
    flags = int.from_bytes(query[2:4], "big")
    head = query[:2] + (_QR | (flags & _OPCODE_AND_RD) | 0x0080 | rcode).to_bytes(2, "big")
    end = _question_end(query)
    if end is None:
        return head + bytes(8)
    return head + b"\x00\x01" + bytes(6) + query[_HEADER_OCTETS:end]


def has_plain_question(query: bytes) -> bool:
    """Whether the question is whole and its name not compressed: a pointer would lead to what stands before it, the id above all."""
    return _question_end(query) is not None


def _question_end(query: bytes) -> int | None:
    """Where the first question ends, when it is whole and plain."""
    if query[4:6] != b"\x00\x01":
        return None
    at = _HEADER_OCTETS
    while at < len(query) and query[at]:
        if query[at] > 63:
            return None
        at += 1 + query[at]
    return at + 5 if at + 5 <= len(query) else None


def answers_to(message: bytes, query: bytes) -> bool:
    """Whether `message` is an answer to `query`: its id, and its question, which some servers leave out of an error."""
    if len(message) < _HEADER_OCTETS or message[:2] != query[:2] or not message[2] & 0x80:
        return False
    if message[4:6] == b"\0\0":
        return bool(message[3] & 0x0F)
    end = _question_end(query)
    if end is None:
        return False
    name = slice(_HEADER_OCTETS, end - 4)
    return message[name].lower() == query[name].lower() and message[end - 4 : end] == query[end - 4 : end]


def truncated(answer: bytes, limit: int) -> bytes:
    """An answer that fits `limit` octets: as it is, or its header and question with TC set (RFC 2181 section 9)."""
    if len(answer) <= limit:
        return answer
    end = _question_end(answer)
    flags = int.from_bytes(answer[2:4], "big") | 0x0200
    if end is None:
        return answer[:2] + flags.to_bytes(2, "big") + bytes(8)
    return answer[:2] + flags.to_bytes(2, "big") + b"\x00\x01" + bytes(6) + answer[_HEADER_OCTETS:end]


def in_words(data: bytes) -> str:
    """What a message asks or answers, for a line on a screen; octets that are not printable are written as dnslib does, \\DDD.

    Raises:
        MalformedMessage: it is none.
    """
    record = parse_message(data)
    asked = f" {QTYPE[record.q.qtype]} {record.q.qname}" if record.questions else ""
    if not record.header.qr:
        return f"query{asked}"
    return f"answer{asked} {code_name(record.header.rcode)}, {len(record.rr)} records"
