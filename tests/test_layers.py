"""The arrows of the house: imports go only downwards, and each dangerous import has one door."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "agentmatrix"
GENERATED = PACKAGE / "wire" / "v1"

# A room imports itself and rooms of lower numbers. Two wings, composition and distribution, over one door to LangGraph
# (pregel): rooms of one number never meet.
LAYERS = {
    "errors": 0,
    "explanation": 0,
    "interrupts": 0,
    "cancel_scope": 0,
    "event_loop": 0,
    "pregel": 0,
    "display": 1,
    "approvals": 1,
    "stream_modes": 1,
    "budget": 1,
    "middleware": 1,
    "triggers": 1,
    "agent": 2,
    "card": 2,
    "watch": 2,
    "wire": 2,
    "live": 3,
    "transport": 3,
    "scheduling": 2,
    "engine": 4,
    "session": 4,
    "compose": 5,
    "host": 5,
    "remote": 5,
    "chat": 6,
    "dataset": 6,
    "speakers": 7,
    "stops": 7,
    "testing": 7,
    "ui": 7,
    "cli": 8,
    "__main__": 9,
}
LONGEST = 450

FOREIGN = ("langgraph", "langchain_core", "langchain", "langsmith")
DOOR = ("pregel/",)
# Attributes without an underscore that LangGraph and LangChain do not document.
PRIVATE_ATTRIBUTES = {
    *("branches", "compiled", "managed", "schemas", "waiting_edges"),  # StateGraph
    *("attach_branch", "attach_edge", "attach_node", "schema_to_mapper"),  # CompiledStateGraph
    *("stream_channels_asis", "stream_eager", "trigger_to_nodes"),  # Pregel
    *("tracing_v2_callback_var", "var_child_runnable_config"),  # langchain_core
}
OWN_ATTRIBUTES = {
    ("card.py", "self.schemas"),
    ("cli/describe.py", "card.schemas"),
    ("remote/attributes.py", "card.schemas"),
}
# Classes that extend LangGraph's loop: they use what they inherit (tests/test_pregel_door.py).
EXEMPT = {f"engine/{name}.py" for name in ("graph", "listener", "loop", "pauses", "recorded_writes", "supersteps")}
# Of named tuples, enums and protocols: documented, or the language's. And what the interpreter calls when it ends.
PYTHON_ATTRIBUTES = {"_asdict", "_fields", "_is_protocol", "_name_", "_replace", "_run_exitfuncs", "_value_"}


def modules(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.rglob("*.py")) if GENERATED not in path.parents]


def dotted(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")


@cache
def imports(path: Path, *, module_level: bool = False) -> tuple[str, ...]:
    """Dotted names that the module imports: `from a import b` gives `a.b`.

    `module_level` leaves out what is imported inside functions and for type checkers only.
    """
    here = dotted(path).split(".")
    package = here if path.name == "__init__.py" else here[:-1]

    def walk(node: ast.AST) -> Iterator[str]:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            yield from (f"{base}.{alias.name}" for alias in node.names)
        for child in ast.iter_child_nodes(node):
            inner = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            if not (module_level and (inner or is_type_checking(child))):
                yield from walk(child)

    return tuple(walk(ast.parse(path.read_text(), str(path))))


def room(name: str) -> str | None:
    parts = name.split(".")
    if parts[0] != "agentmatrix" or len(parts) < 2:
        return None
    return parts[1] if parts[1] in LAYERS else None


def test_every_room_has_its_number() -> None:
    rooms = {dotted(path).split(".")[1] for path in modules(PACKAGE) if path != PACKAGE / "__init__.py"}
    assert rooms <= LAYERS.keys()


@pytest.mark.parametrize("path", modules(PACKAGE), ids=dotted)
def test_imports_go_only_downwards(path: Path) -> None:
    own = room(dotted(path))
    if own is None:
        pytest.skip("the package's front door imports lazily and by name")
    for name in imports(path):
        other = room(name)
        if other is not None and other != own:
            assert LAYERS[other] < LAYERS[own], f"{dotted(path)} ({LAYERS[own]}) imports {name} ({LAYERS[other]})"


@pytest.mark.parametrize("path", modules(PACKAGE), ids=dotted)
def test_dangerous_imports_have_one_door(path: Path) -> None:
    relative = path.relative_to(PACKAGE).as_posix()
    for name in imports(path):
        top, *rest = name.split(".")
        if top == "grpc":
            assert relative.startswith("transport/"), f"{relative} imports {name}"
        if top in FOREIGN and any(part.startswith("_") and not part.endswith("__") for part in rest):
            assert relative.startswith(DOOR), f"{relative} imports the private {name}: take it through pregel/"
        assert top not in {"pickle", "cloudpickle", "dill", "marshal", "shelve", "click"}, f"{relative} imports {name}"
        assert not name.startswith("langchain_core.load"), f"{relative} imports {name}"


def attributes(path: Path) -> Iterator[tuple[str, ast.AST]]:
    """Attributes that the module reads, sets or asks for by name: the attribute, and the expression."""
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.Attribute):
            yield node.attr, node
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and len(node.args) > 1:
            name = node.args[1]
            if node.func.id in ("getattr", "setattr", "hasattr", "delattr") and isinstance(name, ast.Constant):
                yield str(name.value), node


def is_self(node: ast.AST) -> bool:
    return isinstance(node, ast.Name) and node.id == "self"


def defined(path: Path) -> Iterator[str]:
    """Names that the module gives to functions, classes, variables and attributes of `self`."""
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and is_self(node.value):
            yield node.attr


def test_private_attributes_have_one_door() -> None:
    """A leading underscore, and nothing of ours has the name; or a name of the list."""
    inside = [path for path in modules(PACKAGE) if not path.relative_to(PACKAGE).as_posix().startswith(DOOR)]
    ours = {name for path in inside for name in defined(path)} | PYTHON_ATTRIBUTES
    found: list[str] = []
    for path in inside:
        relative = path.relative_to(PACKAGE).as_posix()
        for name, node in attributes(path):
            private = name.startswith("_") and not name.endswith("__") and name not in ours
            if (private or name in PRIVATE_ATTRIBUTES) and relative not in EXEMPT:
                text = ast.unparse(node)
                if private or (relative, text) not in OWN_ATTRIBUTES:
                    found.append(f"{relative}: {text}")
    assert not found, f"take these through a function of pregel/: {found}"


def test_examples_use_the_public_face_only() -> None:
    public = {
        "agentmatrix",
        "agentmatrix.display",
        "agentmatrix.errors",
        "agentmatrix.speakers",
        "agentmatrix.stops",
        "agentmatrix.testing",
        "agentmatrix.watch",
    }
    for path in modules(ROOT / "graphs"):
        for name in imports(path):
            if name.split(".")[0] == "agentmatrix":
                home, _, what = name.rpartition(".")
                assert home in public or name in public, f"{dotted(path)} imports {name}"
                assert not what.startswith("_"), f"{dotted(path)} imports {name}"


def test_no_cycles_between_modules() -> None:
    known = {dotted(path): path for path in modules(PACKAGE)}

    def targets(path: Path) -> set[str]:
        names = {name if name in known else name.rpartition(".")[0] for name in imports(path, module_level=True)}
        return {name for name in names if name in known} - {dotted(path)}

    arrows = {name: targets(path) for name, path in known.items()}
    while free := [name for name, others in arrows.items() if not others & arrows.keys()]:
        for name in free:
            del arrows[name]
    assert not arrows, f"modules that import each other: {sorted(arrows)}"


@pytest.mark.parametrize("path", [*modules(PACKAGE), *modules(ROOT / "graphs")], ids=dotted)
def test_no_file_is_too_long(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= LONGEST
