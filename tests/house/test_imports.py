"""Imports point down the floors, without cycles, and reading data never needs torch."""

import ast
from collections.abc import Iterator

import pytest

# Package -> packages it may import; robot_configs holds data only.
MAY_IMPORT = {
    "robot_datasets": set(),
    "robot_sim": {"robot_datasets"},
    "robot_policies": {"robot_datasets", "robot_sim", "robot_configs", "robot_deploy"},
    "robot_deploy": {"robot_datasets", "robot_sim", "robot_policies", "robot_configs"},
    "robot_configs": set(),
}

# The only parts of robot_policies that know simulation, deployment and configuration files.
EXCEPTIONS = {
    "robot_deploy": ("robot_policies.cli.deploy", "robot_policies.cli.twin_policies"),
    "robot_sim": ("robot_policies.evaluation", "robot_policies.cli"),
    "robot_configs": ("robot_policies.cli",),
}

# Within robot_policies: part -> parts it must not import. The core does not know who trains or runs it.
CORE = ("networks", "denoising", "policies", "policy", "normalizer", "spec", "configuration")
MUST_NOT_IMPORT = {
    **dict.fromkeys(CORE, ("training", "evaluation", "execution", "cli")),
    "execution": ("training", "evaluation", "cli"),
    "training": ("evaluation", "execution", "cli"),
    "evaluation": ("training", "cli"),
}


def _is_type_checking(node: ast.AST) -> bool:
    test = node.test if isinstance(node, ast.If) else None
    name = test.attr if isinstance(test, ast.Attribute) else getattr(test, "id", "")
    return name == "TYPE_CHECKING"


def _runtime_nodes(tree: ast.AST) -> Iterator[ast.AST]:
    """Every node that can run, those inside functions included; imports for annotations only are left out."""
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        yield node
        waiting += [child for child in ast.iter_child_nodes(node) if not _is_type_checking(child)]


def _imports(tree: ast.AST, modules: set[str]) -> set[str]:
    """Names of the modules a file imports; `from package import module` counts as the module."""
    found: set[str] = set()
    for node in _runtime_nodes(tree):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                submodule = f"{node.module}.{alias.name}"
                found.add(submodule if submodule in modules else node.module)
    return found


@pytest.fixture(scope="module")
def graph(sources) -> dict[str, set[str]]:
    """Module -> the project's modules it imports, anywhere in the file."""
    modules = {source.module for source in sources}
    return {s.module: {name for name in _imports(s.tree, modules) if name in modules} for s in sources}


def test_imports_point_down(graph: dict[str, set[str]]):
    """No package imports one of a higher floor; simulation is known to evaluation and the command line only."""
    wrong = []
    for module, imported in graph.items():
        package = module.partition(".")[0]
        for target in imported:
            other = target.partition(".")[0]
            if other == package:
                continue
            allowed = EXCEPTIONS.get(other) if package == "robot_policies" else None
            if other not in MAY_IMPORT[package] or (allowed and not module.startswith(allowed)):
                wrong.append(f"{module} -> {target}")
    assert wrong == []


def test_the_core_does_not_know_its_users(graph: dict[str, set[str]]):
    """Inside robot_policies, networks and policies import neither the trainer nor the evaluator."""
    wrong = [
        f"{module} -> {target}"
        for module, imported in graph.items()
        for part, forbidden in MUST_NOT_IMPORT.items()
        if f"{module}.".startswith(f"robot_policies.{part}.")
        for target in imported
        if target.startswith(tuple(f"robot_policies.{name}" for name in forbidden))
    ]
    assert wrong == []


def test_no_import_cycles(graph: dict[str, set[str]]):
    """No module imports itself through others, not even inside a function."""
    done: set[str] = set()

    def visit(module: str, path: list[str]) -> None:
        if module in path:
            raise AssertionError("import cycle: " + " -> ".join([*path[path.index(module) :], module]))
        if module not in done:
            for target in sorted(graph[module]):
                visit(target, [*path, module])
            done.add(module)

    for module in graph:
        visit(module, [])
    assert done == set(graph)


def test_relative_imports_are_not_used(sources):
    """Imports are absolute, so that the graph above is the whole truth."""
    relative = [
        f"{s.path.name}:{node.lineno}"
        for s in sources
        for node in ast.walk(s.tree)
        if isinstance(node, ast.ImportFrom) and node.level
    ]
    assert relative == []


# What is made of tensors below the policies: Isaac Gym's interface, and the twin's differentiable renderer.
TENSORS = ("robot_sim.isaac.", "robot_sim.twin.gaussians.")


@pytest.mark.parametrize("package", ["robot_datasets", "robot_sim"])
def test_no_torch_below(package: str, sources):
    """Data and simulation import torch inside functions at most; only what is made of tensors is excepted."""
    heavy = []
    for source in sources:
        if source.package == package and not source.module.startswith(TENSORS):
            for node in source.tree.body:
                if isinstance(node, (ast.Import, ast.ImportFrom)):
                    names = (
                        [a.name for a in node.names] if isinstance(node, ast.Import) else [node.module or ""]
                    )
                    heavy += [f"{source.module}: {n}" for n in names if n.partition(".")[0] == "torch"]
    assert heavy == []
