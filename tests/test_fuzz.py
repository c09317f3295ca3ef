"""Files of strangers: nothing in them runs, large claims are refused unread, and nonsense gets a sentence."""

import ast
import gzip
import io
import json
import multiprocessing
import tarfile
import tracemalloc
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest
import torch

from diffusion_edu import data, load_weights
from diffusion_edu.cli import main, read_recipe, recipe_from
from scripts import fuzz

ROOT = Path(__file__).resolve().parents[1]
SOURCES = [path for folder in ("diffusion_edu", "scripts", "benchmarks") for path in (ROOT / folder).rglob("*.py")]
RUNS_WHAT_IT_READS = {"pickle", "cPickle", "dill", "cloudpickle", "shelve", "marshal", "joblib", "yaml"}


def unsafe(source):
    """Places in a program where what is read from a file could run."""
    found = []
    for node in ast.walk(ast.parse(source)):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        found += [f"line {node.lineno} imports {name}" for name in names if name.split(".")[0] in RUNS_WHAT_IT_READS]
        if isinstance(node, ast.Call):
            call, given = ast.unparse(node.func), {word.arg: ast.unparse(word.value) for word in node.keywords}
            if call.endswith("torch.load") and given.get("weights_only") != "True":
                found.append(f"line {node.lineno}: torch.load without weights_only=True")
            if call in ("np.load", "numpy.load") and given.get("allow_pickle") != "False":
                found.append(f"line {node.lineno}: np.load without allow_pickle=False")
            if call in ("eval", "exec") or call.endswith((".extractall", ".unsafe_load")):
                found.append(f"line {node.lineno} calls {call}")
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_that_is_read_from_a_file_can_run(path):
    found = unsafe(path.read_text(encoding="utf-8"))
    allowed = {"scripts/book.py": "yaml"}  # book/references are our own
    assert not [place for place in found if allowed.get(str(path.relative_to(ROOT)), "-") not in place], found


@pytest.mark.parametrize(
    "source",
    ["import pickle", "from joblib import load", "torch.load(p)", "torch.load(p, weights_only=False)", "np.load(p)",
     "np.load(p, allow_pickle=True)", "exec(text)", "tar.extractall(p)"],
)  # fmt: skip
def test_what_could_run_is_found(source):
    assert unsafe(source)


# What claims to be large


def claims(name):
    """A file that claims to hold terabytes, and what reads it."""
    if name == "idx":
        return b"\0\0\x08\x04" + b"\xff\xff\xff\xff" * 4, data.read_idx, ""
    if name == "idx.gz":
        return gzip.compress(b"\0\0\x08\x04" + b"\xff\xff\xff\xff" * 4), data.read_idx, ".gz"
    if name in ("safetensors", "safetensors header"):
        entry = {"dtype": "F32", "shape": [10**12], "data_offsets": [0, 4 * 10**12]}
        head = json.dumps({"weight": entry}).encode()
        size = len(head) if name == "safetensors" else 2**62
        return size.to_bytes(8, "little") + head, lambda path: load_weights(torch.nn.Linear(1, 1), path), ""
    if name == "recipe":
        text = '[data]\nset = "digits"\n[unet]\nchannels = [16384, 16384]\nblocks = [2, 2]\n'
        return text.encode(), read_recipe, ".toml"
    if name == "long recipe":
        return b"#" * 2**21, read_recipe, ".toml"
    member = tarfile.TarInfo("a.bin")
    member.size = 2**33
    if name == "tar header":
        member.type, member.size = tarfile.XHDTYPE, 2**31
    head = member.tobuf(tarfile.USTAR_FORMAT) if name != "tar" else member.tobuf(tarfile.GNU_FORMAT)
    zeros = gzip.compress(bytes(2**24), 1)  # what it unpacks to follows as often as one likes
    return gzip.compress(head, 1) + zeros * 8, lambda path: data._tar_members(path, ["a.bin"], 40), ".tar.gz"


