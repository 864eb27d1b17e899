# SPDX-License-Identifier: GPL-2.0-or-later
"""A second reader of QMP's JSON, to compare the daemon's with.

It is written from the rules, for clearness and not for speed: a stream of
bytes becomes tokens; tokens are collected until the brackets balance, or one
too many closes; then they are a value or an error. Noise makes texts for it,
right and wrong ones.
"""
import re
import sys

WHITE = b" \t\r\n"
PUNCTUATION = b"{}[]:,"
# Ends the search for a place to go on at after bytes that are no token.
RESUME = PUNCTUATION + bytes(set(range(0x20)) - {0x09}) + b"\xfe\xff"
CONTROL = bytes(range(0x20)) + b"\xfe\xff"  # never in a string
NUMBER = re.compile(rb"-?(0|[1-9][0-9]*)([.][0-9]+)?([eE][-+]?[0-9]+)?")
# What can still become a number.
NUMBER_BEGIN = re.compile(
    rb"-?((0|[1-9][0-9]*)([.][0-9]*)?|(0|[1-9][0-9]*)([.][0-9]+)?"
    rb"[eE][-+]?[0-9]*)?")
WORDS = {b"true": True, b"false": False, b"null": None}
ESCAPES = dict(zip("\"'\\/bfnrt", "\"'\\/\b\f\n\r\t"))
HEX4 = re.compile(rb"[0-9a-fA-F]{4}")


class Wrong(Exception):
    """These tokens are no value."""


class Reader:
    """feed() returns the outcomes that are complete: ("value", value) or
    ("error", None)."""

    def __init__(self):
        self.bytes = b""
        self.tokens = []
        self.recovering = False

    def feed(self, data):
        self.bytes += data
        outcomes = []
        while self.bytes:
            if self.recovering:
                self.recover()
                continue
            length = self.token_length()
            if length is None:
                break
            token, self.bytes = (self.bytes[:abs(length)],
                                 self.bytes[abs(length):])
            if length < 0:
                self.tokens, self.recovering = [], True
                outcomes.append(("error", None))
            elif token not in (b" ", b"\t", b"\r", b"\n"):
                self.tokens.append(token)
                outcomes += self.balance()
        return outcomes

    def recover(self):
        at = 0
        while at < len(self.bytes) and self.bytes[at] not in RESUME:
            at += 1
        self.bytes = self.bytes[at:]
        self.recovering = not self.bytes

    def token_length(self):
        """Of the first token or white space; negative: it is none, up to
        there; None: more bytes are needed to know."""
        first = self.bytes[:1]
        if first in (b'"', b"'"):
            return self.string_length()
        if first[0] in WHITE or first[0] in PUNCTUATION:
            return 1
        if first.islower() and first.isascii():
            word = re.match(rb"[a-z]+", self.bytes).end()
            return word if word < len(self.bytes) else None
        if first in b"-0123456789":
            return self.number_length()
        return -1

    def string_length(self):
        at = 1
        while at < len(self.bytes):
            if self.bytes[at] in CONTROL:
                return -(at + 1)
            if self.bytes[at] == self.bytes[0]:
                return at + 1
            if self.bytes[at] == 0x5C:
                at += 1
                if at < len(self.bytes) and self.bytes[at] in CONTROL:
                    return -(at + 1)
            at += 1
        return None

    def number_length(self):
        end = 1
        while end < len(self.bytes) and NUMBER_BEGIN.fullmatch(
                self.bytes[:end + 1]):
            end += 1
        if end == len(self.bytes):
            return None
        if not NUMBER.fullmatch(self.bytes[:end]):
            return -(end + 1)
        if re.fullmatch(rb"-?0", self.bytes[:end]) and \
                self.bytes[end:end + 1].isdigit():
            return -(end + 1)
        return end

    def balance(self):
        """Returns the outcome if a value or an error is complete."""
        braces = self.tokens.count(b"{") - self.tokens.count(b"}")
        brackets = self.tokens.count(b"[") - self.tokens.count(b"]")
        if max(braces, brackets) > 0 and min(braces, brackets) >= 0:
            return []
        tokens, self.tokens = self.tokens, []
        try:
            value, rest = parse(tokens)
            return [("value", value)] if not rest else [("error", None)]
        except Wrong:
            return [("error", None)]


def parse(tokens):
    """Returns a value and the tokens behind it."""
    if not tokens:
        raise Wrong
    token, rest = tokens[0], tokens[1:]
    if token == b"[":
        return parse_list(rest)
    if token == b"{":
        return parse_object(rest)
    if token[0] in b"\"'":
        return string(token[1:-1]), rest
    if token in WORDS:
        return WORDS[token], rest
    if NUMBER.fullmatch(token):
        return number(token), rest
    raise Wrong


def parse_list(tokens):
    values = []
    if tokens[:1] == [b"]"]:
        return values, tokens[1:]
    while True:
        value, tokens = parse(tokens)
        values.append(value)
        if tokens[:1] == [b"]"]:
            return values, tokens[1:]
        if tokens[:1] != [b","]:
            raise Wrong
        tokens = tokens[1:]


def parse_object(tokens):
    members = {}
    if tokens[:1] == [b"}"]:
        return members, tokens[1:]
    while True:
        key, tokens = parse(tokens)
        if not isinstance(key, str) or key in members or \
                tokens[:1] != [b":"]:
            raise Wrong
        members[key], tokens = parse(tokens[1:])
        if tokens[:1] == [b"}"]:
            return members, tokens[1:]
        if tokens[:1] != [b","]:
            raise Wrong
        tokens = tokens[1:]


