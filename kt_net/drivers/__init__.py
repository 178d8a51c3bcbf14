"""Event loop, threads, clock: the only place that waits.

Not here: protocol knowledge; it moves bytes between adapters and quiet rooms and asks them for their next timer.
"""
