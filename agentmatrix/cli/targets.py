"""Typed targets: `module:attribute` and `path.py:attribute` to a graph, or to whatever they name."""

from __future__ import annotations

import atexit
import contextlib
import difflib
import importlib
import importlib.util
import inspect
import re
import sys
import traceback
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from agentmatrix.cli.error_report import FAILED, CommandError, wants_traceback

Kind = Literal["graph", "function", "object"]

_REMOTE = re.compile(r"^(?:[a-z]+://|unix:)|^(?:\[[^\]]+\]|[^:/\\]+):\d+(?:/[^:]*)?$")


def is_remote(target: str) -> bool:
    """Whether the target is an address, such as `host:port/agent` or `grpcs://host:port/agent`."""
    return _REMOTE.match(target) is not None


def load_graph(target: str) -> Any:
    """The graph of a target `module:attribute` or `path.py:attribute`.

    The attribute may be a graph, a builder with `.compile()`, a Runnable such as a chat model, a function of the state
    or of the messages, or a function that makes one of these: without parameters, or of a config.

    Raises:
        CommandError: the target, its module or its attribute cannot be found or loaded, or is no graph.
    """
    from agentmatrix.host.graph_factory import graph_factory
    from agentmatrix.session.user_loop import UserLoop

    value = load_attribute(target, "graph")
    factory = graph_factory(value, split_name(target)[0])
    if factory is None:
        return _as_graph(value, target)
    # It is left when the process ends: the command uses the graph until then.
    opened = factory.open({"configurable": {}}, UserLoop().loop)
    atexit.register(opened.__exit__, None, None, None)
    return opened.__enter__()


def load_hosted(target: str) -> Any:
    """The graph of a target for a host, or the function that makes one for each run. Raises as `load_graph`."""
    from agentmatrix.host.graph_factory import graph_factory

    value = load_attribute(target, "graph")
    return _as_graph(value, target) if graph_factory(value) is None else value


def load_agent(target: str) -> Any:
    """What `refine` runs of a target: as `load_graph`, but a function or a Runnable that is no graph stays itself.

    Raises:
        CommandError: as of `load_graph`.
    """
    from langchain_core.runnables import Runnable
    from langgraph.pregel import Pregel

    from agentmatrix.host.graph_factory import graph_factory

    value = load_attribute(target, "graph")
    if graph_factory(value) is not None:
        return load_graph(target)
    is_other = inspect.isfunction(value) or (isinstance(value, Runnable) and not isinstance(value, Pregel))
    return value if is_other else _as_graph(value, target)


def load_function(target: str) -> Any:
    """The function of a target.

    Raises:
        CommandError: as of `load_attribute`, or it cannot be called.
    """
    value = load_attribute(target, "function")
    if not callable(value):
        raise CommandError(f"{target} is of type {type(value).__name__}, not a function")
    return value


def load_attribute(target: str, kind: Kind = "object") -> Any:
    """What a target `module:attribute` or `path.py:attribute` names.

    Args:
        target: the target.
        kind: what it should be; errors name others of that kind.

    Raises:
        CommandError: the target, its module or its attribute cannot be found or loaded.
    """
    place, colon, attribute = target.rpartition(":")
    if not colon or not place or not attribute:
        forms = "module:attribute, path.py:attribute or host:port/agent"
        forms = forms if kind == "graph" else "module:attribute or path.py:attribute"
        raise CommandError(f"{target!r} names no {kind}: write {forms}")
    module = _import_module(place)
    value: Any = module
    for part in attribute.split("."):
        if not hasattr(value, part):
            raise CommandError(_missing_attribute(place, part, value, kind))
        value = getattr(value, part)
    return value


def split_name(target: str) -> tuple[str, str]:
    """The name and the target of `name=module:attribute`; without a name it is the attribute's."""
    name, equals, rest = target.partition("=")
    return (name, rest) if equals else (target.rpartition(":")[2].rpartition(".")[2], target)


