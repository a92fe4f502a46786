"""Conditions on an episode, as a user types them: ``success == False and n_steps < 20``.

The text is parsed as a Python expression, of which only comparisons, ``and``, ``or``, ``not``, ``in``, names of
facts, numbers, texts and lists are understood; nothing is ever executed.

Facts: ``episode`` (number), ``source_id``, ``n_steps``, ``seconds``, ``task``, ``split``, ``success`` (True, False,
None if unknown), ``warnings`` (how many).
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from robot_datasets.errors import DatasetError, unknown_name
from robot_datasets.store import EpisodeStore

FACTS = ("episode", "source_id", "n_steps", "seconds", "task", "split", "success", "warnings")

_COMPARISONS: dict[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Is: operator.is_,
    ast.IsNot: operator.is_not,
    ast.In: lambda a, b: a in b,
    ast.NotIn: lambda a, b: a not in b,
}
_LONGEST = 2000


class Filter:
    """A condition; call it with the facts of an episode.

    Raises:
        DatasetError: The text is no such condition; it says what is not understood.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        if len(text) > _LONGEST:
            raise DatasetError(f"the condition has {len(text)} characters, at most {_LONGEST} are read")
        try:
            tree = ast.parse(text.strip(), mode="eval").body
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            raise DatasetError(f"'{text}' is no condition ({error}); write e.g. n_steps < 20") from error
        self._test = self._compile(tree)

    def __call__(self, facts: Mapping[str, Any]) -> bool:
        """Whether the condition holds."""
        try:
            return bool(self._test(facts))
        except TypeError as error:
            raise DatasetError(f"'{self.text}' compares things that cannot be: {error}") from error

    def _compile(self, node: ast.expr) -> Callable[[Mapping[str, Any]], Any]:
        if isinstance(node, ast.BoolOp):
            parts = [self._compile(value) for value in node.values]
            every = isinstance(node.op, ast.And)
            return lambda facts: (all if every else any)(part(facts) for part in parts)
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.Not, ast.USub)):
            inner, minus = self._compile(node.operand), isinstance(node.op, ast.USub)
            return lambda facts: -inner(facts) if minus else not inner(facts)
        if isinstance(node, ast.Compare):
            return self._comparison(node)
        if isinstance(node, ast.Name):
            return self._fact(node.id)
        if isinstance(node, ast.Constant) and isinstance(node.value, (bool, int, float, str, type(None))):
            return lambda facts: node.value
        if isinstance(node, (ast.List, ast.Tuple, ast.Set)):
            items = [self._compile(item) for item in node.elts]
            return lambda facts: [item(facts) for item in items]
        raise DatasetError(
            f"'{self.text}': {ast.unparse(node)} is not understood; use comparisons of {', '.join(FACTS)} "
            "with numbers and texts, joined by and, or, not, in"
        )

    def _comparison(self, node: ast.Compare) -> Callable[[Mapping[str, Any]], Any]:
        terms = [self._compile(term) for term in (node.left, *node.comparators)]
        tests = [_COMPARISONS[type(test)] for test in node.ops]

        def compare(facts: Mapping[str, Any]) -> bool:
            values = [term(facts) for term in terms]
            return all(test(a, b) for test, a, b in zip(tests, values, values[1:], strict=False))

        return compare

    def _fact(self, name: str) -> Callable[[Mapping[str, Any]], Any]:
        if name not in FACTS:
            raise DatasetError(f"'{self.text}': {unknown_name('fact', name, FACTS)}")
        return lambda facts: facts[name]


def episode_facts(store: EpisodeStore) -> Iterator[dict[str, Any]]:
    """Yield what is known of each episode, see `FACTS`."""
    columns, warnings = store.episodes, store.warnings
    lengths = (store.episode_ends - store.episode_starts).tolist()
    for i, length in enumerate(lengths):
        success = int(columns["success"][i])
        yield {
            "episode": i,
            "source_id": columns["source_id"][i],
            "n_steps": length,
            "seconds": length / store.fps,
            "task": store.tasks[int(columns["task_index"][i])],
            "split": columns["split"][i],
            "success": None if success < 0 else bool(success),
            "warnings": len(warnings.get(i, ())),
        }