@pytest.mark.parametrize(
    "name", ["idx", "idx.gz", "safetensors", "safetensors header", "recipe", "long recipe", "tar", "tar header"]
)
def test_a_file_that_claims_terabytes_is_refused_before_memory_is_taken(name, tmp_path):
    content, read, suffix = claims(name)
    path = tmp_path / f"file{suffix}"
    path.write_bytes(content)
    tracemalloc.start()
    try:
        with pytest.raises(ValueError) as refused:
            read(path)
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert most < 2**26 and fuzz.is_sentence(refused.value), (most, str(refused.value))


def test_a_header_that_is_read_in_pieces_is_bounded_too(tmp_path):  # as Python 3.14 reads it
    (tmp_path / "zeros.gz").write_bytes(gzip.compress(bytes(2**22)))
    with data._Bounded(tmp_path / "zeros.gz") as raw:
        for _ in range(4):
            assert len(raw.read(2**18)) == 2**18
        with pytest.raises(OSError, match="where 0 are due"):
            raw.read(1)


def test_a_picture_inside_an_archive_never_leaves_it(tmp_path, monkeypatch):
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as tar:
        for name in ("../outside.bin", "/tmp/outside.bin", "a.bin"):
            member = tarfile.TarInfo(name)
            member.size = 4
            tar.addfile(member, io.BytesIO(b"1234"))
    (tmp_path / "in").mkdir()
    path = tmp_path / "in" / "archive.tar.gz"
    path.write_bytes(content.getvalue())
    monkeypatch.chdir(tmp_path / "in")
    assert data._tar_members(path, ["a.bin"], 4) == [b"1234"]
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["archive.tar.gz", "in"]


def test_a_recipe_of_a_stranger_that_asks_for_too_much_ends_the_command_with_a_sentence(tmp_path, capsys):
    path = tmp_path / "huge.toml"
    path.write_text('[data]\nset = "moons"\n[mlp]\nwidth = 16384\ndepth = 8\n')
    assert main(["train", str(path), "--folder", str(tmp_path / "run")]) == 2
    assert "is the most: take fewer features" in capsys.readouterr().err
    for table in ({"width": 0}, {"depth": -1}, {"width": 10**9}):
        with pytest.raises(ValueError, match="mlp got width"):
            recipe_from({"data": {"set": "moons"}, "mlp": table}, "")
    with pytest.raises(ValueError, match="give 1 to 16 numbers"):
        recipe_from({"unet": {"channels": [8] * 17}}, "")


def test_damaged_and_hostile_files_get_a_sentence_and_no_other_exception():
    counts, faults, _ = fuzz.attack(800, seed=1)
    assert not faults, "\n".join(faults)
    names = {what.partition(" ")[0] for what in counts}
    assert len(names) == 8 and all(counts[f"{name} refused"] for name in names)


def a_leak():
    """What the attack says of a reader that keeps 2 MiB of each file."""
    kept = []
    leaks = fuzz.Reader((b"1234",), lambda path: kept.append(b"x" * 2**21), fuzz.turned, ("",))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fuzz, "readers", lambda folder: {"leaks": leaks})
        return fuzz.attack(60)


@pytest.mark.skipif(not fuzz.memory(), reason="this system does not say what a process holds")
def test_the_attack_sees_a_leak():
    """In a new process: what is kept may lie in memory that other tests have freed, and then nothing grows."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        _, faults, growth = pool.submit(a_leak).result()
    assert not faults and growth > fuzz.GROWTH


def test_the_attack_sees_an_exception_that_is_not_ours(monkeypatch):
    def broken(path):
        raise KeyError("deep inside")

    monkeypatch.setattr(data, "read_idx", broken)
    _, faults, _ = fuzz.attack(4, only=("idx",))
    assert len(faults) == 4 and "KeyError" in faults[0]


def test_no_reader_of_that_name_is_a_sentence():
    with pytest.raises(SystemExit, match="there is no reader idz; the names are idx"):
        fuzz.main(["--inputs", "1", "--only", "idz"])
