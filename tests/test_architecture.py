"""The modules stand on floors: each imports only from floors below its own, and there are no circles.

The floors are those of the table in CONTRIBUTING.md. The imports are read from the source, wherever in a
module they stand: at the top, inside a function, under TYPE_CHECKING, or as importlib.import_module("...").
"""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "diffusion_edu"

FLOORS = {
    0: ["door"],
    1: ["gaussian", "networks", "data", "storage", "ode"],
    2: ["unet", "metrics", "schedule"],
    3: ["process", "parameterization"],
    4: ["denoiser", "analytic"],
    5: ["guidance", "sampler", "adaptive", "loss", "likelihood"],
    6: ["trainer", "viz", "checks"],
    7: ["widgets", "exercises", "cli"],
    8: ["__init__", "__main__"],  # the shop window and the door: no module may import from them
}
FLOOR = {module: floor for floor, modules in FLOORS.items() for module in modules}


def imports(source: str, module: str) -> set[str]:
    """Which of our modules `source`, the text of `module`, imports; the package itself is `__init__`."""
    found: list[str] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            parts = module.split(".")[: -node.level] if module != "__init__" else []
            base = ".".join([PACKAGE, *parts]) if node.level else ""
            base = ".".join(part for part in (base, node.module) if part)
            # `from diffusion_edu import unet` may name a module or something that the package itself offers.
            known = [alias.name for alias in node.names if base == PACKAGE and alias.name in FLOOR]
            found += [f"{base}.{name}" for name in known]
            found += [base] if len(known) < len(node.names) else []
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called in ("import_module", "__import__") and isinstance(node.args[0].value, str):
                name = node.args[0].value
                found.append(f"{PACKAGE}{name}" if name.startswith(".") else name)
    ours = [name.split(".") for name in found if name.split(".")[0] == PACKAGE]
    return {parts[1] if len(parts) > 1 else "__init__" for parts in ours} - {module}


def faults(graph: dict[str, set[str]]) -> list[str]:
    """What is wrong with the imports {module: modules it imports}, a sentence each."""
    found = []
    for module, targets in sorted(graph.items()):
        if module not in FLOOR:
            found.append(f"{module} is on no floor: give it one in tests/test_architecture.py and CONTRIBUTING.md.")
            continue
        for target in sorted(targets):
            if target not in FLOOR:
                found.append(f"{module} imports {target}, which is on no floor.")
            elif FLOOR[target] >= FLOOR[module]:
                found.append(
                    f"{module} (floor {FLOOR[module]}) imports {target} (floor {FLOOR[target]}): "
                    "a module imports only from floors below its own."
                )
    return found


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """The circles that a walk along the imports meets, each from its alphabetically first module on."""
    found: list[list[str]] = []

    def walk(module: str, path: list[str]) -> None:
        if module in path:
            circle = path[path.index(module) :]
            first = circle.index(min(circle))
            circle = circle[first:] + circle[:first]
            if circle not in found:
                found.append(circle)
            return
        for target in sorted(graph.get(module, ())):
            walk(target, [*path, module])

    for module in sorted(graph):
        walk(module, [])
    return found


def real_graph() -> dict[str, set[str]]:
    folder = ROOT / PACKAGE
    graph: dict[str, set[str]] = {}
    for path in sorted(folder.rglob("*.py")):
        parts = path.relative_to(folder).with_suffix("").parts
        name = parts[0]  # a package inside the package is one module of its floor
        dotted = ".".join(parts)
        graph.setdefault(name, set()).update(imports(path.read_text(encoding="utf-8"), dotted) - {name})
    return graph


def test_each_module_imports_only_from_floors_below():
    graph = real_graph()
    assert "schedule" in graph, "the test reads no modules: has the package moved?"
    assert not faults(graph), "\n".join(faults(graph))


def test_imports_form_no_circle():
    assert not circles(real_graph())


def test_contributing_shows_the_same_floors():
    rows = re.findall(r"^\| (\d) \| (.+?) \|", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"), re.MULTILINE)
    shown = {int(floor): re.findall(r"`(\w+)`", modules) for floor, modules in rows}
    assert shown == FLOORS


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("import torch\nfrom math import pi", set()),
        ("from diffusion_edu.unet import UNet", {"unet"}),
        ("import diffusion_edu.unet as u", {"unet"}),
        ("from diffusion_edu import unet", {"unet"}),
        ("from diffusion_edu import UNet", {"__init__"}),
        ("from diffusion_edu import unet, UNet", {"unet", "__init__"}),
        ("import diffusion_edu", {"__init__"}),
        ("from .unet import UNet", {"unet"}),
        ("from . import unet", {"unet"}),
        ("def f():\n    from diffusion_edu.unet import UNet", {"unet"}),
        ("if TYPE_CHECKING:\n    from diffusion_edu.unet import UNet", {"unet"}),
        ("import importlib\nimportlib.import_module('diffusion_edu.unet')", {"unet"}),
        ("'from diffusion_edu.unet import UNet'", set()),
    ],
)
def test_an_import_is_found_in_every_way_of_writing_it(source, found):
    assert imports(source, "sampler") == found


def test_relative_imports_of_the_package_itself_are_found():
    assert imports("from .unet import UNet\nfrom . import schedule", "__init__") == {"unet", "schedule"}


def test_an_upward_import_is_a_fault():
    assert faults({"schedule": {"sampler"}, "sampler": set()})


def test_an_import_from_the_same_floor_is_a_fault():
    assert faults({"sampler": {"loss"}, "loss": set()})


def test_an_import_from_the_package_itself_is_a_fault():
    assert faults({"sampler": {"__init__"}})


def test_a_module_without_a_floor_is_a_fault():
    assert faults({"helpers": set()})
    assert faults({"sampler": {"helpers"}})


def test_a_downward_import_is_no_fault():
    assert not faults({"sampler": {"schedule", "denoiser"}, "__init__": {"sampler"}})


def test_a_circle_is_found_once():
    graph = {"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}
    assert circles(graph) == [["a", "b", "c"]]
    assert circles({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []
