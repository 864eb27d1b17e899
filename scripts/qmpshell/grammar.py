# SPDX-License-Identifier: GPL-2.0-or-later
"""A line of text to a command and its arguments.

    COMMAND name=value outer.inner=value list.0=value list=a,b obj={"a": 1}

Names are paths. What a value becomes is decided by the type that the daemon
says its argument has; only where that is not known is it guessed from the
value. The daemon is the judge of what is right: what does not fit its type is
sent as it was typed, and the daemon's error is then explained. So a line fails
here only if it cannot be understood at all.
"""
import ast
import json
import re

from .errors import SyntaxFault

TRUE = ("on", "true", "yes")
FALSE = ("off", "false", "no")
INTEGER = re.compile(r"[-+]?(0[xX][0-9a-fA-F]+|[0-9]+)")
SUFFIXED = re.compile(r"([0-9]+(?:\.[0-9]+)?)([KkMGTPE])(?:iB|B)?")
NUMBER = re.compile(r"[-+]?[0-9]+(\.[0-9]+)?([eE][-+]?[0-9]+)?")
SHIFTS = {"K": 10, "k": 10, "M": 20, "G": 30, "T": 40, "P": 50, "E": 60}
OPEN, CLOSE = "[{", "]}"
# Members whose values are secrets wherever they appear, for daemons that
# have no documentation; ours names the type.
SECRET_DATA = r"\bdata['\"]?\s*[=:]"
SECRET_WORDS = re.compile(
    rf"\bsecret\b.*{SECRET_DATA}|{SECRET_DATA}.*\bsecret\b|"
    r"\bpassword['\"]?\s*[=:]", re.S)


class Word:
    """A part of a line: where it stands, and what it says without quotes.

    literal: the value was quoted, so that it is nothing but a string
    closed: quotes and brackets have been closed
    """

    def __init__(self, start):
        self.start = start
        self.end = start
        self.text = ""
        self.literal = False
        self.closed = True

    def split(self):
        """(name, value or None)"""
        name, equals, value = self.text.partition("=")
        return name, value if equals else None


def split_line(line):
    """Splits at blanks outside quotes and brackets; never fails.

    A value that begins with a bracket goes to its end as it is. In other
    places quotes are removed, and a backslash takes the next character as is.
    """
    words = []
    position = 0
    while True:
        while position < len(line) and line[position].isspace():
            position += 1
        if position >= len(line):
            return words
        word = Word(position)
        position = _read_word(line, position, word)
        word.end = position
        words.append(word)


def _read_word(line, position, word):
    text = []
    value_at = position     # where a value begins: the word, or after its =
    named = False
    while position < len(line) and not line[position].isspace():
        char = line[position]
        if char == "=" and not named:
            named = True
            value_at = position + 1
        if char in OPEN and position == value_at:
            end = _end_of_brackets(line, position)
            word.closed = end is not None
            end = len(line) if end is None else end
            text.append(line[position:end])
            position = end
        elif char in "'\"":
            word.literal = True
            end, part = _read_quoted(line, position)
            word.closed = end is not None
            text.append(part)
            position = len(line) if end is None else end
        elif char == "\\" and position + 1 < len(line):
            text.append(line[position + 1])
            position += 2
        else:
            text.append(char)
            position += 1
    word.text = "".join(text)
    return position


def _read_quoted(line, position):
    quote = line[position]
    part = []
    position += 1
    while position < len(line):
        char = line[position]
        if char == quote:
            return position + 1, "".join(part)
        if char == "\\" and quote == '"' and line[position + 1:position + 2] \
                in ("\\", '"'):
            position += 1
            char = line[position]
        part.append(char)
        position += 1
    return None, "".join(part)


def _end_of_brackets(line, position):
    depth = 0
    while position < len(line):
        char = line[position]
        if char in "'\"":
            position += 1
            while position < len(line) and line[position] != char:
                position += 2 if line[position] == "\\" else 1
        depth += (char in OPEN) - (char in CLOSE)
        position += 1
        if depth == 0:
            return position
    return None


