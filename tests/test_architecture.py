"""The import order, file lengths and forbidden calls of the library, read from the source with
`ast`.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import re
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LIBRARY, CLI, BENCHMARKS = ROOT / "dualgnn_dgl", ROOT / "cli", ROOT / "benchmarks"
LONGEST = 300

# The storeys, from low to high: a module may import its own storey and those above in this list;
# nothing else of ours. A new module inside a storey needs no line here.
STOREYS: tuple[tuple[str, ...], ...] = (
    ("errors",),
    ("core", "_standin"),
    ("_dgl", "data"),
    ("ops",),
    ("readers", "graphs", "evaluation"),
    ("modality",),
    ("models",),
    ("preprocess", "training"),
    ("runs",),
    ("experiments",),
    ("verbs",),
    ("cli",),
)
RANK = {name: rank for rank, names in enumerate(STOREYS) for name in names}
NAMES = 10  # public names that a storey's __init__ offers at most

# A third-party package → the only modules of ours that may import it.
ONLY_IN = {
    "dgl": {"_dgl"},
    "click": {"cli"},
    "rich": {"cli"},
    "sklearn": {"readers", "modality"},
    "pandas": {"readers", "data.synthetic"},
    "optuna": {f"experiments.tuning.{name}" for name in ("folder", "search", "trial")},
}
WITHOUT_TORCH = {"errors", "data", "readers", "modality", "preprocess", "models.train_config"} | {
    f"core.{name}"
    for name in (
        "strict schema locks inputs files arrays folders ids options progress vocabulary plans "
        "exchange"
    ).split()
}
# what the files of models share
MODEL_PARTS = {"models.base", "models.losses", "models.parts", "models.train_config"}

UNPICKLERS = {"pickle", "_pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
# they need libraries that no wheel brings for today's torch
BROKEN_DGL = {"dgl.sparse", "dgl.data", "dgl.graphbolt"}
FORBIDDEN_CALLS = {  # dotted end of the called name → why
    "torch.load": "reads pickles",
    "torch.save": "writes pickles",
    "pd.read_pickle": "reads pickles",
    "pd.to_pickle": "writes pickles",
    "eval": "executes text",
    "exec": "executes text",
    "g.adj": "needs dgl.sparse",
    "graph.adj": "needs dgl.sparse",
    "load_info": "reads pickles",
    "save_info": "writes pickles",
}


def name_of(path: Path) -> str:
    """Dotted name of a source file inside the package; files of cli/ are `cli.<verb>`."""
    base = LIBRARY if path.is_relative_to(LIBRARY) else ROOT
    parts = path.relative_to(base).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def sources(*folders: Path) -> list[Path]:
    return sorted(path for folder in folders for path in folder.rglob("*.py"))


def storey_of(module: str) -> str:
    """Returns the storey of a module; '' for one without a place."""
    first = module.partition(".")[0]
    return first if first in RANK else ""


def imports(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """(line, full dotted name) of everything imported anywhere in a file, also inside functions."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: imports are absolute here"
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def own(target: str) -> str | None:
    """Name inside the package of an imported thing of ours; None for what others make.

    `from dualgnn_dgl.data import Dataset` arrives as dualgnn_dgl.data.Dataset: the longest part
        that is a file counts.
    """
    package, _, inside = target.partition(".")
    if package != "dualgnn_dgl":
        return None
    parts = inside.split(".")
    base = ROOT if parts[0] == "cli" else LIBRARY
    while parts and not (
        base.joinpath(*parts).with_suffix(".py").is_file()
        or base.joinpath(*parts, "__init__.py").is_file()
    ):
        parts.pop()
    return ".".join(parts)


def arrows_back(module: str, tree: ast.AST) -> list[str]:
    """Returns the imports of one file that point upwards or sideways."""
    source, faults = storey_of(module), []
    for line, target in imports(tree):
        name = own(target)
        if not name:  # another package, or `from dualgnn_dgl import __version__`
            continue
        goal = storey_of(name)
        if not goal or not (goal == source or RANK[goal] < RANK[source]):
            faults.append(f"{module} line {line} imports {name}")
        if module.startswith("models.") and name.startswith("models") and name not in MODEL_PARTS:
            faults.append(f"{module} line {line} imports {name}: the file of a model stands alone")
    return faults


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def test_every_module_has_a_place() -> None:
    homeless = [
        name_of(path)
        for path in sources(LIBRARY, CLI)
        if name_of(path) and not storey_of(name_of(path))
    ]
    assert not homeless, f"move these into a storey: {homeless}"
    assert len(STOREYS) <= 12


