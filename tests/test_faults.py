"""What the world does to a run: kills, full disks, folders without rights, damage, a second run, a wrong clock."""

import functools
import multiprocessing
import os
import subprocess
import sys
import time

import pytest
import torch

from diffusion_edu.cli import main
from diffusion_edu.cli.run import Log
from scripts import faults
from tests.test_cli import LEFT, ROOT, TINY, same_files
from tests.test_trainer import moons_trainer

POSIX = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL, no mounts and no locks of folders")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """The path of a recipe that runs in a second."""
    path = tmp_path_factory.mktemp("recipe") / "tiny.toml"
    path.write_text(TINY)
    return str(path)


@pytest.fixture(scope="module")
def straight(tiny, tmp_path_factory):
    """The folder of a run that nothing happened to."""
    folder = tmp_path_factory.mktemp("straight") / "run"
    assert main(["train", tiny, "--folder", str(folder)]) == 0
    return folder


def broken_off(tiny, folder, monkeypatch):
    """A run that ended at step 25; returns its command."""
    command = ["train", tiny, "--folder", str(folder)]
    add = Log.add

    def interrupted(self, progress):
        add(self, progress)
        if progress.step == 25:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Log, "add", interrupted)
        assert main(command) == 130
    return command


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file() and path.suffix != ".csv"}


def mounting_is_allowed(way, folder):
    """Whether something can be mounted on the folder by a command that begins with ``way``."""
    try:
        done = subprocess.run([*way, "mount", "-t", "tmpfs", "none", str(folder)], capture_output=True)
    except FileNotFoundError:
        return False
    if done.returncode == 0 and not way:
        subprocess.run(["umount", str(folder)], check=True)
    return done.returncode == 0


def mounts(test):
    """A test that mounts. Who may not do that runs it in a namespace of its own, in a second pytest.

    Where that is not allowed either it is skipped, and fails where CI is set: there nobody reads of a skip.
    """

    @functools.wraps(test)
    def in_a_place_for_it(**fixtures):
        folder = fixtures["tmp_path"] / "probe"
        folder.mkdir()
        if mounting_is_allowed((), folder):
            return test(**fixtures)
        for way in (("unshare", "-Urm"), ("sudo", "-n", "-E", "unshare", "-m")):
            if mounting_is_allowed(way, folder):
                node = os.environ["PYTEST_CURRENT_TEST"].rpartition(" ")[0]
                options = ["-q", "-p", "no:cacheprovider", "-W", "ignore", f"--basetemp={folder}"]
                command = [*way, sys.executable, "-m", "pytest", *options, node]
                done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
                assert done.returncode == 0 and "1 passed" in done.stdout, done.stdout + done.stderr
                return None
        sentence = "mounting is not allowed here, nor in a namespace by unshare or sudo"
        if os.environ.get("CI") and sys.platform == "linux":
            pytest.fail(sentence)
        pytest.skip(sentence)

    return in_a_place_for_it


@pytest.fixture
def mount(tmp_path):
    """(options of mount) -> a folder of the test's own with something mounted on it."""
    folders = []

    def mounted(*options):
        folder = tmp_path / f"mounted{len(folders)}"
        folder.mkdir()
        subprocess.run(["mount", *options, str(folder)], check=True)
        folders.append(folder)
        return folder

    yield mounted
    for folder in folders:
        subprocess.run(["umount", str(folder)], check=True)


@POSIX
@pytest.mark.slow
def test_killed_at_random_moments_a_run_and_a_download_lose_nothing(tmp_path, pytestconfig):
    kills = pytestconfig.getoption("--kills")
    deaths = faults.campaign(kills, tmp_path)
    assert deaths.total() >= 0.75 * kills, "too few died for this to say anything"


# No room, no right


@POSIX
@mounts
def test_a_full_disk_costs_nothing_but_the_steps_since_the_checkpoint(
    tiny, straight, tmp_path, mount, monkeypatch, capsys
):
    disk = mount("-t", "tmpfs", "-o", "size=512k", "none")
    command = broken_off(tiny, disk / "run", monkeypatch)
    before = contents(disk / "run")
    room = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
    (disk / "filler").write_bytes(bytes(room))
    capsys.readouterr()
    assert main(command) == 2
    said = capsys.readouterr().err
    assert "could not be written (No space left on device)" in said and "Make room" in said
    assert contents(disk / "run") == before
    (disk / "filler").unlink()
    assert main(command) == 0
    assert same_files(straight, disk / "run") and {path.name for path in (disk / "run").iterdir()} == LEFT


@POSIX
def test_a_file_above_the_allowed_size_is_as_a_full_disk(tiny, tmp_path, monkeypatch):
    command = broken_off(tiny, tmp_path / "run", monkeypatch)
    before = contents(tmp_path / "run")
    program = (
        "import resource, sys; from diffusion_edu.cli import main; "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000)); sys.exit(main(sys.argv[1:]))"
    )
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", program, *command], capture_output=True, text=True)
    assert done.returncode == 2 and "could not be written (File too large)" in done.stderr, done.stderr
    assert contents(tmp_path / "run") == before