def is_unfinished(line):
    """Whether a line ends inside of brackets, so that it goes on."""
    if line.lstrip().startswith("#"):
        return False
    words = split_line(line)
    if words and words[0].text.startswith("{"):
        line = line.strip()
        return _end_of_brackets(line, 0) is None
    return bool(words) and not words[-1].closed and not words[-1].literal


def check_words(words):
    for word in words:
        if not word.closed:
            raise SyntaxFault(f"column {word.start + 1}: a quote or bracket "
                              "is not closed")


def words_of(arguments):
    """Words from a list of strings that another shell has split already."""
    words = []
    for text in arguments:
        word = Word(0)
        word.text = text
        words.append(word)
    return words


def words_of_command(arguments):
    """The same, if the first may also be a whole line, or begin with one.

    No command's name has a blank in it, so one that has was quoted as a whole.
    """
    if arguments[0].strip() and re.search(r"\s", arguments[0]):
        return split_line(arguments[0]) + words_of(arguments[1:])
    return words_of(arguments)


# Values.

class Names(ast.NodeTransformer):
    """Lets JSON's true, false and null stand in a Python value."""

    VALUES = {"true": True, "false": False, "null": None}

    def visit_Name(self, node):
        if node.id in self.VALUES:
            return ast.copy_location(ast.Constant(self.VALUES[node.id]), node)
        return node


def structured(text):
    """The value of {...} or [...], as JSON or in Python's notation."""
    try:
        return json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        json_error = error
    try:
        value = ast.literal_eval(Names().visit(ast.parse(text, mode="eval")))
        json.dumps(value, allow_nan=False)
        return value
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
        raise SyntaxFault(
            f"'{shorten(text)}' is neither JSON nor a Python value: "
            f"{json_error}") from None


def _no_constant(name):
    raise ValueError(f"'{name}' is not JSON")


def shorten(text, limit=40):
    return text if len(text) <= limit else text[:limit - 3] + "..."


def to_integer(text):
    """An integer, with 0x or a suffix K to E of powers of 1024; or None."""
    if INTEGER.fullmatch(text):
        hexadecimal = "x" in text.lower()
        if not hexadecimal and len(text) > 30:
            return None
        return int(text, 16 if hexadecimal else 10)
    match = SUFFIXED.fullmatch(text)
    if match:
        whole, _, fraction = match[1].partition(".")
        scaled = int(whole + fraction) << SHIFTS[match[2]]
        quotient, rest = divmod(scaled, 10 ** len(fraction))
        return quotient if rest == 0 else None
    return None


def guess(text):
    """A value whose type is not known, as QEMU's shell takes it."""
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    if text[:1] in ("{", "["):
        return structured(text)
    if INTEGER.fullmatch(text) and "x" not in text.lower():
        value = to_integer(text)
        return text if value is None else value
    return text


def scalar(word, typ):
    """The value of a word of which the type is known."""
    text = word.text
    if word.literal or typ.kind in ("string", "enum"):
        return text
    if text[:1] in ("{", "["):
        return structured(text)
    value = None
    if typ.kind == "integer":
        value = to_integer(text)
    elif typ.kind == "number" and NUMBER.fullmatch(text):
        value = json.loads(text.lstrip("+"))
    elif typ.kind == "boolean" and text in TRUE + FALSE:
        value = text in TRUE
    elif typ.kind == "null" and text == "null":
        return None
    elif typ.kind == "array":
        return array_of(text, typ.element())
    elif typ.kind == "alternate":
        return alternative(word, typ)
    elif typ.kind == "any":
        return guess(text)
    return text if value is None else value


def array_of(text, element):
    parts = text.split(",") if text else []
    return [scalar(word, element) for word in words_of(parts)]