def test_no_import_cycle() -> None:
    """No modules import each other, not even inside functions.

    A package counts as its `__init__` file.
    """
    graph = {}
    for path in sources(LIBRARY, CLI):
        module = name_of(path)
        found = {own(target) for _, target in imports(parse(path))} - {None, "", module}
        graph[module] = {name for name in found if not module.startswith(f"{name}.")}
    assert sum(map(len, graph.values())) > 300
    tuple(TopologicalSorter(graph).static_order())  # raises CycleError


@pytest.mark.parametrize(
    "storey", [name for names in STOREYS for name in names if LIBRARY.joinpath(name).is_dir()]
)
def test_a_storey_offers_few_names(storey: str) -> None:
    tree = parse(LIBRARY / storey / "__init__.py")
    own_names = {
        node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)
    }
    assigned = [node for node in tree.body if isinstance(node, ast.Assign)]
    own_names |= {ast.unparse(node.targets[0]) for node in assigned}
    imported = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    own_names |= {alias.asname or alias.name for node in imported for alias in node.names}
    listed = [node.value for node in assigned if ast.unparse(node.targets[0]) == "__all__"]
    public = (
        set(ast.literal_eval(listed[0]))
        if listed
        else {name for name in own_names if not name.startswith("_")}
    )
    assert public <= own_names and len(public) <= NAMES, (
        f"{storey} offers {len(public)} names: {sorted(public)}"
    )


@pytest.mark.parametrize("path", sources(LIBRARY, CLI), ids=name_of)
def test_no_import_runs_back(path: Path) -> None:
    module = name_of(path)
    if not module:  # the package's own __init__: what it offers, it offers lazily
        at_import = ast.Module(
            [node for node in parse(path).body if isinstance(node, ast.Import | ast.ImportFrom)], []
        )
        assert not [target for _, target in imports(at_import) if own(target) is not None]
        return
    assert not arrows_back(module, parse(path))


@pytest.mark.parametrize(
    ("module", "line", "faulty"),
    [
        ("data.dataset", "from dualgnn_dgl.graphs.heterographs import heterograph", True),
        ("data.dataset", "from dualgnn_dgl import graphs", True),
        ("data.dataset", "def late():\n    import dualgnn_dgl.training", True),
        ("models.lightgcn", "from dualgnn_dgl.models.dualgnn import DualGNN", True),
        ("models.lightgcn", "from dualgnn_dgl.models import MODELS", True),
        ("models.base", "from dualgnn_dgl.models.dualgnn import DualGNN", True),
        ("graphs.nearest", "from dualgnn_dgl.evaluation import top_k", True),
        ("training.fit", "from dualgnn_dgl.cli.show import note", True),
        ("models.lightgcn", "from dualgnn_dgl.models.base import Recommender", False),
        ("preprocess.split", "from dualgnn_dgl.preprocess import filters", False),
        ("cli.train", "from dualgnn_dgl import training", False),
        ("verbs.train", "from dualgnn_dgl.cli.show import note", True),
        ("experiments.tuning", "from dualgnn_dgl.verbs.train import train", True),
        ("data.dataset", "from dualgnn_dgl import __version__", False),
    ],
)
def test_the_guard_sees_arrows(module: str, line: str, faulty: bool) -> None:
    assert bool(arrows_back(module, ast.parse(line))) is faulty


@pytest.mark.parametrize("path", sources(LIBRARY, CLI), ids=name_of)
def test_other_packages_are_imported_in_their_place_only(path: Path) -> None:
    module = name_of(path)
    places = {module, module.split(".")[0]}
    for line, target in imports(parse(path)):
        package = target.split(".")[0]
        assert package not in ONLY_IN or ONLY_IN[package] & places, (
            f"line {line}: {package} belongs to {ONLY_IN[package]}"
        )
        assert package != "torch" or not WITHOUT_TORCH & places, (
            f"line {line}: {module} does without torch"
        )


# --- the command line parses, calls one verb and renders ----------------------------------------

ENGINES = {"numpy", "torch", "pyarrow", "scipy", "pandas", "sklearn", "dgl", "numba"}
VERB_FILES = {
    "preprocess",
    "train",
    "tune",
    "evaluate",
    "compare",
    "recommend",
    "update",
    "robustness",
}


