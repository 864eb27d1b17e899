#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""The style rules that a program can check.

One subcommand per test of the lint suite:

  text ROOT           licence line, lengths, comments, names, L5, L8
  docs ROOT           a documentation block for each public function and type
  format ROOT         clang-format would change nothing
  headers ROOT CC...  each header compiles on its own (L4)
  globals LIB...      no mutable globals but the listed ones (L7)
  scripts ROOT        shellcheck and pyflakes

The C is read by its layout, which clang-format has fixed: a definition has
its name at the start of a line, and its body ends with a brace there. Keep
the checks simple enough that a wrong finding is easy to explain.
"""
import concurrent.futures
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

MAX_FUNCTION_LINES = 60
MAX_FILE_LINES = 800
C_DIRS = ("include", "server", "block", "qmp", "tests/unit", "tests/fuzz",
          "tests/peers")
PRODUCT_DIRS = ("include", "server", "block", "qmp")
SPDX = "SPDX-License-Identifier: GPL-2.0-or-later"

# Names with _co_ that never suspend, so that any function may call them.
NEVER_SUSPENDS = re.compile(r"""
    bf_co_(spawn|spawn_later|self|wake|pool_\w+|stack_\w+)
  | bf_co_(queue|mutex|semaphore)_(?!co_)\w+
