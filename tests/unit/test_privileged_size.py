"""What is root's can be read in one sitting, and brings nothing along that nobody has read."""

import ast
import io
import os
import subprocess
import sys
import tokenize
from pathlib import Path

from tests.lab.spec import REPO

FOLDER = REPO / "daemon" / "wattkeeper" / "privileged"
FILES = sorted(FOLDER.rglob("*.py"))
MOST_LINES = 400
OF_OURS = ("wattkeeper.privileged", "wattkeeper.system.failpoint")

LAYOUT = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}

_LOADED = """
import sys, wattkeeper.privileged.__main__
print("\\n".join(sorted(sys.modules)))
"""


def code_lines(source: str) -> int:
    """Lines that are neither blank, nor of a comment, a docstring or an import alone."""
    apart: set[int] = set()
    for node in ast.walk(ast.parse(source)):
        text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        if isinstance(node, ast.Import | ast.ImportFrom) or (isinstance(node, ast.Expr) and text):
            apart |= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in LAYOUT:
            lines |= set(range(token.start[0], token.end[0] + 1))
    return len(lines - apart)


def imported(source: str) -> set[str]:
    """Every module that is imported, wherever in the file."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "no relative imports"
            names.add(node.module or "")
    return names


def test_lines_are_counted_as_a_reader_would() -> None:
    doc = '"""Doc."""\n'
    source = f"{doc}import os\n\n# why\nX = (\n    1,\n)\n{doc}\n\ndef f() -> str:\n    {doc}    return X\n"
    assert code_lines(source) == 5


def test_it_is_short_enough_to_be_read() -> None:
    counts = {path.name: code_lines(path.read_text()) for path in FILES}
    print(f"privileged/: {sum(counts.values())} lines of code ({counts})")
    assert sum(counts.values()) <= MOST_LINES, counts


def test_it_imports_the_standard_library_pynvml_and_itself() -> None:
    for path in FILES:
        for name in imported(path.read_text()):
            top = name.partition(".")[0]
            ours = any(name == one or name.startswith(f"{one}.") for one in OF_OURS)
            assert ours or top in sys.stdlib_module_names or name == "pynvml", f"{path.name} imports {name}"


def test_and_so_does_all_that_it_imports() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _LOADED],
        env={**os.environ, "PYTHONPATH": str(Path(REPO, "daemon"))},
        capture_output=True,
        text=True,
        check=True,
    )
    loaded = set(done.stdout.split())
    ours = {name for name in loaded if name.startswith("wattkeeper")}
    allowed = {"wattkeeper", "wattkeeper.system", *OF_OURS}
    assert not [name for name in ours - allowed if not name.startswith("wattkeeper.privileged.")]
    for heavy in ("asyncio", "yaml", "aiohttp", "msgspec", "ssl", "http", "multiprocessing", "sqlite3"):
        assert heavy not in loaded, heavy
    bare = subprocess.run([sys.executable, "-c", 'import sys; print("\\n".join(sys.modules))'],
                          capture_output=True, text=True, check=True)  # fmt: skip
    foreign = {
        name for name in loaded - set(bare.stdout.split()) if name.partition(".")[0] not in sys.stdlib_module_names
    }
    assert {name for name in foreign if not name.startswith("wattkeeper")} <= {"pynvml", "__main__"}, foreign