def number(token):
    """Integers of 64 bits with or without sign; else the nearest double."""
    if token.lstrip(b"-").isdigit() and -1 << 63 <= int(token) < 1 << 64:
        return int(token)
    limit = sys.float_info.max
    return min(max(float(token), -limit), limit)


def character(code):
    """Surrogates and noncharacters are none."""
    if 0xD800 <= code < 0xE000 or 0xFDD0 <= code < 0xFDF0 or \
            code & 0xFFFE == 0xFFFE:
        raise Wrong
    return chr(code)


def string(source):
    text = ""
    while source:
        if source[0] == 0x5C:
            one, source = escape(source[1:])
        elif source[:2] == b"\xc0\x80":
            one, source = "\0", source[2:]
        else:
            length = 1 + sum(source[0] >= lead for lead in (0xC0, 0xE0, 0xF0))
            try:
                one = character(ord(source[:length].decode()))
            except (UnicodeDecodeError, TypeError):
                raise Wrong from None
            source = source[length:]
        text += one
    return text


def escape(source):
    """What a backslash and this begin with stand for, and what follows."""
    kind = source[:1].decode("latin1")
    if kind in ESCAPES:
        return ESCAPES[kind], source[1:]
    if kind != "u" or not HEX4.fullmatch(source[1:5]):
        raise Wrong
    code, source = int(source[1:5], 16), source[5:]
    if 0xD800 <= code < 0xDC00 and source[:2] == b"\\u" and \
            HEX4.fullmatch(source[2:6]):
        low = int(source[2:6], 16)
        if 0xDC00 <= low < 0xE000:
            code = 0x10000 + ((code - 0xD800) << 10) + low - 0xDC00
            source = source[6:]
    return character(code), source


# Texts.

PIECES = [
    b"{", b"}", b"[", b"]", b":", b",", b'"', b"'", b"\\", b"\\u", b"\\ud800",
    b"\\udc00", b"\\u0000", b"\\uFFFF", b"\\x", b"-", b"+", b".", b"e", b"E5",
    b"0", b"01", b"1.", b"-0", b"1e400", b"-1e400", b"0x1", b"nul", b"true",
    b"TRUE", b"NaN", b"Infinity", b"#", b"/*", b"%s", b"\t", b"\n", b"\0",
    b"\x01", b"\x7f", b"\xff", b"\xfe", b"\xc0\x80", b"\xc1\x81", b"\xe0\x80",
    b"\xed\xa0\x80", b"\xef\xbf\xbf", b"\xef\xb7\x90", b"\xf0\x9f\x98\x80",
    b"\xf4\x90\x80\x80", b"\xf8\x88\x80\x80\x80", b"\xc3", b"\xa9", b'"id":1',
    b'"a":', b'""', b"''", b"[]", b"{}", b"18446744073709551616",
    b"9223372036854775808", b"-9223372036854775809", b"1" * 400]
NUMBERS = [
    "0", "-0", "1", "-1", "0.5", "-0.0", "1e3", "1E+3", "25e-2", "1e400",
    "-1e400", "1e-400", "9007199254740993", "9223372036854775807",
    "9223372036854775808", "18446744073709551615", "18446744073709551616",
    "-9223372036854775808", "-9223372036854775809", "0.1",
    "2.2250738585072014e-308", "4.9e-324", "9" * 500, "1." + "0" * 500 + "1"]
CHARACTERS = [
    "a", "id", " ", "\\n", "\\/", "\\\\", "\\'", '\\"', "\\b", "\\f", "\\r",
    "\\t", "\\u0000", "\\u001f", "\\u00e9", "\\uD83D\\uDE00", "\x7f", "\u00e9",
    "\u20ac", "\U0001f600", "\u2028", "%d", "{", "]", ",", "\\u0022",
    "\\uE000", "\uf8ff", "\U0010fffd"]


class Noise:
    """Texts from a random.Random; about half of them are right."""

    def __init__(self, source):
        self.random = source

    def text(self):
        text = self.value(4)
        if self.random.random() < 0.5:
            for _ in range(self.random.choice((1, 1, 2, 5))):
                text = self.damage(text)
        return text

    def space(self):
        return self.random.choice(
            [b"", b"", b"", b" ", b"\t", b"\r\n", b" \n  "])

    def value(self, depth):
        kind = self.random.randrange(7 if depth else 5)
        if kind == 0:
            text = self.random.choice((b"true", b"false", b"null"))
        elif kind in (1, 2):
            text = self.random.choice(NUMBERS).encode() \
                if self.random.random() < 0.7 else repr(
                    self.random.uniform(-1e6, 1e6)).encode()
        elif kind in (3, 4):
            text = self.string()
        elif kind == 5:
            text = b"[" + self.joined(lambda: self.value(depth - 1)) + b"]"
        else:
            text = b"{" + self.joined(lambda: self.string() + self.space()
                                      + b":" + self.value(depth - 1)) + b"}"
        return self.space() + text + self.space()

    def joined(self, make):
        return b",".join(make() for _ in range(
            self.random.choice((0, 1, 2, 3, 6)))) or self.space()

    def string(self):
        quote = self.random.choice("\"\"'")
        parts = self.random.choices(CHARACTERS,
                                    k=self.random.choice((0, 1, 3, 8)))
        other = "'" if quote == '"' else '"'
        return (quote + "".join(parts) + (
            other if self.random.random() < 0.2 else "") + quote).encode()

    def damage(self, text):
        at = self.random.randrange(len(text) + 1)
        end = min(len(text), at + self.random.choice((0, 0, 1, 1, 4)))
        piece = self.random.choice(PIECES) if self.random.random() < 0.6 \
            else bytes([self.random.randrange(256)])
        if self.random.random() < 0.3:
            piece = b""
        return text[:at] + piece + text[end:]
