"""Which devices a job may run on: `kind=cuda,memory>=40GiB,label:site=lab1`, or `all` for one on each.

A selector is terms joined by commas, all of which must hold:

    term     = "all" | key comparison value
    key      = "kind" | "name" | "host" | "device" | "backend" | "memory" | "label:" name
    compared = "=" | "!=" | "~"                 text: the same, another, or a part of it (upper case or lower)
             | "=" | "!=" | ">=" | "<=" | ">" | "<"       memory
    value    = text without comma and quotes | '"' text, quotes doubled '"'

`kind` is `cpu`, `gpu` or `tpu`, or what torch calls it, such as `cuda`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from roofleet_proto.records import DeviceOffer
from roofleet_proto.sizes import size_bytes

_KEYS = ("kind", "name", "host", "device", "backend", "memory")
_TERM = re.compile(r"\s*(?P<key>label:[^\s=!~<>,\"]+|[a-z]+)\s*(?P<how>>=|<=|!=|=|~|>|<)\s*")
_QUOTED = re.compile(r'"((?:[^"]|"")*)"\s*')
_PLAIN = re.compile(r'[^,"]*')
MAX_LENGTH = 4096


class SelectorError(ValueError):
    """The text is no selector; the message says where and what is expected."""


@dataclass(frozen=True)
class Place:
    """A device as a selector sees it."""

    device: DeviceOffer
    hostname: str
    host_id: str
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Term:
    """One condition, such as memory >= 40 GiB; `value` is as it was written."""

    key: str
    how: str
    value: str

    def __str__(self) -> str:
        plain = self.value == self.value.strip() and not set(self.value) & set(',"') and self.value
        quoted = '"' + self.value.replace('"', '""') + '"'
        return f"{self.key}{self.how}{self.value if plain else quoted}"

    def fits(self, place: Place) -> bool:
        """Whether it holds for a device; what is not known fits nothing but `!=`."""
        if self.key == "memory":
            return _MEMORY[self.how](place.device.memory_bytes, size_bytes(self.value))
        found = self._found(place)
        if self.how == "~":
            return any(self.value.lower() in text.lower() for text in found)
        return (self.value in found) == (self.how == "=")

    def _found(self, place: Place) -> tuple[str, ...]:
        device = place.device
        if self.key.startswith("label:"):
            value = place.labels.get(self.key.removeprefix("label:"))
            return () if value is None else (value,)
        return {
            "kind": (device.kind, device.backend),
            "backend": (device.backend, f"{device.backend}:{device.device_index}"),
            "name": (device.name,),
            "host": (place.hostname, place.host_id),
            "device": (device.device_id,),
        }[self.key]


_MEMORY: dict[str, Callable[[int, int], bool]] = {
    "=": lambda has, wanted: 0 < has == wanted,
    "!=": lambda has, wanted: has != wanted,
    ">=": lambda has, wanted: 0 < has >= wanted,
    "<=": lambda has, wanted: 0 < has <= wanted,
    ">": lambda has, wanted: 0 < has > wanted,
    "<": lambda has, wanted: 0 < has < wanted,
}


@dataclass(frozen=True)
class Selector:
    """Terms that must all hold; with `each` a job is made for every device that fits."""

    terms: tuple[Term, ...]
    each: bool = False

    def __str__(self) -> str:
        return ",".join([*(["all"] if self.each else []), *map(str, self.terms)])

    def fits(self, place: Place) -> bool:
        """Whether a device is one of those meant."""
        return all(term.fits(place) for term in self.terms)


def parse(text: str) -> Selector:
    """The selector of a text; SelectorError if it is none."""
    if len(text) > MAX_LENGTH:
        raise SelectorError(f"a selector of {len(text):,} characters: the most is {MAX_LENGTH:,}")
    if not text.strip():
        raise SelectorError("the selector is empty: write all, or conditions such as kind=cuda,memory>=40GiB")
    terms: list[Term] = []
    each = False
    place = 0
    while True:
        if found := re.compile(r"\s*all\s*(?=,|$)").match(text, place):
            each, place = True, found.end()
        else:
            term, place = _term(text, place)
            terms.append(term)
        if place == len(text):
            return Selector(tuple(terms), each)
        if text[place] != ",":
            raise SelectorError(f"{text[place:]!r:.60} in {text!r:.200}: write a comma between conditions")
        place += 1


def _term(text: str, place: int) -> tuple[Term, int]:
    found = _TERM.match(text, place)
    if found is None:
        part = text[place:].split(",")[0].strip()
        raise SelectorError(
            f"{part!r:.60} is no condition: write one such as kind=cuda, name~h100, memory>=40GiB, host=NAME "
            "or label:site=lab1, or all"
        )
    key, how, place = found["key"], found["how"], found.end()
    if key not in _KEYS and not key.startswith("label:"):
        raise SelectorError(
            f"devices are not picked by {key!r:.60}; there are {', '.join(_KEYS)} and label:NAME"
        )
    quoted = _QUOTED.match(text, place)
    value_at = quoted or _PLAIN.match(text, place)
    assert value_at is not None  # nothing at all is plain
    value = quoted[1].replace('""', '"') if quoted else value_at[0].strip()
    if not value and not quoted:
        raise SelectorError(f"{key}{how} lacks its value: write {key}{how}VALUE")
    if key == "memory":
        if how == "~":
            raise SelectorError("memory is compared with =, >=, <=, > or <, such as memory>=40GiB")
        try:
            size_bytes(value)
        except ValueError as error:
            raise SelectorError(str(error)) from None
    elif how not in ("=", "!=", "~"):
        raise SelectorError(f"{key} is text: compare it with =, != or ~ (a part of it), not {how}")
    return Term(key, how, value), value_at.end()
