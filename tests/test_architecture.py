"""The house keeps its shape: layers, the path without PyTorch, sizes, names and what must never be called.

A new module goes into ``LAYERS``; nothing else here needs to know of it, unless it needs PyTorch (``TORCH``).
"""

import ast
import json
import re
import statistics
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src"

LAYERS = (  # imports go down or stay level, never up
    # 0 values
    """errors interfaces volume labels facts result recipe parts intensity geometry windows averaging machine files
    claims findings plain_names sentences prompts changes shipped heap""",
    # 1 data
    """streams headers affines voxels loading images inputs cases pairing tables participants schemes metrics stats
    generation intervals centring clicks slice_prompts clicked deform growth lesions fading surface synth silver told
    lifespan sampling labelled dataset_audit tensors losses optim ambiguous""",
    # 2 parts
    """nets tokens meeting adapt objectives""",
    # 3 model
    """model""",
    # 4 verbs
    """runtime runtime_torch telling chain passes labelling segmenter swaps centres asymmetry measures flags
    quality api report report_pictures sidecar outputs batch_table batch verify evaluation evaluate judging checkpoint
    import_weights import_sam text_tower params splits cascade sources folds train rebalance board runs graph export
    adapter_request adaptation simulate scanners compare correcting network_predictor slice_answers slice_engine
    correcting_sam events beliefs beginnings session session_folder corrected corrected_dataset serve""",
    # 5 doors
    """spanseg __main__ cli""",
)
PART_FOLDERS = ("nets", "tokens", "adapt", "objectives")
FOLDERS = (*PART_FOLDERS, "compare", "serve", "cli")  # all files of a folder lie in its layer
TORCH = {
    *PART_FOLDERS,
    *(
        "deform",
        "growth",
        "lesions",
        "fading",
        "surface",
        "synth",
        "silver",
        "clicked",
        "slice_prompts",
        "told",
        "lifespan",
        "ambiguous",
        "sampling",
    ),
    *("labelled", "tensors", "losses", "optim", "meeting"),
    *(
        "model",
        "checkpoint",
        "import_weights",
        "import_sam",
        "text_tower",
        "params",
        "cascade",
        "folds",
        "sources",
        "train",
        "rebalance",
        "board",
    ),
    *("runs", "graph", "export", "adaptation", "simulate", "scanners", "runtime_torch"),
    *("network_predictor", "slice_answers", "slice_engine", "correcting_sam"),
    *("cli.params", "cli.train", "cli.adapt", "cli.export", "cli.simulate", "cli.sentences"),
    *("compare", "cli.compare", "cli.fewshot", "cli.cross_domain", "cli.leave_one_centre_out"),
}
EXEMPT = {  # loaded for --device cuda, and for a trained SAM, only
    ("segmenter", "runtime_torch"),
    ("segmenter", "slice_engine"),
    ("cli.serve", "correcting_sam"),
}
WITHOUT_TORCH = {"numpy", "scipy", "nibabel", "PIL", "typer", "rich", "click", "spanseg", *sys.stdlib_module_names}

Edge = tuple[str, bool]  # what is imported, and whether only for a type


def name_of(path: Path) -> str:
    """Module name below the package, such as ``cli.main``; ``spanseg`` for the package itself."""
    parts = list(path.relative_to(SOURCE / "spanseg").with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts) or "spanseg"


MODULES = {name_of(path): path for path in sorted((SOURCE / "spanseg").rglob("*.py"))}


@cache
def tree(name: str) -> ast.Module:
    return ast.parse(MODULES[name].read_text(encoding="utf-8"))


def walk(node: ast.AST, for_types: bool = False) -> Iterator[tuple[ast.AST, bool]]:
    """All nodes, each with whether it lies under ``if TYPE_CHECKING``."""
    for child in ast.iter_child_nodes(node):
        inside = for_types or (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test))
        yield child, inside
        yield from walk(child, inside)


