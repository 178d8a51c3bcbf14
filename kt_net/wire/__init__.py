"""Bytes <-> values, one header per file.

`parse_*` takes bytes from outside and raises MalformedPacket, nothing else; `emit` never fails for a value that could be built.
Not here: state, time, decisions about what a packet means. Read next: kt_net.stack.
"""
