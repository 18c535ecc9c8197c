"""The canonical form of a tensor program: TVM's own JSON with names, sharing and origin taken out.

Two PrimFuncs that differ in names, in attributes that tell where they came from, or in which equal sub-expressions
are one object, become the same text; anything that changes what is computed, or how, changes it. It is done on the
JSON graph, without any of TVM's visitors: a few milliseconds a function.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import tvm

KEPT_ATTRIBUTES = ("tirx.noalias", "s_tir")
DROPPED_ANNOTATIONS = ("workload", "layout_free_placeholders")
"""What operator libraries note for schedulers of their own; the parameters' order already says it."""
UNSHARED = frozenset(
    [
        "ir.Var",
        "s_tir.SBlock",
        "s_tir.SBlockRealize",
        "tirx.For",
        "tirx.IterVar",
        "tirx.BufferStore",
        "tirx.SeqStmt",
    ]
)
"""Each of these is a place in the program: two equal ones must stay two (a schedule addresses them by identity)."""

Node = Any
"""{"type": its class, "data": its fields by name, references to other nodes, or a plain value}"""


def canonical_json(function: Any) -> str:
    """TVM's JSON of an IRModule that holds `function` as `main`, in canonical form."""
    plain = _plain(function)
    graph = json.loads(tvm.ir.save_json(tvm.IRModule({"main": plain})))
    return _Rewriter(graph["nodes"]).run(graph["root_index"], graph["metadata"])


def load(text: str) -> Any:
    """The IRModule of a canonical text."""
    return tvm.ir.load_json(text)


def _plain(function: Any) -> Any:
    for key in list(function.attrs.keys()) if function.attrs else []:
        if key not in KEPT_ATTRIBUTES:
            function = function.without_attr(str(key))
    return function.with_attr("global_symbol", "main")


@dataclass(slots=True)
class _Rewriter:
    nodes: list[Node]
    made: list[Node] = field(default_factory=list)
    places: dict[int, int] = field(default_factory=dict)
    """old index of a node -> new index"""
    known: dict[str, int] = field(default_factory=dict)
    """content of a shared node -> new index"""
    counts: dict[str, int] = field(default_factory=dict)
    parameters: set[int] = field(default_factory=set)

    def run(self, root: int, metadata: Any) -> str:
        for node in self.nodes:
            if node["type"] == "tirx.PrimFunc":
                self.parameters.update(self.nodes[node["data"]["params"]]["data"])
        top = self.node(root)
        graph = {"root_index": top, "nodes": self.made, "metadata": metadata}
        return json.dumps(graph, separators=(",", ":"))

    def node(self, index: int) -> int:
        """The new index of an old node."""
        if index in self.places:
            return self.places[index]
        old = self.nodes[index]
        kind, data = old["type"], old.get("data")
        if kind == "ir.Var":
            name = {"name": self._string(self._name(index, data))}
            fields = {key: value for key, value in data.items() if key != "name"}
            place = self._add({"type": kind, "data": {**self._fields(fields), **name}})
        elif kind == "s_tir.SBlock":
            name = self.nodes[data["name_hint"]]["data"]
            named = {"name_hint": self._string("root" if name == "root" else self._numbered("b"))}
            fields = {key: value for key, value in data.items() if key != "name_hint"}
            place = self._add({"type": kind, "data": {**self._fields(fields), **named}})
        elif kind in UNSHARED:
            place = self._add({"type": kind, "data": self._fields(data)})
        else:
            place = self._shared({"type": kind, **({} if data is None else {"data": self._data(kind, data)})})
        self.places[index] = place
        return place

    def _data(self, kind: str, data: Any) -> Any:
        if kind == "ffi.Array":
            return [self.node(index) for index in data]
        if kind == "ffi.Map":
            return self._map(data)
        if kind == "ir.FloatImm":
            return {**self._fields({key: data[key] for key in data if key != "value"}), "value": data["value"]}
        return self._fields(data) if isinstance(data, dict) else data

    def _map(self, data: list[int]) -> list[int]:
        pairs = list(zip(data[::2], data[1::2], strict=True))
        if all(self.nodes[key]["type"] == "ffi.String" for key, _ in pairs):
            pairs = [pair for pair in pairs if self.nodes[pair[0]]["data"] not in DROPPED_ANNOTATIONS]
            pairs.sort(key=lambda pair: str(self.nodes[pair[0]]["data"]))
        return [self.node(index) for pair in pairs for index in pair]

    def _fields(self, data: dict[str, Any]) -> dict[str, Any]:
        """Fields of an object: integers are references, but for the few that TVM writes in place."""
        return {
            key: value if key in IN_PLACE or type(value) is not int else self.node(value) for key, value in data.items()
        }

    def _name(self, index: int, data: dict[str, Any]) -> str:
        if self.nodes[data["ty"]]["type"] != "tirx.BufferType":
            return self._numbered("i")
        return self._numbered("p" if index in self.parameters else "t")

    def _numbered(self, stem: str) -> str:
        self.counts[stem] = self.counts.get(stem, -1) + 1
        return f"{stem}{self.counts[stem]}"

    def _string(self, text: str) -> int:
        return self._shared({"type": "ffi.String", "data": text})

    def _shared(self, node: Node) -> int:
        key = repr(node)
        if key not in self.known:
            self.known[key] = self._add(node)
        return self.known[key]

    def _add(self, node: Node) -> int:
        self.made.append(node)
        return len(self.made) - 1


IN_PLACE = frozenset(["ndim", "data_alignment", "offset_factor", "kind", "iter_type", "purity"])
"""Fields whose number is the value itself; strings and floats always are."""
