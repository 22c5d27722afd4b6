"""The log's files: names, what counts, whole or not at all; writer, lookup and upkeep over them."""

from __future__ import annotations

import os
import random
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import fs

from spark_llm import cli
from spark_llm.errors import LlmError
from spark_llm.result_log import files, upkeep, writer
from spark_llm.result_log.batches import make_batch, read_batch, to_bytes
from spark_llm.result_log.files import LogFile, list_folder, open_log
from spark_llm.result_log.lookup import read_lookup
from spark_llm.result_log.writer import BATCH_ANSWERS, AnswerWriter

LOCAL = fs.LocalFileSystem()
GONE = 2 * files.GRACE_SECONDS


def key(number: int) -> bytes:
    return random.Random(number).randbytes(32)


def write(folder: Path, numbers, partition: int = 0) -> None:
    log = AnswerWriter(LOCAL, str(folder), partition, "llm on m")
    for number in numbers:
        log.add(key(number), f"answer {number}")
    log.close()


def found(folder: Path, numbers) -> list[str | None]:
    lookup, _ = read_lookup(LOCAL, list_folder(LOCAL, str(folder)).current)
    return lookup.find([key(number) for number in numbers]).to_pylist()


def age(folder: Path, seconds: float) -> None:
    for file in folder.rglob("*"):
        os.utime(file, (time.time() - seconds,) * 2)


@given(st.tuples(*[st.integers(0, 10**6)] * 5))
def test_names_are_read_back(numbers):
    partition, first, more, answers, size = numbers
    file = LogFile(partition, "0123456789abcdef", first, first + more, answers, size)
    assert LogFile.parse(file.name) == file
    assert LogFile.parse(file.name + ".tmp") is None


def test_every_answer_is_found_and_no_other(tmp_path):
    write(tmp_path / "c", range(1000))
    assert found(tmp_path / "c", [5, 999, 1000, 0, 5]) == ["answer 5", "answer 999", None, "answer 0", "answer 5"]


def test_no_file_holds_more_than_a_batch_until_they_are_merged(tmp_path):
    write(tmp_path / "c", range(1000))
    listing = list_folder(LOCAL, str(tmp_path / "c"))
    assert max(entry.file.answers for entry in listing.replaced) <= 256
    assert [entry.file.answers for entry in listing.current] == [1000]
    assert sum(entry.file.answers for entry in listing.replaced) == 1000


def test_answers_are_durable_before_the_task_ends(tmp_path, monkeypatch):
    monkeypatch.setattr(writer, "BATCH_SECONDS", 0.05)
    log = AnswerWriter(LOCAL, str(tmp_path / "c"), 0, "")
    log.add(key(1), "one")
    deadline = time.monotonic() + 30
    while found(tmp_path / "c", [1]) != ["one"]:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    log.close()


def test_a_slow_storage_holds_the_task_back(tmp_path, monkeypatch):
    gate = threading.Event()
    put = writer.put
    monkeypatch.setattr(writer, "put", lambda *args: (gate.wait(30), put(*args)))
    log = AnswerWriter(LOCAL, str(tmp_path / "c"), 0, "")
    added = []

    def fill():
        for number in range(1000):
            log.add(key(number), "x")
            added.append(number)

    task = threading.Thread(target=fill)
    task.start()
    while len(added) < BATCH_ANSWERS:
        time.sleep(0.001)
    task.join(0.2)
    assert len(added) == BATCH_ANSWERS == 256
    gate.set()
    task.join()
    log.close()
    assert found(tmp_path / "c", range(1000)) == ["x"] * 1000


def test_a_full_disk_costs_the_log_and_not_the_task(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(writer, "PAUSE_SECONDS", 0)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(writer, "put", full)
    write(tmp_path / "c", range(1000))
    assert "LLM_RESULT_LOG" in capsys.readouterr().err


def test_a_write_that_fails_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(files.os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "full")))
    with pytest.raises(OSError, match="full"):
        files.put(LOCAL, str(tmp_path / "c" / "x.parquet"), b"data")
    assert list((tmp_path / "c").iterdir()) == []


def test_torn_and_unfinished_files_are_ignored_and_counted(tmp_path, capsys):
    folder = tmp_path / "log" / "c"
    write(folder, range(100))
    write(folder, range(100, 200))
    torn, _ = sorted(folder.glob("*.parquet"))
    torn.write_bytes(torn.read_bytes()[:-7])
    (folder / "p0-x.parquet.tmp").write_bytes(b"half")
    listing = list_folder(LOCAL, str(folder))
    assert (len(listing.current), len(listing.torn), len(listing.unfinished)) == (1, 1, 1)
    assert sum(answer is not None for answer in found(folder, range(200))) == 100
    assert cli.main(["log", str(tmp_path / "log")]) == 0
    assert "1 calls, 100 answers" in capsys.readouterr().out


def test_a_damaged_file_of_the_right_length_is_not_believed(tmp_path):
    folder = tmp_path / "c"
    write(folder, range(100))
    [file] = folder.glob("*.parquet")
    file.write_bytes(bytes(file.stat().st_size))
    lookup, unreadable = read_lookup(LOCAL, list_folder(LOCAL, str(folder)).current)
    assert (lookup.answers, unreadable) == (0, 1)


