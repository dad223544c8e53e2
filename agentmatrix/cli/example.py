"""`agentmatrix example`: the graphs that come with AgentMatrix, from a clone or from an installed wheel."""

from __future__ import annotations

import ast
import difflib
import importlib
import pkgutil
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import typer

import agentmatrix
from agentmatrix.cli.error_report import CommandError

__all__ = ["example", "examples", "exit_code", "package_name"]


def example(
    name: Annotated[
        str | None, typer.Argument(help="Which one; without it they are listed.", show_default=False)
    ] = None,
) -> None:
    """Run one of the graphs that come with AgentMatrix, or list them."""
    known = examples()
    if name is None:
        _print_list(known)
        return
    if name not in known:
        close = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"there are: {', '.join(known)}"
        raise CommandError(f"there is no example {name!r}; {hint}")
    module = importlib.import_module(f"{package_name()}.{name}")
    if hasattr(module, "main"):
        raise typer.Exit(exit_code(module.main))
    _run_graph(module)


def package_name() -> str:
    """The package of the examples: `agentmatrix.graphs` in an installed wheel, `graphs` in a clone.

    Raises:
        CommandError: another package of that name hides the clone's.
    """
    if find_spec("agentmatrix.graphs"):
        return "agentmatrix.graphs"
    root = Path(agentmatrix.__file__).parents[1]
    if str(root) not in sys.path:
        sys.path.append(str(root))
    found = find_spec("graphs")
    if found is None or found.origin is None or Path(found.origin).parents[1] != root:
        raise CommandError(f"the examples are in {root / 'graphs'}, hidden by a package `graphs` here: go elsewhere")
    return "graphs"


def examples() -> dict[str, str]:
    """The names of the examples, each with the first line of its docstring. None of them is imported.

    Raises:
        CommandError: see `package_name`.
    """
    folder = importlib.import_module(package_name()).__path__[0]
    found = {}
    for module in pkgutil.iter_modules([folder]):
        if module.name.startswith("_"):
            continue
        path = Path(folder, module.name, "__init__.py") if module.ispkg else Path(folder, f"{module.name}.py")
        docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        found[module.name] = docstring.partition("\n")[0]
    return found


def exit_code(main: Callable[..., int], **options: Any) -> int:
    """What `main` returns, or the exit code with which it ended.

    SIGTERM and SIGHUP end the demo's second process first and then this one, with an exit code of their own.
    """
    try:
        return main(**options)
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else 1


def _print_list(known: dict[str, str]) -> None:
    width = max(map(len, known))
    for name, summary in known.items():
        print(f"{name:{width}}  {summary}")
    print(f"\n`agentmatrix example NAME` runs one. As a target of other commands it is {package_name()}.NAME:graph.")


def _run_graph(module: Any) -> None:
    """Run the module's `graph` on its `INPUT`, after the command that does the same."""
    from agentmatrix.cli.run import run_graph

    target = f"{module.__name__}:graph"
    print(f'agentmatrix run {target} --input "{module.INPUT}"\n', flush=True)
    run_graph(module.graph, target, module.INPUT, None, [], False)
