"""Applies docs/how-to.md of a project as it is printed."""

import ast
import re
from pathlib import Path

BLOCK = re.compile(r"(?P<above>(?:[^\n]+\n)+)\n```(?:python|html|yaml)\n(?P<code>.*?)```", re.DOTALL)
FILE = re.compile(r"`((?:app|config|tests)/[\w/]+\.\w+)`")


def apply_how_to(project: Path) -> None:
    """Build the feature of docs/how-to.md by hand, as the page says."""
    for block in BLOCK.finditer((project / "docs/how-to.md").read_text()):
        name = FILE.findall(block["above"])[0]
        path, code = project / name, block["code"]
        if f"In `{name}`" in block["above"]:
            code = with_code(path.read_text(), code) if path.suffix == ".py" else f"{path.read_text()}\n{code}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(code)


def with_code(module: str, addition: str) -> str:
    """A module with imports on top, functions and classes of the same name replaced, and new ones at the end."""
    for part in ast.parse(addition).body:
        code = source(addition, part)
        known = {getattr(it, "name", ""): it for it in ast.parse(module).body}
        if isinstance(part, ast.Import | ast.ImportFrom):
            docstring = source(module, ast.parse(module).body[0])
            module = module.replace(docstring, f"{docstring}\n{code}", 1)
        elif isinstance(part, ast.FunctionDef | ast.ClassDef):
            if old := known.get(part.name):
                assert isinstance(old, ast.FunctionDef | ast.ClassDef)
                inside = [source(module, it) for it in old.body]
                code = code.replace(": ...", ":\n    ...").replace("    ...", "\n".join(inside))
                module = module.replace(source(module, old), code)
            else:
                module = f"{module}\n\n{code}\n"
    return module


def source(text: str, node: ast.stmt) -> str:
    """The lines of a statement, with its decorators."""
    first = min([node.lineno, *(it.lineno for it in getattr(node, "decorator_list", ()))])
    return "\n".join(text.splitlines()[first - 1 : node.end_lineno])
