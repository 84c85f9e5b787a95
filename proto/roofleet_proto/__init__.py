"""The vocabulary every part of Roofleet shares: tables, records, services and their encoding."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("roofleet")
except PackageNotFoundError:  # run from a source tree that is not installed
    __version__ = "0"
