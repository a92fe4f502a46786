"""Every public name says what it is, and every test says what it tests."""

import ast
import re
import subprocess
from pathlib import Path

import pytest

Documented = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def _public(tree: ast.Module) -> list[tuple[str, Documented]]:
    found: list[tuple[str, Documented]] = []
    for node in tree.body:
        if isinstance(node, Documented) and not node.name.startswith("_"):
            found.append((node.name, node))
            if isinstance(node, ast.ClassDef):
                found += [
                    (f"{node.name}.{inner.name}", inner)
                    for inner in node.body
                    if isinstance(inner, Documented) and not inner.name.startswith("_")
                ]
    return found


def _overrides_or_overload(node: Documented) -> bool:
    return any(
        ast.unparse(decorator).endswith(("override", "overload", "setter"))
        for decorator in node.decorator_list
    )


def test_public_names_are_documented(sources):
    """Every module, public class, function and method has a docstring."""
    bare = [s.module for s in sources if s.package != "robot_configs" and not ast.get_docstring(s.tree)]
    for source in sources:
        for name, node in _public(source.tree):
            if not ast.get_docstring(node) and not _overrides_or_overload(node):
                bare.append(f"{source.module}.{name}")
    assert bare == []


def test_tests_say_what_they_test_and_can_fail(repository: Path):
    """Every test has a sentence and something that can fail: an assert, an expected error, or a checking call."""
    bare = []
    for path in sorted((repository / "tests").rglob("test_*.py")):
        source = path.read_text(encoding="utf-8")
        lines = source.splitlines()
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                if not ast.get_docstring(node):
                    bare.append(f"{path.name}:{node.name} has no sentence")
                text = "\n".join(lines[node.body[0].lineno - 1 : node.end_lineno])
                if not re.search(r"\bassert\b|\braises\(|\bwarns\(|assert_\w+\(|\bcheck\w*\(", text):
                    bare.append(f"{path.name}:{node.name} cannot fail")
    assert bare == []


def _tracked(repository: Path) -> list[Path]:
    try:
        done = subprocess.run(["git", "ls-files", "-z"], cwd=repository, capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout")
    names = done.stdout.decode().split("\0")
    return [repository / name for name in names if name and (repository / name).is_file()]


def test_no_absolute_paths_of_one_machine(repository: Path):
    """No tracked text names a folder that exists on its author's machine only."""
    own = re.compile(rb"(?<![\w.])/(?:home|root|Users|work|mnt|scratch)/\w")
    named = []
    for path in _tracked(repository):
        if (
            path.suffix in (".py", ".md", ".toml", ".yaml", ".yml", ".txt", ".xml", ".cfg", "")
            or path.name == "run"
        ):
            for number, line in enumerate(path.read_bytes().splitlines(), start=1):
                if own.search(line) and path != Path(__file__):
                    named.append(f"{path.relative_to(repository)}:{number}")
    assert named == []


def test_links_lead_somewhere(repository: Path):
    """Every relative link of every tracked page leads to a file of the repository."""
    broken = []
    for page in (path for path in _tracked(repository) if path.suffix == ".md"):
        targets = re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8"))
        broken += [(page.name, t) for t in targets if "://" not in t and not (page.parent / t).exists()]
    assert broken == []
