"""What goes wrong with the lab, in one class: it says what and what to do."""

from __future__ import annotations


class LabError(Exception):
    """The lab cannot do what was asked."""
