"""What a store or a supervisor says when it cannot do what was asked. Each text is one sentence for a person."""

from __future__ import annotations


class Refused(RuntimeError):
    """A request that cannot be served now; nothing was changed."""


class QueueFull(Refused):
    """Too many comparisons wait already."""


class DiskFull(Refused):
    """The disk has no room for what was to be written."""


class StoreBusy(Refused):
    """Another process kept the store locked for longer than the caller wanted to wait."""


class StoreUnusable(Refused):
    """The store's file was made by a newer version, or is no store; it was left as it is."""


class FolderInUse(Refused):
    """Another server works on this folder."""


class FolderUnusable(Refused):
    """The folder for runs cannot be made or written."""