def alternative(word, typ):
    """The first choice that the text fits, strings last."""
    for choice in sorted(typ.choices(),
                         key=lambda c: c.kind in ("string", "enum")):
        if choice.kind in ("array", "object"):
            continue
        if choice.kind == "null":
            if word.text == "null":
                return None
            continue
        value = scalar(word, choice)
        if choice.kind in ("string", "enum") or not isinstance(value, str):
            return value
    return word.text


# Arguments.

def build_tree(words):
    """Words to nested dictionaries whose leaves are Words."""
    tree = {}
    for word in words:
        name, value = word.split()
        if value is None or not name:
            raise SyntaxFault("expected NAME=VALUE, not "
                              f"'{shorten(word.text)}'")
        leaf = Word(word.start)
        leaf.text, leaf.literal = value, word.literal
        *path, last = name.split(".")
        place = tree
        for part in path:
            place = place.setdefault(part, {})
            if not isinstance(place, dict):
                raise SyntaxFault(f"'{name}': '{part}' has a value already")
        if not last or "" in path:
            raise SyntaxFault(f"'{name}': a name between dots is missing")
        if last in place:
            raise SyntaxFault(f"'{name}' is given twice")
        place[last] = leaf
    return tree


def is_list(tree):
    return bool(tree) and all(key.isdigit() for key in tree)


def list_items(tree):
    keys = sorted(tree, key=int)
    if [int(k) for k in keys] != list(range(len(keys))):
        raise SyntaxFault("the numbers of a list must be 0, 1, 2 and so on, "
                          f"not {', '.join(keys)}")
    return [tree[k] for k in keys]


def convert(tree, typ):
    """A tree of words to a value of the type, or None if it is not known."""
    if isinstance(tree, Word):
        if typ is not None:
            return scalar(tree, typ)
        return tree.text if tree.literal else guess(tree.text)
    if typ is not None and typ.kind == "alternate":
        typ = typ.choice("array" if is_list(tree) else "object")
    kind = typ.kind if typ is not None else None
    if is_list(tree) and kind != "object":
        element = typ.element() if kind == "array" else None
        return [convert(item, element) for item in list_items(tree)]
    if kind != "object":
        return {key: convert(item, None) for key, item in tree.items()}
    return convert_object(tree, typ)


def convert_object(tree, typ):
    tags = {key: item.text for key, item in tree.items()
            if isinstance(item, Word)}
    members = {m.name: m.type for m in typ.members(tags)}
    return {key: convert(item, members.get(key))
            for key, item in tree.items()}


def arguments(words, typ):
    """The arguments that words make; typ is the command's, or None."""
    check_words(words)
    return convert(build_tree(words), typ)


def given_so_far(words):
    """What lines say while they are typed: texts in nested dictionaries.

    Words that cannot be understood are left out.
    """
    tree = {}
    for word in words:
        name, value = word.split()
        if value is None or not name:
            continue
        if value[:1] in ("{", "[") and not word.literal:
            try:
                value = structured(value)
            except SyntaxFault:
                continue
        *path, last = name.split(".")
        place = tree
        for part in path:
            place = place.setdefault(part, {})
            if not isinstance(place, dict):
                break
        else:
            place[last] = value
    return tree


def raw_request(line):
    """A line that is a whole QMP message."""
    if is_unfinished(line):
        raise SyntaxFault("the message has no end: a quote or bracket is not "
                          "closed")
    request = structured(line)
    if not isinstance(request, dict) or not (
            "execute" in request or "exec-oob" in request):
        raise SyntaxFault("a message must have the member 'execute'")
    request.pop("id", None)
    return request


# Secrets.

def has_secret(line):
    """Whether a line may hold a secret, so that it is not to be stored.

    It is judged by its text, so that lines with mistakes are kept out too.
    """
    return SECRET_WORDS.search(line) is not None


def mask(value):
    """A copy of a request in which secrets are not shown."""
    if isinstance(value, list):
        return [mask(item) for item in value]
    if not isinstance(value, dict):
        return value
    of_secret = str(value.get("qom-type", "")).startswith("secret")
    return {key: "***" if key == "password" or of_secret and key == "data"
            else mask(item) for key, item in value.items()}