@cache
def imports(name: str) -> frozenset[Edge]:
    """Everything a module imports, inside functions too, by dotted name; strings that name a module count."""
    found: set[Edge] = set()
    for node, for_types in walk(tree(name)):
        match node:
            case ast.Import():
                found |= {(alias.name, for_types) for alias in node.names}
            case ast.ImportFrom(module="spanseg"):
                found |= {(f"spanseg.{alias.name}", for_types) for alias in node.names if alias.name != "__version__"}
            case ast.ImportFrom():
                assert node.level == 0 and node.module, f"{name}: write imports in full"
                wholes = {f"{node.module}.{alias.name}" for alias in node.names}
                modules = {whole for whole in wholes if whole.removeprefix("spanseg.") in MODULES}
                found |= {(whole, for_types) for whole in modules or {node.module}}
            case ast.Constant(value=str(text)) if text.startswith("spanseg.") and text[8:] in MODULES:
                found.add((text, for_types))
    return frozenset(found)


def own_imports(name: str, types_too: bool = True) -> set[str]:
    """Modules of this package that a module imports; ``spanseg`` where it takes a name from the package itself."""
    dotted = {whole for whole, for_types in imports(name) if types_too or not for_types}
    inner = {whole.removeprefix("spanseg.") for whole in dotted if whole.partition(".")[0] == "spanseg"}
    return {target if target in MODULES else "spanseg" for target in inner} - {name}


def unit(name: str) -> str:
    """The name under which a module stands in ``LAYERS``: its folder's, or its own."""
    first = name.partition(".")[0]
    return first if first in FOLDERS else name


def layer(name: str) -> int:
    return next((number for number, row in enumerate(LAYERS) if unit(name) in row.split()), len(LAYERS))


def needs_torch(name: str) -> bool:
    return name in TORCH or unit(name) in TORCH


def test_every_module_has_one_place_in_the_layers() -> None:
    listed = [word for row in LAYERS for word in row.split()]
    assert len(listed) == len(set(listed))
    there = {unit(name) for name in MODULES}
    unlisted, gone = there - set(listed), set(listed) - there
    assert not unlisted, f"give these a layer in tests/test_architecture.py: {sorted(unlisted)}"
    assert not gone, f"these are in LAYERS and not in src/spanseg: {sorted(gone)}"


def test_architecture_md_names_every_module() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    words = set(re.findall(r"[\w/]+", text))
    assert not [name for name in MODULES if unit(name) not in words and f"{unit(name)}/" not in words]


def test_imports_go_down() -> None:
    assert not [(a, b) for a in MODULES for b in own_imports(a) if layer(b) > layer(a)]


def test_part_folders_do_not_know_one_another() -> None:
    parts = [name for name in MODULES if unit(name) in PART_FOLDERS]
    assert not [(a, b) for a in parts for b in own_imports(a) if unit(b) in PART_FOLDERS and unit(a) != unit(b)]


def test_there_is_no_import_cycle() -> None:
    left = {name: own_imports(name) for name in MODULES}
    while free := [name for name, targets in left.items() if not targets & left.keys()]:
        for name in free:
            del left[name]
    assert not left  # what is left imports in a circle, or imports something that does; lazy imports count


def test_the_path_without_torch_never_reaches_it() -> None:
    light = [name for name in MODULES if not needs_torch(name)]
    reached = {(a, b) for a in light for b in own_imports(a, types_too=False) if needs_torch(b)}
    assert reached <= EXEMPT
    assert not needs_torch("segmenter") and not needs_torch("evaluate")


def test_the_path_without_torch_needs_core_packages_only() -> None:
    allowed = {name: WITHOUT_TORCH | ({"openvino"} if name == "runtime" else set()) for name in MODULES}
    allowed |= {name: WITHOUT_TORCH | {"fastapi", "starlette", "uvicorn"} for name in MODULES if unit(name) == "serve"}
    outside = {
        (name, whole)
        for name in MODULES
        if not needs_torch(name)
        for whole, for_types in imports(name)
        if not for_types and whole.partition(".")[0] not in allowed[name]
    }
    assert not outside