def beyond_rendering(module: str, tree: ast.AST) -> list[str]:
    """The imports of a file of cli/ that belong to the library, or to another verb's file."""
    faults = []
    for line, target in imports(tree):
        if target.split(".")[0] in ENGINES:
            faults.append(f"line {line}: {target} computes: that belongs to dualgnn_dgl/verbs")
        name = own(target) or ""
        if name.startswith("cli.") and name != module and name.split(".")[1] in VERB_FILES:
            faults.append(
                f"line {line}: {name} is another verb's file: shared options belong to cli/show.py"
            )
    return faults


@pytest.mark.parametrize("path", sources(CLI), ids=name_of)
def test_the_command_line_only_parses_and_renders(path: Path) -> None:
    assert not beyond_rendering(name_of(path), parse(path))


@pytest.mark.parametrize(
    ("line", "faulty"),
    [
        ("def late():\n    import numpy as np", True),
        ("from torch import Tensor", True),
        ("if TYPE_CHECKING:\n    from scipy import sparse", True),
        ("from dualgnn_dgl.cli.evaluate import data_option", True),
        ("from dualgnn_dgl.cli import train", True),
        ("from dualgnn_dgl.cli.show import text_table", False),
        ("from dualgnn_dgl.verbs.compare import compare", False),
        ("from dualgnn_dgl.cli.compare import METRICS", False),
    ],
)
def test_the_guard_sees_work_in_the_command_line(line: str, faulty: bool) -> None:
    assert bool(beyond_rendering("cli.compare", ast.parse(line))) is faulty


def test_benchmarks_take_dgl_from_the_one_place() -> None:
    assert not [
        (path.name, line)
        for path in sources(BENCHMARKS)
        for line, name in imports(parse(path))
        if name.split(".")[0] == "dgl"
    ]


TRAIN_ELSEWHERE = {  # where a model is built or trained other than by training.train_model, and why
    "training.chain": "train_model itself",
    "runs.growth": "builds the model whose rows come from another one",
    "verbs.update": "trains such a model on",
    "benchmarks.quality.newcomers_update": "trains such a model on",
    "benchmarks.quality.newcomers_speed": "times a model that is not trained",
}


@pytest.mark.parametrize(
    "path", sources(LIBRARY, CLI, BENCHMARKS), ids=lambda path: str(path.relative_to(ROOT))
)
def test_models_are_built_and_trained_in_one_place(path: Path) -> None:
    module = name_of(path)
    found = [
        f"line {node.lineno}: {dotted(node.func)}"
        for node in ast.walk(parse(path))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name | ast.Attribute)
        if ast.unparse(node.func) in ("create", "models.create", "fit", "training.fit")
    ]
    assert not found or module in TRAIN_ELSEWHERE, f"call training.train_model instead: {found}"


def benchmark_imports(module: str, tree: ast.AST) -> set[str]:
    """Returns the modules of benchmarks/ that a file imports, without its own name."""
    found = set()
    for _, target in imports(tree):
        parts = target.split(".")
        while (
            parts[0] == "benchmarks"
            and len(parts) > 1
            and not ROOT.joinpath(*parts).with_suffix(".py").is_file()
        ):
            parts.pop()
        if parts[0] == "benchmarks" and len(parts) > 1:
            found.add(".".join(parts))
    return found - {module}


def test_benchmarks_import_downwards_only() -> None:
    """quality/ and speed/ import lib/ and their own folder.

    No cycle; nothing else imports benchmarks.
    """
    assert not [
        path for path in sources(LIBRARY, CLI) if benchmark_imports(name_of(path), parse(path))
    ]
    graph = {
        name_of(path): benchmark_imports(name_of(path), parse(path)) for path in sources(BENCHMARKS)
    }
    assert sum(map(len, graph.values())) > 40
    folder = {module: module.split(".")[1] for module in graph if module.count(".") == 2}
    upwards = [
        (one, other)
        for one in folder
        for other in graph[one]
        if folder[other] not in ("lib", folder[one])
    ]
    assert not upwards
    tuple(TopologicalSorter(graph).static_order())  # raises CycleError


@pytest.mark.parametrize("path", sources(BENCHMARKS), ids=lambda path: str(path.relative_to(ROOT)))
def test_benchmarks_import_what_exists(path: Path) -> None:
    """Many of them import inside functions and run rarely, so a renamed module would be noticed
    late.
    """
    for line, target in imports(parse(path)):
        if target.split(".")[0] == "dualgnn_dgl":
            module, _, name = target.rpartition(".")
            found = importlib.import_module(module or name)
            if not hasattr(found, name):
                assert importlib.util.find_spec(target), f"line {line}: {target} does not exist"