def test_writers_at_once_do_not_harm_one_another(tmp_path):
    folder = tmp_path / "c"
    parts = [range(i * 300, i * 300 + 400) for i in range(8)]
    threads = [threading.Thread(target=write, args=(folder, part, i)) for i, part in enumerate(parts)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found(folder, range(2500)) == [f"answer {i}" for i in range(2500)]


def test_replaced_files_stay_for_those_who_listed_them(tmp_path):
    folder = tmp_path / "c"
    write(folder, range(1000))
    before = list_folder(LOCAL, str(folder))
    assert before.replaced
    files.remove_replaced(LOCAL, before)
    assert list_folder(LOCAL, str(folder)) == before
    age(folder, GONE)
    files.remove_replaced(LOCAL, list_folder(LOCAL, str(folder)))
    assert list_folder(LOCAL, str(folder)).replaced == ()
    assert found(folder, range(1000)) == [f"answer {i}" for i in range(1000)]


def test_compaction_keeps_each_answer_once_and_young_files(tmp_path):
    folder = tmp_path / "log" / "c"
    for start in (0, 100, 50):
        write(folder, range(start, start + 100))
    age(folder, GONE)
    write(folder, range(500, 600))
    assert upkeep.compact(LOCAL, str(tmp_path / "log")) == (4, 2)
    listing = list_folder(LOCAL, str(folder))
    assert sorted(entry.file.answers for entry in listing.current) == [100, 200]
    assert found(folder, range(200)) == [f"answer {i}" for i in range(200)]


def test_expiry_removes_old_answers_only_and_nothing_comes_back(tmp_path, capsys):
    folder = tmp_path / "log" / "c"
    rows = [(key(i), f"answer {i}") for i in range(2)]
    old, new = (make_batch([row], time.time() - days * 86400) for row, days in zip(rows, (40, 1), strict=True))
    write(folder, range(10, 400))
    for table, name in ((old, "0" * 16), (new, "1" * 16)):
        data = to_bytes(table, "llm on m")
        files.put(LOCAL, f"{folder}/{LogFile(0, name, 0, 0, 1, data.size).name}", data)
    assert cli.main(["log", str(tmp_path / "log"), "--expire", "30d"]) == 0
    assert "removed 1 answers" in capsys.readouterr().out
    assert found(folder, [0, 1]) == [None, "answer 1"]
    assert upkeep.expire(LOCAL, str(tmp_path / "log"), -10) == 391
    assert found(folder, range(400)) == [None] * 400


def test_files_are_plain_parquet_with_the_time_of_writing(tmp_path):
    write(tmp_path / "c", [1])
    [file] = (tmp_path / "c").glob("*.parquet")
    [row] = read_batch(LOCAL, str(file)).to_pylist()
    assert row.keys() == {"identity", "answer", "written"}
    assert time.time() - row["written"] < 3600


@pytest.fixture(params=["subtree", "fsspec"])
def storage(request, tmp_path):
    """File systems without our rename: objects are put as they are written. Clouds cannot be reached from here."""
    if request.param == "subtree":
        return fs.SubTreeFileSystem(str(tmp_path), LOCAL)
    memory = pytest.importorskip("fsspec.implementations.memory").MemoryFileSystem
    memory.store.clear()
    memory.pseudo_dirs[:] = [""]
    return fs.PyFileSystem(fs.FSSpecHandler(memory()))


def test_storages_that_cannot_rename(storage):
    logs = [AnswerWriter(storage, "log/c", partition, "llm on m") for partition in range(2)]
    for number in range(1000):
        logs[number % 2].add(key(number), f"answer {number}")
    for log in logs:
        log.close()
    wanted = [key(number) for number in range(1001)]

    def check() -> None:
        listing = list_folder(storage, "log/c")
        assert (listing.torn, listing.unfinished) == ((), ())
        assert read_lookup(storage, listing.current)[0].find(wanted).to_pylist() == [
            *(f"answer {number}" for number in range(1000)),
            None,
        ]

    check()
    upkeep.compact(storage, "log", grace=-60)
    assert len(list_folder(storage, "log/c").current) == 1
    check()
    assert [call.answers for call in upkeep.summarize(storage, "log")] == [1000]
    assert upkeep.expire(storage, "log", -60) == 1000


def test_a_file_that_is_seen_while_it_is_written_is_torn_until_it_is_whole(storage):
    data = to_bytes(make_batch([(key(1), "one")], time.time()), "llm on m")
    storage.create_dir("log/c")
    path = f"log/c/{LogFile(0, '0' * 16, 0, 0, 1, data.size).name}"
    for size, torn in ((data.size // 2, 1), (data.size, 0)):
        with storage.open_output_stream(path) as stream:
            stream.write(data[:size])
        listing = list_folder(storage, "log/c")
        assert (len(listing.torn), len(listing.current)) == (torn, 1 - torn)


@pytest.mark.parametrize("path", ["relative/path", "ftp://host/x", "s3://key:secret@bucket/x"])
def test_a_path_of_no_file_system_is_refused_without_its_secrets(path):
    with pytest.raises(LlmError, match="LLM_BAD_CONF") as error:
        open_log(path)
    assert "secret" not in str(error.value)


@pytest.mark.parametrize(
    "path", ["/x/y", "file:///x/y", "s3://bucket/x?region=eu-west-1", "s3a://bucket/x?region=eu-west-1"]
)
def test_paths_of_hadoop_and_arrow(path):
    system, root = open_log(path)
    assert (system.type_name, root) == (("s3", "bucket/x") if path.startswith("s3") else ("local", "/x/y"))
