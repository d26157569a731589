"""JSON of any size, value by value: no more of it is in memory than the value that is asked for."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from adit_plugins.structures import members

CHUNK = 2**16  # characters that are read at once
_MARGIN = 16  # an error so close to the end of what was read may be of a token that goes on
_OPEN_STRING = "Unterminated string"
_SPACE = " \t\n\r"
_BEHIND = _SPACE + ",:]}"


class JsonStream:
    """A JSON document of which a caller takes values whole, or enters lists and objects.

    Every method raises ValueError where the next thing is not JSON.

    Args:
        pieces: the text.
        name: of the file, for errors.

    Attributes:
        position: characters that were taken.
    """

    def __init__(self, pieces: Iterator[str], name: str) -> None:
        self.position = 0
        self._pieces, self._name = pieces, name
        self._text, self._at, self._ended = "", 0, False
        self._decoder = json.JSONDecoder()

    def peek(self) -> str:
        """Return the next character that is no space, and leave it; empty at the end."""
        while True:
            while self._at < len(self._text):
                if self._text[self._at] not in _SPACE:
                    return self._text[self._at]
                self._move(1)
            if self._ended:
                return ""
            self._more(CHUNK)

    def value(self) -> Any:
        """Take the next value whole.

        Raises:
            InputError: it is too large for that.
        """
        self.peek()
        while True:
            try:
                found, end = self._decoder.raw_decode(self._text, self._at)
            except json.JSONDecodeError as error:
                if self._ended or not self._may_go_on(error):
                    raise self._error(error.msg, error.pos) from error
            else:
                if self._ended or self._is_over(end):
                    self._move(end - self._at)
                    return found
            if len(self._text) - self._at > members.MAX_BYTES:
                raise members.too_large(self._name)
            self._more(max(CHUNK, len(self._text)))  # doubled: long values cost no square

    def elements(self) -> Iterator[None]:
        """Enter a list; at each element the caller takes its value."""
        self._take("[")
        if self.peek() != "]":
            yield None
            while self.peek() != "]":
                self._take(",")
                yield None
        self._take("]")

    def keys(self) -> Iterator[str]:
        """Enter an object; at each key the caller takes its value."""
        self._take("{")
        if self.peek() != "}":
            yield self._key()
            while self.peek() != "}":
                self._take(",")
                yield self._key()
        self._take("}")

    def end(self) -> None:
        """Require that nothing follows."""
        if self.peek():
            raise self._error("Extra data", self._at)

    def _key(self) -> str:
        if self.peek() != '"':
            raise self._error("Expecting property name enclosed in double quotes", self._at)
        key: str = self.value()
        self._take(":")
        return key

    def _take(self, wanted: str) -> None:
        if self.peek() != wanted:
            raise self._error(f"Expecting '{wanted}'", self._at)
        self._move(1)

    def _move(self, number: int) -> None:
        self._at += number
        self.position += number

    def _is_over(self, end: int) -> bool:
        """Whether nothing that is still to be read belongs to a value: digits, an exponent."""
        rest = self._text[end : end + _MARGIN]
        return len(rest) == _MARGIN or (rest != "" and rest[0] in _BEHIND)

    def _may_go_on(self, error: json.JSONDecodeError) -> bool:
        """Whether the text is wrong only because it ends here."""
        near = error.pos >= len(self._text.rstrip(_SPACE)) - _MARGIN
        return near or error.msg.startswith(_OPEN_STRING)

    def _error(self, message: str, place: int) -> ValueError:
        character = self.position - self._at + place
        return ValueError(f"it is no JSON ({message} at character {character})")

    def _more(self, wanted: int) -> None:
        """Read on, and forget what was taken."""
        pieces, size = [self._text[self._at :]], 0
        while size < wanted and not self._ended:
            piece = next(self._pieces, "")
            self._ended = not piece
            pieces.append(piece)
            size += len(piece)
        self._text, self._at = "".join(pieces), 0