EVERYWHERE = pytest.mark.parametrize(
    "path", sources(LIBRARY, CLI, BENCHMARKS), ids=lambda path: str(path.relative_to(ROOT))
)


@EVERYWHERE
def test_no_file_is_too_long(path: Path) -> None:
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines <= LONGEST, f"{path.name} has {lines} lines: make it a package of the same name"


def dotted(node: ast.AST) -> str:
    """a.b.c of an attribute chain; only its end where it starts at something else than a name."""
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}".lstrip(".")
    return node.id if isinstance(node, ast.Name) else ""


def unsafe(module: str, tree: ast.AST) -> list[str]:
    """Returns the forbidden imports, calls and attributes of a file."""
    faults = []
    for line, target in imports(tree):
        if target.split(".")[0] in UNPICKLERS:
            faults.append(f"line {line} imports {target}: it can execute what it reads")
        if any(target == name or target.startswith(f"{name}.") for name in BROKEN_DGL):
            faults.append(f"line {line} imports {target}, which does not work with today's torch")
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            faults += (f"line {node.lineno} {fault}" for fault in unsafe_call(module, node))
        elif isinstance(node, ast.Attribute) and module != "_dgl":
            if re.search(r"(^|\.)dgl\.(sparse|data|graphbolt)$", dotted(node)):
                faults.append(f"line {node.lineno} uses {dotted(node)}")
    return faults


def unsafe_call(module: str, node: ast.Call) -> Iterator[str]:
    """Yields the reasons why a call is forbidden."""
    called = dotted(node.func)
    for end, why in FORBIDDEN_CALLS.items():
        if called == end or (
            "." not in end and end not in ("eval", "exec") and called.endswith(f".{end}")
        ):
            yield f"calls {called}, which {why}"
    if called in ("np.load", "numpy.load") and module != "core.arrays":
        yield f"calls {called}: arrays are read by arrays.load_array"
    for keyword in node.keywords:
        safe = isinstance(keyword.value, ast.Constant) and keyword.value.value is False
        if keyword.arg == "allow_pickle" and not safe:
            yield "allows pickles"


@EVERYWHERE
def test_nothing_unpickles_or_uses_broken_parts_of_dgl(path: Path) -> None:
    assert not unsafe(name_of(path), parse(path))


@pytest.mark.parametrize(
    ("text", "faulty"),
    [
        ("import pickle", True),
        ("from joblib import load", True),
        ("import dgl.sparse", True),
        ("from dgl.data.utils import load_info", True),
        ("x = dgl.graphbolt.x", True),
        ("torch.load(path)", True),
        ("eval('1')", True),
        ("a = g.adj()", True),
        ("np.load(path)", True),
        ("np.save(path, a, allow_pickle=True)", True),
        ("np.save(path, a, allow_pickle=flag)", True),
        ("dgl.data.utils.load_info(path)", True),
        ("model.eval()", False),
        ("np.save(path, a, allow_pickle=False)", False),
        ("import json\njson.load(handle)", False),
    ],
)
def test_the_guard_sees_unsafe_code(text: str, faulty: bool) -> None:
    assert bool(unsafe("graphs.nearest", ast.parse(text))) is faulty


@EVERYWHERE
def test_public_things_have_docstrings(path: Path) -> None:
    tree = parse(path)
    undocumented = [] if ast.get_docstring(tree) or not tree.body else ["the module itself"]
    public = [
        node
        for node in tree.body
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_")
    ]
    undocumented += [node.name for node in public if not ast.get_docstring(node)]
    assert not undocumented, f"{path.name}: no docstring on {undocumented}"


# --- files are opened in one place, and no cast is unchecked ------------------------------------

OPENERS = {  # what opens a file by its name, as the call ends
    *(
        "open",
        "read_text",
        "read_bytes",
        "input_stream",
        "memory_map",
        "OSFile",
        "fromfile",
        "loadtxt",
        "genfromtxt",
    ),
    *(
        "load_file",
        "safe_open",
        "read_csv",
        "read_json_lines",
        "parse_file",
        "open_memmap",
        "FileIO",
    ),
}
BY_HANDLE = {
    "pq.read_table",
    "pq.ParquetFile",
    "pq.read_schema",
    "pq.read_metadata",
    "np.load",
    "np.memmap",
    "json.load",
}
# module -> what it may call all the same: writers, locks, and files of the kernel
OPENS = {
    "core.inputs": {"os.open"},
    "core.files": {"os.open"},  # temporary files
    "core.arrays": {"open"},  # what is written
    "core.exchange": {"os.open"},  # the staging folder, to lock it
    "core.locks": {"os.open"},  # lock files and folders, with O_NONBLOCK
    "core.memory": {"Path.read_text", "read_text", "path.read_text"},  # /proc and /sys
    "ops.adjacency": {"read_text"},  # /sys
    "cli.main": {"os.open"},  # /dev/null
    "cli.stop": {"os.open"},  # /dev/null
    "cli.streams": {"os.open"},  # /dev/null
    "verbs.parquet": {"temporary.open"},  # a new file, written
    "readers.pipe": {"copy.open"},  # a new file, written
    "readers.text": {"pa_csv.read_csv"},  # of an open stream
}


