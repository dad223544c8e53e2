"""A drawing as Mermaid text. Nested graphs are subgraphs, whose ids come from their paths."""

from __future__ import annotations

import re
from collections.abc import Iterator

from agentmatrix.display.drawing import Drawing, Edge, Node

__all__ = ["mermaid_of"]

# Characters with a meaning in Mermaid, or in the Markdown and HTML of its labels. An underscore has one only at the
# border of a word, where it would make the word bold.
_SPECIAL = re.compile(r"""["#<>&`*\\~$%|^]|(?<!\w)_+|_+(?!\w)|(?<=^\d)[.)]|^[-+](?=\s)""")

_STYLES = (
    "classDef edge fill:#475569,stroke:#475569,color:#ffffff",
    "classDef remote stroke:#c2410c,stroke-width:2px,stroke-dasharray:6 4",
)


def mermaid_of(drawing: Drawing) -> str:
    """Return a `flowchart`, from top to bottom."""
    ids = _unique_ids(drawing)
    lines = ["flowchart TD", *_level(drawing, ids, "    ")]
    lines += [f"    {style}" for style in _STYLES]
    for style, kinds in (("edge", ("start", "end")), ("remote", ("remote",))):
        if members := [ids[node.id] for node in drawing.walk() if node.kind in kinds]:
            lines.append(f"    class {','.join(members)} {style}")
    return "\n".join(lines) + "\n"


def _level(drawing: Drawing, ids: dict[str, str], indent: str) -> Iterator[str]:
    nodes = {node.id: node for node in drawing.nodes}
    for node in drawing.nodes:
        if node.inner and node.inner.nodes:
            yield f'{indent}subgraph {ids[node.id]}["{_node_label(node, " ")}"]'
            yield from _level(node.inner, ids, indent + "    ")
            yield f"{indent}end"
        else:
            yield indent + ids[node.id] + _shape(node)
    for edge in drawing.edges:
        source, target = _innermost(nodes[edge.source], last=True), _innermost(nodes[edge.target], last=False)
        yield f"{indent}{ids[source.id]} {_arrow(edge)} {ids[target.id]}"


def _innermost(node: Node, *, last: bool) -> Node:
    """Return the node inside a subgraph at which its edges begin or end.

    An arrow to the subgraph itself would leave Mermaid's layout free to put the parent's nodes in any order, and one
    from a subgraph to itself is refused.
    """
    while node.inner and node.inner.nodes:
        node = node.inner.nodes[-1 if last else 0]
    return node


def _arrow(edge: Edge) -> str:
    label = f'|"{_escaped(edge.label)}"|' if edge.label else ""
    return ("-.->" if edge.conditional else "-->") + label


def _shape(node: Node) -> str:
    label = f'"{_node_label(node)}"'
    if node.kind in ("start", "end"):
        return f"([{label}])"
    if node.kind == "junction":
        return f"(({label}))"
    return f"[[{label}]]" if node.kind in ("group", "members") else f"[{label}]"


def _node_label(node: Node, between: str = "<br/>") -> str:
    words = [node.label, node.address and f"@{node.address}", node.note and f"({node.note})"]
    return between.join(_escaped(word) for word in words if word)


def _escaped(text: str) -> str:
    text = " ".join(text.split()) or " "
    return _SPECIAL.sub(lambda found: "".join(f"#{ord(character)};" for character in found[0]), text)


def _unique_ids(drawing: Drawing) -> dict[str, str]:
    """Give each node an id of letters, digits and underscores, made from its path; none is a keyword of Mermaid."""
    ids: dict[str, str] = {}
    taken: set[str] = set()
    for node in drawing.walk():
        words = re.findall("[a-z0-9]+", node.id, flags=re.IGNORECASE)
        plain = wanted = "_".join(["n", *words]) if words else "node"
        number = 2
        while wanted in taken:
            wanted, number = f"{plain}_{number}", number + 1
        taken.add(wanted)
        ids[node.id] = wanted
    return ids