""", re.X)

# Mutable globals that may exist: archive -> pattern of symbols.
GLOBALS_ALLOWED = {
    "libbf-crypto.a": r"^ipsec_mb_(once|manager)$",
    "libbf-core.a": r"quark|trace_|q\.\d+",
    "libbf-serve.a": r"^log_(sink|program|to_plain_file)$",
}


def source_files(root, dirs=C_DIRS, suffixes=(".c", ".h")):
    for directory in dirs:
        for path in sorted((root / directory).rglob("*")):
            if path.suffix in suffixes and path.is_file():
                yield path


def blank(match):
    """Replaces all but line ends, so that line numbers stay."""
    return re.sub(r"[^\n]", " ", match.group(0))


COMMENT = re.compile(r"/\*.*?\*/", re.S)
LITERAL = re.compile(r'"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])+\'')
COMMENT_OR_LITERAL = re.compile(
    r'/\*.*?\*/|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])+\'', re.S)


def code_only(text):
    """The text with comments and literals blanked out."""
    return COMMENT_OR_LITERAL.sub(blank, text)


# Functions: found by layout.
DEFINITION = re.compile(r"^([A-Za-z_]\w*)\(", re.M)


def functions(code):
    """Yields (name, first line, last line, body) of each definition."""
    lines = code.split("\n")
    index = 0
    while index < len(lines):
        match = DEFINITION.match(lines[index])
        if not match:
            index += 1
            continue
        start = index
        while index < len(lines) and lines[index] != "{":
            if lines[index].rstrip().endswith(";") or (
                    index > start and lines[index] == ""):
                break
            index += 1
        if index >= len(lines) or lines[index] != "{":
            index = start + 1
            continue
        end = index
        while end < len(lines) and lines[end].rstrip() != "}":
            end += 1
        yield (match.group(1), start + 1, end + 1,
               "\n".join(lines[index:end]), index + 1)
        index = end


def check_lengths(name, text, code):
    count = text.count("\n")
    lines = text.split("\n")
    if count > MAX_FILE_LINES:
        yield f"{name}: {count} lines, at most {MAX_FILE_LINES}"
    for func, first, last, _body, _body_line in functions(code):
        if last - first + 1 <= MAX_FUNCTION_LINES:
            continue
        # The return type, then perhaps the reason, stand above the name.
        above = "\n".join(lines[max(0, first - 4):first - 1])
        if not re.search(r"/\* long: \S.*\*/", above):
            yield (f"{name}:{first}: {func}() has {last - first + 1} lines, "
                   f"at most {MAX_FUNCTION_LINES} without a 'long:' reason")


def check_comments(name, text, code):
    if SPDX not in "\n".join(text.split("\n")[:2]):
        yield f"{name}:1: the first line lacks {SPDX}"
    for number, line in enumerate(code.split("\n"), 1):
        if "//" in line:
            yield f"{name}:{number}: // comment"
    for match in re.finditer(r"\b(TODO|FIXME|XXX)\b(?!\(?\s?#\d+)", text):
        line = text.count("\n", 0, match.start()) + 1
        yield f"{name}:{line}: {match.group(1)} without an issue number"
    for match in re.finditer(r"/work/\w+", text):
        line = text.count("\n", 0, match.start()) + 1
        yield f"{name}:{line}: path outside the tree"
    head = re.match(r"(?:/\* SPDX.*?\*/\s*)?/\*", text, re.S)
    if not head or not re.search(r"/\*.*?\*/\s*/\*", text[:2000], re.S):
        yield f"{name}:1: no comment that says what the file is for"


def check_braces(name, code):
    for match in re.finditer(r"^ *(?:\} else )?(if|for|while) \(", code, re.M):
        depth, position = 1, match.end()
        while position < len(code) and depth:
            depth += (code[position] == "(") - (code[position] == ")")
            position += 1
        if re.match(r"\s*[^\s{;\\]", code[position:]):
            line = code.count("\n", 0, match.start()) + 1
            yield f"{name}:{line}: braces are missing after {match.group(1)}"
    for match in re.finditer(r"(?<!#)\belse\s+(?!if\b|\{)\w", code):
        line = code.count("\n", 0, match.start()) + 1
        yield f"{name}:{line}: braces are missing after else"


def check_names(name, path, code):
    for func, first, _last, _body, _body_line in functions(code):
        if re.search(r"_co$", func):
            yield f"{name}:{first}: {func}(): _co_ comes right after the module"
    if path.suffix == ".h" and "#pragma once" not in code:
        yield f"{name}:1: no #pragma once"
    if path.suffix == ".h" and not name.startswith("include/"):
        if not path.name.endswith("-private.h") and name.startswith(
                PRODUCT_DIRS):
            yield f"{name}: a header beside sources ends in -private.h (L5)"


def check_private(root, name, path, text):
    for match in re.finditer(r'#include "([^"]*-private\.h)"', text):
        header = match.group(1)
        beside = path.parent / pathlib.Path(header).name
        spelled = root / header
        if not name.startswith(PRODUCT_DIRS):
            continue
        if not beside.exists() or (
                spelled.exists() and spelled.resolve() != beside.resolve()):
            yield f"{name}: {header} is private to another directory (L5)"


CALL = re.compile(r"(?<![\w])((?:\w+_co_|co_)\w+)\s*\(")


def check_suspending(name, code):
    for func, _first, _last, body, body_line in functions(code):
        if "_co_" in func or func.startswith("co_"):
            continue
        for match in CALL.finditer(body):
            called = match.group(1)
            if NEVER_SUSPENDS.fullmatch(called):
                continue
            line = body_line + body.count("\n", 0, match.start())
            yield (f"{name}:{line}: {func}() calls {called}(), which may "
                   f"suspend, but has no _co_ in its name (L8)")


def cmd_text(root):
    for path in source_files(root):
        name = path.relative_to(root).as_posix()
        text = path.read_text()
        code = code_only(text)
        yield from check_lengths(name, text, code)
        yield from check_comments(name, text, code)
        yield from check_names(name, path, code)
        yield from check_braces(name, code)
        yield from check_private(root, name, path, text)
        if name.startswith(PRODUCT_DIRS):
            yield from check_suspending(name, code)


# Documentation blocks.
DOC = re.compile(r"/\*\*\n \* ([\w-]+):(.*?)\*/", re.S)
PROTOTYPE = re.compile(r"\b(\w+)\s*\(([^()]*(?:\([^()]*\)[^()]*)*)\)\s*"
                       r"(?:G_\w+(?:\([^)]*\))?\s*|__attribute__.*)*$", re.S)


def top_level_pieces(text):
    """Yields (line, doc or None, code) of each declaration of a header."""
    text = re.sub(r"^[ \t]*#(?:[^\n]*\\\n)*[^\n]*", blank, text, flags=re.M)
    position, depth, start, doc = 0, 0, None, None
    while position < len(text):
        comment = COMMENT.match(text, position)
        if comment:
            if start is None:
                doc = comment.group(0)
            position = comment.end()
            continue
        literal = LITERAL.match(text, position)
        if literal:
            position = literal.end()
            continue
        char = text[position]
        if start is None and not char.isspace():
            start = position
        if char == "{":
            depth += 1
        elif char == "}":
            depth -= 1
        ends = depth == 0 and (char == ";" or (
            char == "}" and is_function_body(text, start, position)))
        if start is not None and ends:
            piece = COMMENT.sub(" ", text[start:position + 1])
            yield text.count("\n", 0, start) + 1, doc, piece
            # One comment may stand over a block of like declarations.
            grouped = doc and "as in" in doc and not re.match(
                r"\n\s*\n", text[position + 1:])
            start, doc = None, doc if grouped else None
        position += 1


def is_function_body(text, start, end):
    if start is None:
        return False
    head = text[start:end].split("{", 1)[0]
    return "(" in head and not head.lstrip().startswith("typedef")


def parameter_names(parameters):
    parameters = re.sub(r"G_GNUC_\w+", "", parameters).strip()
    if parameters in ("", "void"):
        return []
    names, depth, current = [], 0, ""
    for char in parameters + ",":
        depth += (char == "(") - (char == ")")
        if char != "," or depth:
            current += char
            continue
        pointer = re.search(r"\(\*\s*(\w+)", current)
        plain = re.search(r"(\w+)\s*(?:\[[^\]]*\])*\s*$", current)
        if pointer:
            names.append(pointer.group(1))
        elif plain and "..." not in current:
            names.append(plain.group(1))
        current = ""
    return names


def check_function_doc(where, piece, doc):
    head = piece.split("{", 1)[0].rstrip("; \n")
    match = PROTOTYPE.search(head)
    if not match or match.group(1).isupper():
        return
    name, parameters = match.group(1), match.group(2)
    if name.startswith("G_") or head.startswith("extern "):
        return
    if not name.startswith(("bf_", "co_")):
        yield f"{where}: public function {name}() lacks the prefix bf_"
    if doc and not doc.startswith("/**") and "as in" in doc:
        return
    if not doc or not re.match(rf"/\*\*\n \* {name}:", doc):
        yield f"{where}: {name}() has no documentation block"
        return
    for parameter in parameter_names(parameters):
        if f"@{parameter}:" not in doc:
            yield f"{where}: {name}(): parameter @{parameter} is not documented"
    result = re.sub(r"\b(static|inline|extern|G_\w+)\b", "",
                    head[:match.start()]).split()
    if result != ["void"] and "Returns:" not in doc and "no-return" not in doc:
        yield f"{where}: {name}(): 'Returns:' is missing"


def type_name(piece):
    match = re.match(r"typedef\b[^({]*?\b(\w+)\s*\(", piece)
    if match and match.group(1) != "__attribute__":
        return match.group(1)
    match = re.match(r"typedef\b.*?\(\s*\*\s*(\w+)\s*\)\s*\(", piece, re.S)
    if match and "{" not in piece[:match.end()]:
        return match.group(1)
    match = re.search(r"(\w+)\s*(?:\[[^\]]*\])?\s*;\s*$", piece)
    if piece.startswith("typedef") and match:
        return match.group(1)
    match = re.match(r"(?:struct|enum|union)\s+(\w+)\s*\{", piece)
    return match.group(1) if match else None


def cmd_docs(root):
    headers = list(source_files(root, ("include",), (".h",)))
    documented = set()
    for path in headers:
        documented |= {m.group(1) for m in DOC.finditer(path.read_text())}
    for path in headers:
        name = path.relative_to(root).as_posix()
        for line, doc, piece in top_level_pieces(path.read_text()):
            where = f"{name}:{line}"
            found = type_name(piece)
            if found:
                if not found.startswith("Bf"):
                    yield f"{where}: public type {found} lacks the prefix Bf"
                elif found not in documented:
                    yield f"{where}: {found} has no documentation block"
            elif not piece.startswith(("struct", "extern")):
                yield from check_function_doc(where, piece, doc)


def cmd_format(root):
    tool = shutil.which("clang-format-14") or shutil.which("clang-format")
    if tool is None:
        yield "clang-format is missing (Debian package clang-format)"
        return
    files = [str(path) for path in source_files(root)]
    if not files:
        return
    result = subprocess.run([tool, "--dry-run", "-Werror", *files],
                            cwd=root, capture_output=True, text=True)
    for line in result.stderr.splitlines():
        if "error:" in line:
            yield line.replace(f"{root}/", "").split(" [-W")[0]


def cmd_headers(root, *compiler):
    """Each header alone in a file compiles (L4)."""
    headers = list(source_files(root, ("include",), (".h",)))

    def try_one(path):
        text = f'#include "{path.relative_to(root / "include")}"\n'
        with tempfile.NamedTemporaryFile("w", suffix=".c") as source:
            source.write(text)
            source.flush()
            result = subprocess.run(
                [*compiler, "-fsyntax-only", source.name],
                capture_output=True, text=True)
        if result.returncode:
            return f"{path.relative_to(root)}: not complete:\n{result.stderr}"
        return None

    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        yield from filter(None, pool.map(try_one, headers))


SYMBOL = re.compile(r"^[0-9a-f]+ (.{7}) (\S+)\s+([0-9a-f]+)\s+(?:\.hidden )?"
                    r"(\S+)$")


def cmd_globals(*libraries):
    for library in libraries:
        name = pathlib.Path(library).name
        allowed = re.compile(GLOBALS_ALLOWED.get(name, r"(?!)"))
        dump = subprocess.run(["objdump", "-t", library], check=True,
                              capture_output=True, text=True).stdout
        for line in dump.splitlines():
            match = SYMBOL.match(line)
            if not match:
                continue
            flags, section, size, symbol = match.groups()
            mutable = section in ("*COM*", ".data", ".bss") or re.match(
                r"\.(data|bss)\.(?!rel\.ro)", section)
            if mutable and "O" in flags and int(size, 16) > 0 and \
                    not allowed.search(symbol):
                yield f"{name}: mutable global {symbol} in {section} (L7)"


def script_files(root):
    for directory in ("scripts", "tests", ".ci"):
        for path in sorted((root / directory).rglob("*")):
            if path.is_file() and path.suffix in ("", ".py", ".sh"):
                with path.open("rb") as file:
                    yield path, file.readline(200).decode(errors="replace")


def cmd_scripts(root):
    shell, python = [], []
    for path, first in script_files(root):
        if path.suffix == ".sh" or re.match(r"#!.*\b(ba)?sh\b", first):
            shell.append(str(path))
        elif path.suffix == ".py" or "python3" in first:
            python.append(str(path))
            lines = path.read_text().split("\n", 2)
            if not any(SPDX in line for line in lines[:2]):
                yield f"{path.relative_to(root)}:1: lacks {SPDX}"
    for tool, files in (("shellcheck", ["-x", *shell]), ("pyflakes3", python)):
        if shutil.which(tool) is None:
            yield f"{tool} is missing (Debian package of the same name)"
            continue
        result = subprocess.run([tool, *files], capture_output=True, text=True,
                                cwd=root)
        if result.returncode:
            yield result.stdout.strip() + result.stderr.strip()


COMMANDS = {"text": cmd_text, "docs": cmd_docs, "format": cmd_format,
            "headers": cmd_headers, "globals": cmd_globals,
            "scripts": cmd_scripts}


def main():
    if len(sys.argv) < 3 or sys.argv[1] not in COMMANDS:
        sys.exit(__doc__)
    arguments = sys.argv[2:]
    if sys.argv[1] != "globals":
        arguments[0] = pathlib.Path(arguments[0]).resolve()
    found = list(COMMANDS[sys.argv[1]](*arguments))
    sys.exit("\n".join(found) if found else 0)


main()