@POSIX
@mounts
def test_a_folder_that_cannot_be_written_gets_a_sentence(tiny, tmp_path, mount, monkeypatch, capsys):
    command = broken_off(tiny, tmp_path / "run", monkeypatch)
    shown = mount("--bind", str(tmp_path / "run"))
    subprocess.run(["mount", "-o", "remount,ro,bind", str(shown)], check=True)
    before = contents(tmp_path / "run")
    capsys.readouterr()
    assert main([*command[:-1], str(shown)]) == 2
    assert "could not be written (Read-only file system)" in capsys.readouterr().err
    assert contents(tmp_path / "run") == before


def test_a_folder_inside_a_file_gets_a_sentence(tiny, tmp_path, capsys):
    (tmp_path / "file").write_bytes(b"kept")
    assert main(["train", tiny, "--folder", str(tmp_path / "file" / "run")]) == 2
    assert "could not be made or read (Not a directory)" in capsys.readouterr().err
    assert (tmp_path / "file").read_bytes() == b"kept"


# Two runs, damage, and the clock


@POSIX
def test_a_second_run_in_one_folder_is_refused_while_the_first_is_alive_and_goes_on_when_it_is_dead(tmp_path, capsys):
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(faults.PRELOAD)
    path, folder = tmp_path / "long.toml", tmp_path / "run"
    path.write_text(faults.RECIPE.replace(f"steps = {faults.STEPS}", "steps = 1000"))
    command = ["train", str(path), "--folder", str(folder)]
    first = context.Process(target=faults.train, args=(command, str(tmp_path / "stderr"), None, None))
    first.start()
    while first.is_alive() and not faults.checkpoint(folder):
        time.sleep(0.01)
    assert main(command) == 2
    assert f"another process is at work in {folder}" in capsys.readouterr().err
    first.kill()
    first.join()
    shorter = path.read_text().replace("steps = 1000", f"steps = {faults.checkpoint(folder) + 5}")
    path.write_text(shorter)
    (folder / "recipe.toml").write_text(shorter)
    assert main(command) == 0


def test_a_checkpoint_cut_at_any_of_200_lengths_is_refused_and_nothing_is_changed(tmp_path):
    trainer = moons_trainer(4, tmp_path).run()
    path = tmp_path / "checkpoint.safetensors"
    raw = path.read_bytes()
    other = moons_trainer(4, seed=1)
    before = [value.clone() for value in other.model.state_dict().values()]
    for k in range(200):
        path.write_bytes(raw[: k * len(raw) // 200])
        with pytest.raises(ValueError, match=r"checkpoint\.safetensors is not a whole safetensors file"):
            other.resume(tmp_path)
    assert other.step == 0
    assert all(torch.equal(a, b) for a, b in zip(before, other.model.state_dict().values(), strict=True))
    path.write_bytes(raw)
    assert other.resume(tmp_path).step == trainer.step == 4


def test_damaged_files_of_a_run_and_of_its_data_end_it_with_a_sentence_and_stay_as_they_are(
    tiny, tmp_path, monkeypatch, capsys
):
    command = broken_off(tiny, tmp_path / "run", monkeypatch)
    path = tmp_path / "run" / "checkpoint.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    before = contents(tmp_path / "run")
    assert main(command) == 2
    assert "is not a whole safetensors file" in capsys.readouterr().err
    assert contents(tmp_path / "run") == before

    for name in ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"):
        (tmp_path / name).write_bytes(b"\0\0\x08\x01\0\0\0\x02\0")
    flags = ["--data.folder", str(tmp_path), "--folder", str(tmp_path / "another")]
    (tmp_path / "mnist.toml").write_text('[data]\nset = "mnist"\n')
    assert main(["train", str(tmp_path / "mnist.toml"), *flags]) == 2
    assert "announces 2 numbers and holds 1; it is damaged" in capsys.readouterr().err
    assert not (tmp_path / "another").exists()


@pytest.mark.parametrize(
    ("hour", "written"),
    [(-3600, 2**32), (3600, 2**32), (3600, 0), (10**9, 0)],  # the files are from the year 2106, or 1970
)
def test_a_clock_that_jumps_changes_no_number(hour, written, tiny, straight, tmp_path, monkeypatch):
    command = broken_off(tiny, tmp_path / "run", monkeypatch)
    for path in (tmp_path / "run").iterdir():
        os.utime(path, (written, written))
    now = [time.time()]

    def jumps():
        now[0] += hour
        return now[0]

    monkeypatch.setattr(time, "time", jumps)
    assert main(command) == 0
    assert same_files(straight, tmp_path / "run")
