"""No block of code is written twice."""

import io
import tokenize
from collections import defaultdict
from pathlib import Path

BLOCK = 25  # lines of code; blank lines, comments and import lines do not count


def _code_lines(path: Path) -> list[tuple[int, str]]:
    """(line number, stripped text) of every line that carries code other than an import."""
    text = path.read_text(encoding="utf-8")
    skip = {
        tokenize.COMMENT,
        tokenize.NL,
        tokenize.NEWLINE,
        tokenize.INDENT,
        tokenize.DEDENT,
        tokenize.ENDMARKER,
    }
    numbers: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in skip:
            numbers.update(range(token.start[0], token.end[0] + 1))
    lines = text.splitlines()
    code = [(number, lines[number - 1].strip()) for number in sorted(numbers)]
    return [(n, line) for n, line in code if line and not line.startswith(("import ", "from "))]


def _repeats(files: list[Path], block: int) -> list[str]:
    seen: dict[tuple[str, ...], tuple[Path, int, int]] = {}
    repeats: dict[tuple[Path, Path], str] = {}
    for path in files:
        lines = _code_lines(path)
        for index in range(len(lines) - block + 1):
            key = tuple(text for _, text in lines[index : index + block])
            first = seen.setdefault(key, (path, lines[index][0], index))
            if first[0] != path or index - first[2] >= block:
                where = f"{first[0].name}:{first[1]} is repeated in {path.name}:{lines[index][0]}"
                repeats.setdefault((first[0], path), where)
    return sorted(repeats.values())


def test_no_block_is_written_twice(python_files: list[Path]):
    """No twenty-five lines of code occur in two places of the repository."""
    assert _repeats(python_files, BLOCK) == []


def test_the_guard_sees_a_repeat(tmp_path: Path):
    """The search itself finds a block copied under another indentation, and not a shorter one."""
    body = [f"x{i} = {i}" for i in range(BLOCK)]
    (tmp_path / "a.py").write_text("\n\n".join(body) + "\n")
    (tmp_path / "b.py").write_text("def f():\n" + "".join(f"    {line}  \n" for line in body))
    (tmp_path / "c.py").write_text("\n".join(body[:-1]) + "\n")
    files = sorted(tmp_path.glob("*.py"))
    assert _repeats(files, BLOCK) == ["a.py:1 is repeated in b.py:2"]
    counts: dict[int, int] = defaultdict(int)
    for block in (BLOCK, BLOCK - 1):
        counts[block] = len(_repeats(files, block))
    assert counts[BLOCK - 1] > counts[BLOCK]