def opened_by_name(module: str, tree: ast.AST) -> list[str]:
    """The calls in a file that open something by its name and so could wait for a pipe.

    See `inputs.open_regular`.
    """
    faults = []
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        called = dotted(node.func) or (
            node.func.attr if isinstance(node.func, ast.Attribute) else ""
        )
        first = node.args[0] if node.args else None
        if called in BY_HANDLE:
            if not (isinstance(first, ast.Name) and first.id == "handle"):
                faults.append(
                    f"line {node.lineno}: {called} takes the `handle` of open_regular, not a name"
                )
        elif called.split(".")[-1] in OPENERS and called not in OPENS.get(module, ()):
            faults.append(f"line {node.lineno}: {called}: open input with inputs.open_regular")
    return faults


@pytest.mark.parametrize("path", sources(LIBRARY, CLI), ids=name_of)
def test_input_is_opened_in_one_place(path: Path) -> None:
    assert not opened_by_name(name_of(path), parse(path))


@pytest.mark.parametrize(
    ("text", "faulty"),
    [
        ("open(path)", True),
        ("path.open('rb')", True),
        ("Path(path).open()", True),
        ("(folder / name).open()", True),
        ("(folder / name).read_text('utf-8')", True),
        ("path.read_bytes()", True),
        ("io.open(path)", True),
        ("os.open(path, os.O_RDONLY)", True),
        ("pq.read_table(path)", True),
        ("pq.ParquetFile(str(path))", True),
        ("pa.input_stream(str(path))", True),
        ("np.load(path, allow_pickle=False)", True),
        ("load_file(path)", True),
        ("with open_regular(path) as handle:\n    pq.read_table(handle, columns=names)", False),
        ("open_stream(path)", False),
        ("webbrowser.open_new(path)", False),
    ],
)
def test_the_guard_sees_files_opened_by_name(text: str, faulty: bool) -> None:
    assert bool(opened_by_name("graph", ast.parse(text))) is faulty


def unchecked(tree: ast.AST) -> list[str]:
    """Casts that change a value which the new type cannot hold, instead of refusing it."""
    faults = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            called = dotted(node.func)
            faults += [
                f"line {node.lineno}: {called} with {k.arg}"
                for k in node.keywords
                if k.arg in UNCHECKED
            ]
            if called.split(".")[-1] == "cast" and len(node.args) > (
                2 if called in ("pc.cast", "typing.cast", "cast") else 1
            ):
                faults.append(
                    f"line {node.lineno}: {called} says by position whether it is safe: leave "
                    f"that out"
                )
            if called.endswith("CastOptions.unsafe"):
                faults.append(f"line {node.lineno}: {called}")
    return faults


UNCHECKED = {
    "safe",
    *(
        f"allow_{what}"
        for what in (
            "int_overflow",
            "float_truncate",
            "decimal_truncate",
            "time_truncate",
            "time_overflow",
        )
    ),
    "allow_invalid_utf8",
}


@pytest.mark.parametrize("path", sources(LIBRARY, CLI), ids=name_of)
def test_no_cast_is_unchecked(path: Path) -> None:
    assert not unchecked(parse(path))


@pytest.mark.parametrize(
    ("text", "faulty"),
    [
        ("column.cast(pa.int64(), safe=False)", True),
        ("column.cast(pa.int64(), False)", True),
        ("pc.cast(column, pa.int64(), False)", True),
        ("column.cast(options=pc.CastOptions.unsafe(pa.int64()))", True),
        ("pc.CastOptions(pa.int64(), allow_int_overflow=True)", True),
        ("pa.array(values, pa.int64(), safe=False)", True),
        ("column.cast(pa.int64())", False),
        ("cast(int, value)", False),
    ],
)
def test_the_guard_sees_unchecked_casts(text: str, faulty: bool) -> None:
    assert bool(unchecked(ast.parse(text))) is faulty