def test_only_the_runtime_imports_openvino() -> None:
    assert [name for name in MODULES if "openvino" in {w.partition(".")[0] for w, _ in imports(name)}] == ["runtime"]


def loaded_after(statement: str) -> set[str]:
    """Top-level packages in memory after a statement, in a fresh interpreter."""
    code = f"import sys, json; {statement}; print(json.dumps([m.partition('.')[0] for m in sys.modules]))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_importing_everything_that_is_torch_free_loads_no_torch() -> None:
    light = [f"spanseg.{name}" for name in MODULES if not needs_torch(name) and name != "spanseg"]
    heavy = {"torch", "safetensors", "jaxtyping", "onnx", "openvino", "openvino_telemetry", "matplotlib", "pandas"}
    assert not loaded_after(f"import {', '.join(light)}") & heavy


def test_importing_the_package_loads_nothing_heavy() -> None:
    assert not loaded_after("import spanseg") & {"numpy", "scipy", "nibabel", "PIL", "typer", "openvino", "torch"}


Function = ast.FunctionDef | ast.AsyncFunctionDef


def functions(name: str) -> list[Function]:
    return [node for node in ast.walk(tree(name)) if isinstance(node, Function)]


def length(node: Function) -> int:
    return (node.end_lineno or 0) - node.lineno + 1


def test_files_are_short() -> None:
    lengths = {name: len(path.read_text(encoding="utf-8").splitlines()) for name, path in MODULES.items()}
    assert not {name: lines for name, lines in lengths.items() if lines > 400}
    assert statistics.median(lengths.values()) <= 150
    others = [*(ROOT / "tests").rglob("*.py"), *(ROOT / "benchmarks").rglob("*.py")]
    assert not [path.name for path in others if len(path.read_text(encoding="utf-8").splitlines()) > 400]


def test_functions_are_short() -> None:
    lengths = {f"{name}.{node.name}": length(node) for name in MODULES for node in functions(name)}
    assert not {name: lines for name, lines in lengths.items() if lines > 60}
    longer = {name: lines for name, lines in lengths.items() if lines > 35}
    assert len(longer) <= 0.05 * len(lengths), longer


def test_functions_take_at_most_seven_parameters() -> None:
    many = {}
    for name in MODULES:
        for node in functions(name) if unit(name) != "cli" else []:
            a = node.args
            taken = [*a.posonlyargs, *a.args, *a.kwonlyargs, *filter(None, (a.vararg, a.kwarg))]
            if len([one for one in taken if one.arg not in ("self", "cls")]) > 7:
                many[f"{name}.{node.name}"] = len(taken)
    assert not many


def public(name: str) -> Iterator[tuple[str, ast.ClassDef | Function]]:
    """Public classes and functions of a module, and the public methods of those classes."""
    for node in tree(name).body:
        if isinstance(node, ast.ClassDef | Function) and not node.name.startswith("_"):
            yield f"{name}.{node.name}", node
            inner = node.body if isinstance(node, ast.ClassDef) else []
            for child in inner:
                if isinstance(child, Function) and (not child.name.startswith("_") or child.name == "__call__"):
                    yield f"{name}.{node.name}.{child.name}", child


def test_everything_public_is_documented() -> None:
    assert not [name for name in MODULES if not ast.get_docstring(tree(name))]
    assert not [where for name in MODULES for where, node in public(name) if not ast.get_docstring(node)]


def test_everything_public_is_typed() -> None:
    untyped = []
    for name in MODULES:
        for where, node in public(name):
            if isinstance(node, Function):
                a = node.args
                taken = [*a.posonlyargs, *a.args, *a.kwonlyargs, *filter(None, (a.vararg, a.kwarg))]
                bare = [one.arg for one in taken if one.annotation is None and one.arg not in ("self", "cls")]
                untyped += [where] if bare or node.returns is None else []
    assert not untyped


