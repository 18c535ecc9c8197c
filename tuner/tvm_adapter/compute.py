"""What a tensor program computes, read from its canonical JSON: version-free key, operations, arguments. No TVM here.

The key is made of what any version of the compiler would say of the same computation: per block the iterators' kinds
and extents, what is read and written as affine index expressions over iterators, and the body in prefix form with its
constants and dtypes. Iterators are named by their position in the block, tensors by the order in which they appear.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from typing import Any

from crosstune.tuner.contracts import sha256_json

ITERATORS = {0: "spatial", 1: "thread", 2: "reduce", 3: "ordered", 4: "opaque"}
ARITHMETIC = frozenset(["add", "sub", "mul", "div", "mod", "floordiv", "floormod", "max", "min", "call"])
NO_WORK = frozenset(["if_then_else", "likely", "reinterpret"])
"""Calls that choose or rename and compute nothing."""
Node = Any
"""{"type": its class, "data": its fields by name, references to other nodes, or a plain value}"""
Affine = dict[str, int]
"""name (or the text of a term that is not affine) -> coefficient; the constant under the empty name"""


@dataclass(frozen=True, slots=True)
class Computation:
    version_free_key: str
    flops: float
    """arithmetic operations on elements, in one call"""
    args: tuple[tuple[str, tuple[int, ...]], ...]
    output_count: int


def computation(canonical: str) -> Computation:
    """Describe the function in a canonical JSON text."""
    return _Reader(json.loads(canonical)["nodes"]).read()


def anchor_key(canonical: str) -> str | None:
    """sha256 of the largest reduction alone, equal whatever is fused around it; None when nothing is reduced."""
    return _Reader(json.loads(canonical)["nodes"]).anchor()


@dataclass(slots=True)
class _Reader:
    nodes: list[Node]
    names: dict[int, str] = field(default_factory=dict)
    operations: float = 0.0
    written: set[int] = field(default_factory=set)

    def read(self) -> Computation:
        function = next(node for node in self.nodes if node["type"] == "tirx.PrimFunc")["data"]
        parameters = self._items(function["params"])
        args = tuple(self._argument(index) for index in parameters)
        for index in parameters:
            self._tensor(index)
        blocks = [self._block(node["data"]) for node in self._blocks(function["body"])]
        outputs = sum(1 for index in parameters if index in self.written)
        described = {"args": [[dtype, list(shape)] for dtype, shape in args], "outputs": outputs, "blocks": blocks}
        return Computation(sha256_json(described), self.operations, args, outputs)

    def anchor(self) -> str | None:
        function = next(node for node in self.nodes if node["type"] == "tirx.PrimFunc")["data"]
        blocks = [node["data"] for node in self._blocks(function["body"])]
        reducing = [block for block in blocks if self.nodes[block["init"]]["type"] != "None"]
        if not reducing:
            return None
        return sha256_json(self._block(max(reducing, key=self._points)))

    def _points(self, block: dict[str, Any]) -> int:
        """How often the block runs."""
        domains = [self.nodes[self.nodes[index]["data"]["dom"]]["data"] for index in self._items(block["iter_vars"])]
        extents = [self._expression(domain["extent"]) for domain in domains]
        return math.prod(int(extent) for extent in extents if extent.isdigit())

    # Structure.

    def _items(self, index: int) -> list[int]:
        return list(self.nodes[index]["data"])

    def _blocks(self, index: int) -> list[Node]:
        """The innermost blocks under a statement, in order."""
        node = self.nodes[index]
        data = node["data"]
        if node["type"] == "s_tir.SBlockRealize":
            block = self.nodes[data["block"]]
            inner = self._blocks(block["data"]["body"])
            return inner or [block]
        if node["type"] == "tirx.SeqStmt":
            return [block for statement in self._items(data["seq"]) for block in self._blocks(statement)]
        bodies = [data[key] for key in ("body", "then_case", "else_case") if isinstance(data, dict) and key in data]
        return [block for body in bodies if self.nodes[body]["type"] != "None" for block in self._blocks(body)]

    def _block(self, block: dict[str, Any]) -> list[Any]:
        iterators, points = [], 1
        for position, index in enumerate(self._items(block["iter_vars"])):
            iterator = self.nodes[index]["data"]
            domain = self.nodes[iterator["dom"]]["data"]
            self.names[iterator["var"]] = f"i{position}"
            first, extent = self._expression(domain["min"]), self._expression(domain["extent"])
            iterators.append([ITERATORS.get(iterator["iter_type"], "other"), first, extent])
            points *= int(extent) if extent.isdigit() else 1
        reads = [self._region(index) for index in self._items(block["reads"])]
        writes = [self._region(index) for index in self._items(block["writes"])]
        has_init = self.nodes[block["init"]]["type"] != "None"
        init = self._statement(block["init"], 0) if has_init else None
        return [iterators, sorted(reads), sorted(writes), init, self._statement(block["body"], points)]

    def _region(self, index: int) -> str:
        region = self.nodes[index]["data"]
        ranges = [self.nodes[place]["data"] for place in self._items(region["region"])]
        parts = [f"{self._index(entry['min'])}:{self._expression(entry['extent'])}" for entry in ranges]
        return f"{self._tensor(region['source'])}[{', '.join(parts)}]"

    def _statement(self, index: int, points: int) -> str:
        """A statement in prefix form; its operations are counted as done `points` times."""
        node = self.nodes[index]
        kind, data = _short(node["type"]), node["data"]
        if kind == "bufferstore":
            self.written.add(data["buffer"])
            self.operations += points * self._work(data["value"])
            return f"(store {self._load(data['buffer'], data['indices'])} {self._expression(data['value'])})"
        if kind == "seqstmt":
            return f"(seq {' '.join(self._statement(entry, points) for entry in self._items(data['seq']))})"
        fields = [
            self._statement(value, points) if _is_statement(self.nodes[value]["type"]) else self._expression(value)
            for key, value in data.items()
            if key != "span" and isinstance(value, int) and self.nodes[value]["type"] not in ("None", "ffi.Map")
        ]
        return f"({kind} {' '.join(fields)})"

    # Expressions.

    def _expression(self, index: int) -> str:
        node = self.nodes[index]
        kind, data = _short(node["type"]), node.get("data")
        if kind == "intimm":
            return str(self.nodes[data["value"]]["data"])
        if kind == "floatimm":
            return f"{self._dtype(data)}:{data['value']!r}"
        if kind == "var":
            return self._variable(index)
        if kind == "tensorload":
            return self._load(data["source"], data["indices"])
        if kind == "call":
            operator = str(self.nodes[data["op"]].get("data")).rsplit(".", 1)[-1]
            arguments = " ".join(self._expression(entry) for entry in self._items(data["args"]))
            return f"({operator} {self._dtype(data)} {arguments})"
        if kind == "cast":
            return f"(cast {self._dtype(data)} {self._expression(data['value'])})"
        if kind in ("string", "int", "float", "bool"):
            return json.dumps(data)
        if kind == "array":
            return f"[{' '.join(self._expression(entry) for entry in data)}]"
        if self._is_index(node):
            return self._index(index)
        parts = [self._expression(value) for key, value in data.items() if key not in ("span", "ty")]
        return f"({kind} {' '.join(parts)})"

    def _is_index(self, node: Node) -> bool:
        return _short(node["type"]) in ("add", "sub", "mul") and self._dtype(node["data"]).startswith("int")

    def _variable(self, index: int) -> str:
        if self.nodes[self.nodes[index]["data"]["ty"]]["type"] == "tirx.BufferType":
            return self._tensor(index)
        return self.names.setdefault(index, f"v{len(self.names)}")

    def _load(self, tensor: int, indices: int) -> str:
        return f"{self._tensor(tensor)}[{', '.join(self._index(entry) for entry in self._items(indices))}]"

    def _index(self, index: int) -> str:
        """An index expression as a sorted sum of terms, which is the same however it was written."""
        terms = self._affine(index)
        parts = [f"{factor}*{name}" if name else str(factor) for name, factor in sorted(terms.items()) if factor]
        return "+".join(parts) or "0"

    def _affine(self, index: int) -> Affine:
        node = self.nodes[index]
        kind, data = _short(node["type"]), node["data"]
        if kind == "intimm":
            return {"": int(self.nodes[data["value"]]["data"])}
        if kind in ("add", "sub"):
            sign = 1 if kind == "add" else -1
            left, right = self._affine(data["a"]), self._affine(data["b"])
            return {name: left.get(name, 0) + sign * right.get(name, 0) for name in {**left, **right}}
        if kind == "mul":
            left, right = self._affine(data["a"]), self._affine(data["b"])
            constant, other = (left, right) if set(left) <= {""} else (right, left)
            if set(constant) <= {""}:
                return {name: factor * constant.get("", 0) for name, factor in other.items()}
            return {f"(mul {self._index(data['a'])} {self._index(data['b'])})": 1}
        if kind in ("floordiv", "floormod", "div", "mod", "max", "min"):
            return {f"({kind} {self._index(data['a'])} {self._index(data['b'])})": 1}
        if kind == "cast" and self._dtype(data).startswith("int"):
            return self._affine(data["value"])
        return {self._expression(index): 1}

    def _work(self, index: int) -> int:
        """Arithmetic operations in an expression, without those that only find an element or decide."""
        node = self.nodes[index]
        kind, data = _short(node["type"]), node.get("data")
        if kind == "call":
            operator = str(self.nodes[data["op"]].get("data")).rsplit(".", 1)[-1]
            arguments = self._items(data["args"])
            if operator == "if_then_else":
                return max(self._work(argument) for argument in arguments[1:])
            return (operator not in NO_WORK) + sum(self._work(argument) for argument in arguments)
        if kind == "select":
            return max(self._work(data["true_value"]), self._work(data["false_value"]))
        if kind == "cast":
            return self._work(data["value"])
        if kind in ARITHMETIC:
            return 1 + self._work(data["a"]) + self._work(data["b"])
        return 0

    # Types.

    def _dtype(self, data: dict[str, Any]) -> str:
        found = self.nodes[data["ty"]]["data"]
        return str(found.get("dtype", "")) if isinstance(found, dict) else ""

    def _tensor(self, index: int) -> str:
        if index not in self.names:
            dtype, shape = self._argument(index)
            self.names[index] = f"t{len([name for name in self.names.values() if name.startswith('t')])}"
            self.names[index] += f"<{dtype} {'x'.join(map(str, shape))}>"
        return self.names[index]

    def _argument(self, index: int) -> tuple[str, tuple[int, ...]]:
        buffer = self.nodes[self.nodes[index]["data"]["ty"]]["data"]
        dtype = str(self.nodes[buffer["dtype"]]["data"]["dtype"])
        extents = [self._expression(extent) for extent in self._items(buffer["shape"])]
        return dtype, tuple(int(extent) for extent in extents)


def _short(kind: str) -> str:
    return kind.rsplit(".", 1)[-1].lower()


def _is_statement(kind: str) -> bool:
    return _short(kind) in ("bufferstore", "seqstmt", "ifthenelse", "for", "while", "sblockrealize")