def _add_to_path(folders: Iterable[Path]) -> None:
    for folder in map(str, (item.resolve() for item in folders)):
        if folder not in sys.path:
            sys.path.insert(0, folder)


def _import_module(place: str) -> ModuleType:
    path = Path(place)
    is_file = path.suffix == ".py" or "/" in place
    if is_file and not path.is_file():
        raise CommandError(f"there is no file {place}")
    try:
        return _import_file(path.resolve()) if is_file else importlib.import_module(place)
    except (Exception, SystemExit) as error:
        if wants_traceback():
            raise
        raise _import_error(place, error) from None


def _import_file(path: Path) -> ModuleType:
    name = _dotted_name(path)
    taken = getattr(sys.modules.get(name), "__file__", None)
    if name not in sys.modules or taken == str(path):
        return importlib.import_module(name)
    # Another file of that name has been imported: two folders have an agent.py each.
    name = "_".join([*path.parts[-3:-1], path.stem])
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _dotted_name(path: Path) -> str:
    """The dotted name of a file in its outermost package. Puts the folder of that package on `sys.path`."""
    parts, folder = [path.stem], path.parent
    while (folder / "__init__.py").exists():
        parts.insert(0, folder.name)
        folder = folder.parent
    _add_to_path([folder])
    return ".".join(parts)


def _import_error(module: str, error: BaseException) -> CommandError:
    if isinstance(error, ModuleNotFoundError) and error.name and f"{module}.".startswith(f"{error.name}."):
        text = f"there is no module {error.name!r} in {Path.cwd()} or among the installed packages"
        return CommandError(text + _other_name(module))
    reason = f"{type(error).__name__}: {' '.join(str(error).split())}".removesuffix(": ")
    if isinstance(error, SyntaxError):
        return CommandError(f"{module!r} cannot be imported: {reason}", FAILED)
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "importlib" not in frame.filename]
    own = [frame for frame in frames if frame.filename != __file__]
    where = f" (line {own[-1].lineno} of {own[-1].filename})" if own else ""
    return CommandError(f"{module!r} cannot be imported: {reason}{where}", FAILED)


def _other_name(module: str) -> str:
    """What an example is called here, where its name in a clone or in a wheel was given."""
    from agentmatrix.cli.example import examples, package_name

    package, _, rest = module.removeprefix("agentmatrix.").partition(".")
    with contextlib.suppress(CommandError):
        if package == "graphs" and rest.partition(".")[0] in examples():
            return f"; did you mean {package_name()}.{rest}?"
    return ""


def _missing_attribute(place: str, name: str, value: Any, kind: Kind) -> str:
    close = difflib.get_close_matches(name, dir(value), n=1)
    if close:
        return f"{place} has no {name!r}; did you mean {close[0]!r}?"
    if kind == "object":
        return f"{place} has no {name!r}"
    public = {key: item for key, item in vars(value).items() if not key.startswith("_")}
    found = [key for key, item in public.items() if inspect.isfunction(item)]
    # Those that are imported are listed only where there are no others.
    found = [key for key in found if public[key].__module__ == getattr(value, "__name__", "")] or found
    if kind == "graph":
        found = [key for key, item in public.items() if _looks_like_graph(item)] or found
    return f"{place} has no {name!r}; it has " + (", ".join(found) or f"no {kind} at all")


def _looks_like_graph(value: Any) -> bool:
    return not isinstance(value, type) and any(hasattr(value, verb) for verb in ("compile", "astream", "add_node"))


def _as_graph(value: Any, target: str) -> Any:
    from langchain_core.runnables import Runnable
    from langgraph.pregel import Pregel

    if isinstance(value, Pregel):
        return value
    if hasattr(value, "compile") and not isinstance(value, type):
        return value.compile()
    if isinstance(value, Runnable) or inspect.isfunction(value):
        from agentmatrix import Dag

        name = split_name(target)[0]
        return Dag(name=name).add_node(name, value).compile()
    kind = "a class" if isinstance(value, type) else f"of type {type(value).__name__}"
    raise CommandError(f"{target} is {kind}, not a graph, a builder, an agent or a function that makes one")