def calls(name: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Every call in a module: what is called, and its keyword arguments as source text."""
    for node in ast.walk(tree(name)):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), {word.arg: ast.unparse(word.value) for word in node.keywords if word.arg}


def is_forbidden(name: str, called: str, words: dict[str, str]) -> bool:
    if called in ("np.load", "numpy.load"):
        return words.get("allow_pickle") != "False"
    if called == "torch.load":
        return name != "import_weights" or words.get("weights_only") != "True"
    if called == "print":
        return unit(name) != "cli"
    return called in ("eval", "exec", "yaml.load", "os.system", "os.popen", "os.fork") or words.get("shell") == "True"


def test_nothing_dangerous_is_called() -> None:
    assert not [(n, called) for n in MODULES for called, words in calls(n) if is_forbidden(n, called, words)]


def test_nothing_that_unpickles_is_imported() -> None:
    unsafe = {"pickle", "dill", "cloudpickle", "marshal", "shelve", "joblib", "yaml"}
    assert not [(n, whole) for n in MODULES for whole, _ in imports(n) if whole.partition(".")[0] in unsafe]


def test_no_error_is_caught_without_a_name() -> None:
    nodes = [(name, node) for name in MODULES for node in ast.walk(tree(name))]
    assert not [(n, node.lineno) for n, node in nodes if isinstance(node, ast.ExceptHandler) and node.type is None]


@pytest.mark.parametrize(
    ("called", "words", "module"),
    [
        ("np.load", {}, "runs"),
        ("np.load", {"allow_pickle": "True"}, "runs"),
        ("torch.load", {"weights_only": "True"}, "train"),
        ("torch.load", {}, "import_weights"),
        ("subprocess.run", {"shell": "True"}, "machine"),
        ("print", {}, "segmenter"),
    ],
)
def test_the_guard_itself_works(called: str, words: dict[str, str], module: str) -> None:
    assert is_forbidden(module, called, words)
    assert not is_forbidden("import_weights", "torch.load", {"weights_only": "True"})
    assert not is_forbidden("cli.info", "print", {})


@pytest.fixture(scope="module")
def repository() -> list[Path]:
    """Files that are in the repository or would be after ``git add .``."""
    listing = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        done = subprocess.run(listing, capture_output=True, text=True, check=True, timeout=60)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("needs git and a checkout (this is an unpacked archive)")
    return [ROOT / name for name in done.stdout.split("\0") if name and (ROOT / name).is_file()]


def test_names_say_what_a_file_is_for(repository: list[Path]) -> None:
    empty = {"utils", "util", "helpers", "helper", "common", "misc", "manager", "base", "v2", "legacy"}
    named = {path: set(re.split(r"[_.\-/]", str(path.relative_to(ROOT)).lower())) for path in repository}
    assert not [str(path) for path, words in named.items() if path.suffix == ".py" and words & empty]


def test_no_backups_pickles_or_notebooks_with_output(repository: list[Path]) -> None:
    junk = re.compile(r"(~|\.orig|\.bak|\.rej|\.sw[op]|\.DS_Store|\.pyc|\.pth?|\.pkl|\.pickle)$")
    assert not [str(path) for path in repository if junk.search(path.name)]
    notebooks = [path for path in repository if path.suffix == ".ipynb"]
    assert not [path for path in notebooks if re.search(r'"outputs": \[\s*\{', path.read_text(encoding="utf-8"))]


def test_no_path_of_a_machine_is_written_anywhere(repository: list[Path]) -> None:
    here = [f"{place}/" for place in (ROOT.as_posix(), Path.home().as_posix()) if len(place) > 3]
    somewhere = re.compile(r"(?<![\w.])/(?:home|Users)/\w|[A-Z]:\\Users\\\w")
    found = []
    for path in repository:
        if path.suffix in (".onnx", ".safetensors", ".png", ".npz", ".gz", ".jpg"):
            continue
        text = path.read_text(encoding="utf-8")
        found += [str(path)] if somewhere.search(text) or any(place in text for place in here) else []
    assert not found
