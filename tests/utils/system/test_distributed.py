"""Two processes (gloo, on the CPU) against one: the same numbers, files written once, ends without a hang."""

import copy
import json
import os
import signal
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import eval as evaluation_script
import main
from models import build_model
from tests import distributed_worker as worker
from tests.golden_model import pictures
from tests.gradients import backward_losses
from tests.test_cli import error_line
from tests.tiny import SMALL_RUN, data_flags
from utils.evaluation.segmentation import evaluate_segmentation
from utils.options.parsers import eval_parser
from utils.retrieval.embedding import embed_images
from utils.runs.checkpoints import load_checkpoint
from utils.system import distributed
from utils.system.compute import resolve_device
from utils.system.distributed import _Processes
from utils.system.interrupts import Interrupts, StopRequested, stop_if_requested
from utils.training.settings import TrainingSettings, check_batches_divide

ROOT = Path(__file__).parents[3]


ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def two_processes(folder: Path, *command: str) -> tuple[list[int], list[str], list[str]]:
    """Status, stdout and stderr of each of two processes, started with what torchrun sets; a hang ends in TimeoutExpired."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        shared = {"MASTER_ADDR": "localhost", "MASTER_PORT": str(free.getsockname()[1])}
    shared |= {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    processes = [
        subprocess.Popen(
            [sys.executable, *command],
            cwd=folder,
            env={**ENVIRONMENT, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    with ThreadPoolExecutor(2) as pool:
        said = list(pool.map(lambda process: process.communicate(timeout=300), processes))
    return [process.returncode for process in processes], *map(list, zip(*said))


@pytest.fixture(scope="module")
def pair(tiny_root, trained_run, tmp_path_factory) -> tuple[Path, list[dict]]:
    """The folder where two processes worked, and what each of them found."""
    folder = tmp_path_factory.mktemp("pair")
    words = "-m", "tests.distributed_worker", "together", str(folder), str(tiny_root), str(trained_run)
    statuses, out, err = two_processes(folder, *words)
    (folder / "stdout").write_text("".join(out))
    (folder / "stderr").write_text("".join(err))
    assert all((folder / f"rank{rank}.pt").exists() for rank in range(2)), err
    found = [torch.load(folder / f"rank{rank}.pt") for rank in range(2)]
    assert all(f["statuses"] == [0, 0, 0, 0] for f in found)
    return folder, [{**f, "status": status} for f, status in zip(found, statuses)]


@pytest.fixture
def threads(pair):
    """As many threads here as each of the two had, so that results may be compared bit for bit."""
    before = torch.get_num_threads()
    torch.set_num_threads(pair[1][0]["threads"])
    yield
    torch.set_num_threads(before)


# -- the step ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", worker.METHODS)
def test_averaged_gradients_are_those_of_one_process(pair, method):
    model = worker.small_model().eval()
    losses = backward_losses(model, **worker.whole_batch(), num_queries=2, settings=worker.METHODS[method])
    expected = worker.gradients(model)
    assert len(expected) > 30
    for found in (f[method] for f in pair[1]):
        assert found["gradients"].keys() == expected.keys() and found["losses"].keys() == losses.keys()
        for name, gradient in expected.items():
            scale = float(gradient.abs().max())  # that of attention is nothing but rounding, see docs/protocol.md
            torch.testing.assert_close(
                found["gradients"][name], gradient, rtol=1e-9, atol=1e-11 * scale + 1e-15, msg=name
            )
        for name, loss in losses.items():
            torch.testing.assert_close(found["losses"][name], loss, rtol=1e-9, atol=0, msg=name)
    own = [f[method]["own losses"] for f in pair[1]]
    assert float(own[0]["triplet"]) == 0 < float(own[1]["triplet"])
    counts = [int((worker.batch_of(rank)["labels"] != 255).sum()) for rank in range(2)]
    assert 0 < 2 * counts[0] < counts[1]  # unequal, so that a mean of means would differ


def test_both_processes_stay_in_one_state_and_see_the_same_bad_step(pair):
    first, second = (f["steps"] for f in pair[1])
    assert first["said"] == second["said"] and "loss is not finite at epoch 1, refresh 1, step 3" in first["said"]
    for one, other in zip(first["states"][:2], second["states"]):
        assert all(torch.equal(value, other[name]) for name, value in one.items())
    before, after, _ = first["states"]
    for changed in ("encoder.conv1.weight", "encoder.bn1.running_mean", "discriminator.convs.0.weight"):
        assert not torch.equal(after[changed], before[changed])


# -- embedding and evaluation --------------------------------------------------------------------------------------


def test_descriptors_and_confusions_are_those_of_one_process(pair, tiny_root, trained_run, threads):
    model = load_checkpoint(trained_run / "best.pth").build()
    expected = embed_images(model, worker.image_list(tiny_root), options=worker.OPTIONS)
    first, second = pair[1]
    assert len(expected) == 7 and np.array_equal(first["descriptors"].numpy(), expected)
    assert len(second["descriptors"]) == 0
    confusion = evaluate_segmentation(model, worker.labelled_list(tiny_root), worker.OPTIONS).matrix
    assert confusion.sum() and all(np.array_equal(f["confusion"].numpy(), confusion) for f in pair[1])


def test_two_processes_fill_one_store_and_use_it(pair, tiny_root, trained_run, threads, tmp_path):
    """They embed together, the first writes, searches and scores; a second run takes what the first one kept."""
    flags = [*worker.evaluation_flags(tiny_root, trained_run), *worker.INDEXED[2:], "--store", str(tmp_path / "store")]
    assert evaluation_script.main([*flags, "--output_dir", str(tmp_path / "out")]) == 0
    stores = (pair[0] / "store", tmp_path / "store")
    kept, expected = ({f.parent.name: f.read_bytes() for f in s.glob("*/rows-*")} for s in stores)
    assert expected and kept == expected
    lists = [[f.read_text().splitlines()[1:] for f in s.glob("*/images.txt")] for s in stores]  # after the rows' file
    assert lists[0] == lists[1] and len(lists[0][0]) == 36
    assert [len(list(s.glob("*/*/index-*.faiss"))) for s in stores] == [2, 2]
    predictions = [
        folder / "predictions/night.csv" for folder in (tmp_path / "out", *map(pair[0].joinpath, worker.TWICE))
    ]
    first, *others = (file.read_text() for file in predictions)
    assert [first, first] == others
    log = (pair[0] / worker.TWICE[1] / "log.txt").read_text()
    assert "are kept in" not in log and log.count("are taken from") == 4


def test_an_evaluation_writes_what_one_process_writes(pair, tiny_root, trained_run, threads, tmp_path):
    flags = [*worker.evaluation_flags(tiny_root, trained_run), "--output_dir", str(tmp_path), "--save_descriptors"]
    assert evaluation_script.main(flags) == 0
    ours = pair[0] / "evaluated"
    files = sorted(str(file.relative_to(tmp_path)) for file in tmp_path.rglob("*") if file.is_file())
    assert files == sorted(str(file.relative_to(ours)) for file in ours.rglob("*") if file.is_file())
    written = [json.loads((folder / "results.json").read_text()) for folder in (ours, tmp_path)]
    for content in written:
        del content["flags"]["output_dir"]
        del content["uncommitted_changes"]  # the checkout may be edited while the tests run
    assert written[0] == written[1]
    for name in files:
        if name.endswith(".csv"):
            assert (ours / name).read_text() == (tmp_path / name).read_text()
        if name.endswith(".npz"):
            with np.load(ours / name) as one, np.load(tmp_path / name) as other:
                assert all(np.array_equal(one[key], other[key]) for key in other)


# -- whole runs ----------------------------------------------------------------------------------------------------


def test_two_processes_go_on_where_one_stopped_and_write_once(pair, trained_run):
    folder, found = pair
    assert all(torch.equal(value, found[1]["trained"][name]) for name, value in found[0]["trained"].items())
    (run,) = (folder / "runs/longer").iterdir()
    names = {file.name for file in run.iterdir()}
    assert names == {file.name for file in trained_run.iterdir()}
    before, after = load_checkpoint(trained_run / "last.pth"), load_checkpoint(run / "last.pth")
    assert after.training["run"]["history"][:2] == before.training["run"]["history"]
    assert after.training["run"]["epoch"] == 3 and after.training["run"].keys() == before.training["run"].keys()
    assert after.training["record"]["arguments"].keys() == before.training["record"]["arguments"].keys()
    best = load_checkpoint(run / "best.pth").state_dict
    assert all(torch.equal(value, best[name]) for name, value in found[0]["trained"].items())
    assert (folder / "stdout").read_text().count("epoch 3/3") == 1
    log = (run / "log.txt").read_text()
    assert log.count("epoch 3/3") == 1 and "2 processes share the run" in log


def test_a_stopped_run_of_two_processes_is_finished_by_one(tiny_root, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    flags = [*data_flags(tiny_root), *SMALL_RUN]
    launcher = [sys.executable, *"-m torch.distributed.run --standalone --nproc_per_node 2".split()]
    command = [*launcher, "-m", "tests.distributed_worker", "interrupted", *flags, "--num_workers", "1"]
    outcome = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=300)
    assert outcome.returncode and ": error: " not in outcome.stderr, outcome.stderr[-3000:]
    (folder,) = (tmp_path / "runs/default").iterdir()
    assert outcome.stderr.count("stopped by SIGTERM: saved at epoch 1, refresh 2, step 1") == 1
    saved = load_checkpoint(folder / "last.pth").training
    assert (
        saved["run"]["step"] == 1
        and saved["optimizers"]["schedules"][0]["last_epoch"] == 3
        and len(saved["run"]["triplets"]["queries"])
    )
    assert main.main([*flags, "--resume", "auto"]) == 0
    done = load_checkpoint(folder / "last.pth").training
    assert (
        done["run"]["epoch"] == 2
        and done["optimizers"]["schedules"][0]["last_epoch"] == 8
        and (folder / "results.json").exists()
    )


def test_a_process_that_fails_ends_the_run_with_its_message(pair):
    folder, found = pair
    lines = [line for line in (folder / "stderr").read_text().splitlines() if ": error: " in line]
    assert [f["status"] for f in found] == [1, 2] and len(lines) == 2
    assert lines[0].startswith(
        "eval.py: rank 0: error: another process of this run failed or left, and may have said why ("
    )
    assert lines[1].startswith("eval.py: rank 1: error: ") and worker.BAD in lines[1]
    assert not (folder / "failed/results.json").exists()


def test_an_error_of_the_first_process_before_the_run_hangs_nobody(tiny_root, tmp_path):
    command = [str(ROOT / "main.py"), *data_flags(tiny_root), *SMALL_RUN, "--batch_size", "3"]
    statuses, _, (first, second) = two_processes(tmp_path, *command)
    assert statuses == [2, 1]
    assert "main.py: rank 0: error: --batch_size 3 does not divide among 2" in first
    assert "main.py: rank 1: error: another process" in second


# -- without a second process --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "size, refresh, queries, processes, said",
    [
        (4, 8, 100, 2, None),
        (4, 10, 100, 2, None),
        (3, 9, 100, 2, r"--batch_size 3 does not divide among 2 processes: give a multiple of 2"),
        (
            4,
            9,
            100,
            2,
            r"--cache_refresh_rate 9: the last batch of 9 queries has 1 triplets.*multiple of --batch_size 4",
        ),
        (2, 1000, 999, 2, r"--cache_refresh_rate 1000: the last batch of 999 queries has 1 triplets.*at most 999"),
        (3, 10, 100, 1, None),
    ],
)
def test_batches_that_cannot_be_shared_are_refused(size, refresh, queries, processes, said):
    settings = TrainingSettings(batch_size=size, cache_refresh_rate=refresh, queries_per_epoch=refresh)
    if said is None:
        check_batches_divide(settings, queries, processes)
    else:
        with pytest.raises(ValueError, match=said):
            check_batches_divide(settings, queries, processes)


@given(st.integers(0, 200), st.integers(1, 30), st.integers(1, 9))
def test_shares_are_consecutive_whole_blocks_of_about_equal_size(total, block, world):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(distributed, "_processes", _Processes(0, world))
        shares = [distributed.share(total, block, rank) for rank in range(world)]
    assert [i for share in shares for i in share] == list(range(total))
    assert all(share.start % block == 0 for share in shares if len(share))
    assert max(map(len, shares)) - min(map(len, shares)) < 2 * block


def test_one_process_is_left_as_it_is():
    rows, tensor = np.arange(6.0).reshape(3, 2), torch.ones(3)
    with distributed.started(torch.device("cpu")):
        assert distributed.gather_rows(rows, 3) is rows and distributed.own_part((1, 2, 3)) == (1, 2, 3)
        distributed.sum_tensors([tensor])
        distributed.average_tensors([tensor])
        assert torch.equal(tensor, torch.ones(3)) and distributed.from_first(lambda: rows) is rows
    assert not torch.distributed.is_initialized()


def test_only_the_first_process_heeds_signals_and_torchrun_repeats_them():
    with Interrupts(decides=False, repeated=True) as interrupts:
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGTERM)
            stop_if_requested()
        assert interrupts.requested == signal.SIGTERM
    with pytest.raises(StopRequested), Interrupts(repeated=True):
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGTERM)
        stop_if_requested()


def launched_as(monkeypatch, rank: int, world: int = 4) -> None:
    for name, value in {"RANK": rank, "WORLD_SIZE": world, "LOCAL_RANK": rank, "MASTER_ADDR": "localhost"}.items():
        monkeypatch.setenv(name, str(value))


def test_each_process_has_a_gpu_of_its_own(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    launched_as(monkeypatch, 1)
    assert resolve_device("auto") == resolve_device("cuda") == torch.device("cuda", 1)
    assert resolve_device("cpu") == torch.device("cpu")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "3")
    with pytest.raises(ValueError, match=r"2 CUDA devices for 3 processes.*--nproc_per_node"):
        resolve_device("cuda")
    with pytest.raises(ValueError, match="mps: for one process only"):
        resolve_device("mps")


def test_wrong_flags_are_named_once(monkeypatch, capsys):
    for rank, lines in ((0, True), (1, False)):
        launched_as(monkeypatch, rank)
        with pytest.raises(SystemExit):
            eval_parser().parse_args(["--nonsense"])
        assert bool(capsys.readouterr().err) == lines


def test_synchronised_bn_needs_several_gpus(tiny_root, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert "--sync_bn" in error_line(capsys, main.main([*data_flags(tiny_root), *SMALL_RUN, "--sync_bn"]))


def test_embedding_folds_synchronised_bn():
    torch.manual_seed(0)
    model = build_model("resnet18").eval()
    images = pictures("sync_bn", 2, 97, 104)
    twin = torch.nn.SyncBatchNorm.convert_sync_batchnorm(copy.deepcopy(model)).for_embedding()
    assert not any(isinstance(module, torch.nn.SyncBatchNorm) for module in twin.encoder.modules())
    with torch.inference_mode():
        torch.testing.assert_close(twin.embed(images), model.embed(images), rtol=1e-4, atol=1e-5)


def test_photos_are_looked_up_by_one_process(monkeypatch, capsys):
    launched_as(monkeypatch, 0)
    status = evaluation_script.main(["--resume", "x.pth", "--localize", "photo.png", "--gallery", "dir"])
    assert "--localize: for one process only" in error_line(capsys, status)
