"""A million mutated inputs: records, files, archives, manifests, good text and models of `corpus quality`. Each is read
or refused by name, and no neighbour is hurt.

Seeded mutations of real shapes (FUZZ_SEED), checked against slow and simple readings of the same bytes: Python's own
`json`, a split at newlines. `make test` runs a short one, `make soak` a million inputs.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import lzma
import os
import random
import tarfile
import time
import traceback
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from corpus.pipeline import manifest as manifests
from corpus.pipeline.errors import ArchiveError, ManifestError, SourceError
from corpus.pipeline.manifest import CORPORA, Manifest, Shape
from corpus.pipeline.quality import model_file
from corpus.pipeline.quality.sample import read_texts
from corpus.pipeline.quality.scoring import Weights, scores_of
from corpus.pipeline.read.discover import list_files
from corpus.pipeline.read.parse import SHAPE_REASONS, parser
from corpus.pipeline.read.pieces import cut
from corpus.pipeline.read.records import read
from corpus.pipeline.read.spans import Parsed, ReadSizes, RecordFile, Span
from corpus.pipeline.templates import composer, parts_of
from corpus.pipeline.workspace.layout import Workspace
from corpus.pipeline.workspace.ledger import Ledger, write_ledger
from tests.support.documents import TRAIN
from tests.support.mutations import (
    RECORDS,
    TEXT,
    TITLE,
    byte_change,
    mutated_file,
    mutated_items,
    mutated_manifest,
    mutated_model,
    mutated_records,
)
from tests.support.records import baike, lines
from tests.support.scored import random_model

SEED = int(os.environ.get("FUZZ_SEED", "1"))


# --- what came of it -----------------------------------------------------------------------------------------------


class Outcomes(Counter[str]):
    """How often inputs ended how, and one input for each place in the code where one crashed."""

    def __init__(self, seed: object) -> None:
        super().__init__()
        self.seed = seed
        self.crashes: dict[str, str] = {}

    @contextlib.contextmanager
    def trying(self, given: object) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # noqa: BLE001  # any at all is what is looked for
            self["crash"] += 1
            steps = traceback.extract_tb(error.__traceback__)
            place = " < ".join(f"{Path(step.filename).name}:{step.lineno}" for step in reversed(steps))
            shown = repr(given)
            note = f"{type(error).__name__}: {error}; seed {self.seed}; given {shown[:1500]}"
            self.crashes.setdefault(f"{type(error).__name__} at {place}", note)

    def check(self) -> None:
        text = "\n".join(f"{place}\n    {note}" for place, note in self.crashes.items())
        assert not self.crashes, f"{self['crash']:,} of {self.total():,} inputs crashed:\n{text}"


# --- what must hold ------------------------------------------------------------------------------------------------


def check_record(
    raw: bytes, shape: Shape, parse: Callable[..., Parsed], compose: Callable[..., tuple[str, int]]
) -> str:
    """One record comes out once, read faithfully or with its reason; returns the reason, "" when it was read."""
    parsed = parse([(7, raw)])
    assert len(parsed.offsets) + len(parsed.rejects) == 1
    if parsed.rejects:
        (reject,) = parsed.rejects
        assert reject.reason in SHAPE_REASONS
        assert (reject.offset, reject.raw) == (7, raw)
        reject.detail.encode()
        assert [parsed.names, parsed.texts, parsed.metas, parsed.raws] == [[], [], [], []]
        return reject.reason
    assert parsed.raws == [raw]
    pairs: list[list[tuple[str, Any]]] = []

    def keep(found: list[tuple[str, Any]]) -> dict[str, Any]:
        pairs.append(found)
        return dict(found)

    record = json.loads(raw.decode("utf-8"), object_pairs_hook=keep)
    keys = [key for key, _ in pairs[-1]]
    assert all(keys.count(name) == 1 for name in shape.fields if name in record), "a key that stands twice was read"
    parts = parts_of(shape)
    assert parsed.texts == [record.get(part) or "" for part in parts]
    assert parsed.names == ["-".join(str(record[name]) for name in shape.id_fields)]
    meta = json.loads(parsed.metas[0])
    assert set(meta) == set(record) - set(parts)
    text, prompt_length = compose(parsed.texts)
    assert 0 <= prompt_length <= len(text)
    text.encode()
    parsed.names[0].encode()
    return ""


def run_records(count: int, seed: int) -> Outcomes:
    outcomes = Outcomes(seed)
    for dataset in CORPORA:
        shape = manifests.load(dataset).shapes[dataset]
        parse, compose = parser(shape), composer(shape)
        inputs = mutated_records(random.Random(f"{seed}-{dataset}"), dataset)
        for _ in range(count // len(CORPORA)):
            raw = next(inputs)
            with outcomes.trying((dataset, raw)):
                outcomes[check_record(raw, shape, parse, compose) or "read"] += 1
    return outcomes


def naive(data: bytes, layout: str) -> list[tuple[int, bytes]]:
    """The records of a file and where they begin, by the definition."""
    delimiter = b"\n"
    if layout == "text":
        delimiter = b"\r\n\r\n" if b"\r\n" in data[: 1 << 16] else b"\n\n"
    found, offset = [], 0
    for piece in data.split(delimiter):
        record = piece.removeprefix(b"\xef\xbb\xbf") if offset == 0 else piece
        if record.strip():
            found.append((offset, record))
        offset += len(piece) + len(delimiter)
    return found


def check_cuts(chance: random.Random, path: Path, data: bytes, sizes: ReadSizes) -> int:
    """Wherever a file is cut, and however small the buffers are, its records come out once, whole and in order."""
    layout, codec = chance.choice(("lines", "text")), chance.choice(("plain", "gz"))
    path.write_bytes(gzip.compress(data, 1) if codec == "gz" else data)
    file = RecordFile(
        container=path.name, codec=codec, path=path.name, tail=path.name, split="train", shape="baike2018qa",
        layout=layout, bytes=len(data) if codec == "plain" else None,
    )  # fmt: skip
    spans = [Span(file, 0, None)]
    step = chance.randrange(1, len(data) + 2) if chance.random() < 0.1 else len(data) // chance.randrange(1, 6) + 1
    if codec == "gz":
        pieces = list(cut(path.parent, [file], step, sizes=sizes))
        assert [piece.number for piece in pieces] == list(range(-(-max(1, len(data)) // step)))
        spans = [span for piece in pieces for span in piece.spans]
    elif layout == "lines" and data:
        spans = [Span(file, start, start + step) for start in range(0, len(data), step)]
    got: list[tuple[int, bytes, bool]] = []
    for span in spans:
        for records, rejects in read(path.parent, span, sizes=sizes):
            assert records or rejects
            begins = [offset for offset, _ in records] + [reject.offset for reject in rejects]
            assert span.start <= min(begins)
            assert span.end is None or max(begins) < span.end
            got += [(offset, record, True) for offset, record in records]
            for reject in rejects:
                assert reject.reason == "too_large"
                got.append((reject.offset, reject.raw, False))
    expected = naive(data, layout)
    lengths = {}
    for offset, record in expected:
        at_start = offset == 0 and data.startswith(b"\xef\xbb\xbf")
        lengths[offset] = len(record) + (3 if at_start else 0)
    assert [offset for offset, _, _ in sorted(got)] == [offset for offset, _ in expected]
    for (offset, record, whole), (_, wanted) in zip(sorted(got), expected, strict=True):
        assert whole == (lengths[offset] <= sizes.record)
        assert record == wanted if whole else wanted.startswith(record)
    return len(expected)


def run_files(count: int, seed: int, folder: Path) -> Outcomes:
    chance = random.Random(seed)
    outcomes = Outcomes(seed)
    records = 0
    for _ in range(count):
        longest = chance.choice((40, 200, 100_000))
        sizes = ReadSizes(
            record=longest,
            rejected=chance.choice((longest, longest // 4)),
            read=chance.choice((1, 7, 64, 100_000)),
            block=chance.choice((50, 100_000)),
        )
        data = mutated_file(chance)
        with outcomes.trying((data, longest)):
            records += check_cuts(chance, folder / "records.json", data, sizes)
            outcomes["read"] += 1
    assert records > count
    return outcomes


def containers() -> dict[str, bytes]:
    """A file of records in each container, small."""
    data = lines([baike(n) for n in range(40)])
    made = {f"{TRAIN}.xz": lzma.compress(data), f"{TRAIN}.zst": zstandard.compress(data)}
    made[f"{TRAIN}.gz"] = gzip.compress(data, mtime=0)
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w", method) as packed:
            packed.writestr(f"目录/{TRAIN}", data)
        made[f"baike{method}.zip"] = out.getvalue()
    for suffix in ("tar", "tar.gz"):
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w:gz" if suffix == "tar.gz" else "w") as tape:
            entry = tarfile.TarInfo(TRAIN)
            entry.size = len(data)
            tape.addfile(entry, io.BytesIO(data))
        made[f"baike.{suffix}"] = out.getvalue()
    out = io.BytesIO()
    pq.write_table(pa.Table.from_pylist([baike(n) for n in range(40)]), out)
    made["train-baikeqa_zh.parquet"] = out.getvalue()
    return made


def run_containers(count: int, seed: int, folder: Path) -> Outcomes:
    """Damaged archives end by their name, or give records; what they give is bounded by what was put in."""
    chance = random.Random(seed)
    manifest = manifests.load("baike2018qa")
    outcomes = Outcomes(seed)
    for rank, (name, good) in enumerate(containers().items()):
        raw = Workspace(folder).raw(f"{rank}")
        raw.mkdir(parents=True)
        (raw / name).write_bytes(good)
        outputs = [Workspace(folder).file_digest(raw / name, raw)]
        ledger = Ledger(
            stage="download", dataset=None, version=1, config={}, inputs=[], outputs=outputs, counts={}, fingerprint=""
        )
        write_ledger(raw, ledger, {})
        for turn in range(count // 8):
            bad = good
            for _ in range(chance.choice((1, 1, 2, 5))):
                bad = byte_change(chance, bad, good)
            (raw / name).write_bytes(bad)
            os.utime(raw / name, ns=(turn, turn))  # readers know an archive by its time, which is too coarse here
            with outcomes.trying((name, bad)):
                outcomes[check_container(chance, raw, manifest)] += 1
    return outcomes


def check_container(chance: random.Random, raw: Path, manifest: Manifest) -> str:
    records = 0
    try:
        for piece in cut(raw, list_files(raw, manifest), chance.choice((1000, 1 << 20))):
            for span in piece.spans:
                records += sum(len(found) for found, _ in read(raw, span))
    except (ArchiveError, SourceError) as error:
        return type(error).__name__
    assert records <= 40 << 5
    return "read"


def run_manifests(count: int, seed: int) -> Outcomes:
    """A manifest is refused by name, or what it says can be used on records and paths."""
    chance = random.Random(seed)
    folder = files("corpus.manifests")
    texts = [(folder / f"{name}.toml").read_text(encoding="utf-8") for name in manifests.DATASETS]
    raws = [(0, json.dumps(record, ensure_ascii=False).encode()) for record in RECORDS.values()]
    outcomes = Outcomes(seed)
    for _ in range(count):
        text = mutated_manifest(chance, texts)
        with outcomes.trying(text):
            outcomes[check_manifest(text, raws)] += 1
    return outcomes


def check_manifest(text: str, raws: list[tuple[int, bytes]]) -> str:
    try:
        manifest = manifests.parse(text, where="mine.toml")
    except ManifestError as error:
        if not error.message.startswith("mine.toml"):
            raise AssertionError("the message does not name the file") from error
        return "ManifestError"
    for shape in manifest.shapes.values():
        parsed = parser(shape)(raws)
        assert len(parsed.offsets) + len(parsed.rejects) == len(raws)
        width = len(parts_of(shape))
        for index in range(len(parsed.offsets)):
            composer(shape)(parsed.texts[index * width : (index + 1) * width])
    manifest.member_of("wiki_zh/AA/wiki_00")
    return "read"


def run_good_text(count: int, seed: int, folder: Path) -> Outcomes:
    """A file of good text is refused by name, or its texts have scores, which do not depend on their neighbours."""
    chance, outcomes = random.Random(seed), Outcomes(seed)
    weights = model_file.read(random_model(folder / "model.safetensors")).model
    for _ in range(count):
        name, data = mutated_items(chance)
        path = folder / f"good{name}"
        path.write_bytes(data)
        with outcomes.trying((name, data)):
            outcomes[check_good_text(path, weights)] += 1
    return outcomes


def check_good_text(path: Path, weights: Weights) -> str:
    try:
        texts = read_texts(path, ()).texts
    except SourceError as error:
        if str(path) not in error.message:
            raise AssertionError("the message does not name the file") from error
        return "SourceError"
    scores = scores_of(texts, weights).tolist()
    assert all(texts)
    assert all(0 <= score <= 1 for score in scores)
    assert scores == [score for text in texts for score in scores_of([text], weights).tolist()]
    return "read"


def run_models(count: int, seed: int, folder: Path) -> Outcomes:
    """A model is refused by name, or gives scores and is written again as the same model."""
    chance, outcomes, path = random.Random(seed), Outcomes(seed), random_model(folder / "model.safetensors")
    whole = path.read_bytes()
    head = 8 + int.from_bytes(whole[:8], "little")
    for _ in range(count):
        bad = mutated_model(chance, whole, head)
        path.write_bytes(bad)
        with outcomes.trying(bad[:head]):
            outcomes[check_model(path)] += 1
    return outcomes


def check_model(path: Path) -> str:
    try:
        trained = model_file.read(path)
    except SourceError as error:
        if str(path) not in error.message:
            raise AssertionError("the message does not name the file") from error
        return "SourceError"
    scores = scores_of([TITLE, TEXT, "字"], trained.model).tolist()
    assert all(0 <= score <= 1 for score in scores)
    json.dumps([trained.facts, f"{trained.facts['auc']:.3f}"], allow_nan=False, ensure_ascii=False).encode()
    path.write_bytes(model_file.to_bytes(trained))
    again = model_file.read(path)
    assert (again.facts, again.identity) == (trained.facts, trained.identity)
    assert scores_of([TITLE, TEXT, "字"], again.model).tolist() == scores
    return "read"


# --- the runs ------------------------------------------------------------------------------------------------------


def test_fuzz(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = fuzz(50_000, SEED, tmp_path, monkeypatch)
    assert set(found["records"]) >= SHAPE_REASONS - {"too_large"}
    assert found["records"]["read"] > 4000


@pytest.mark.slow
def test_fuzz_a_million(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    begin = time.monotonic()
    found = fuzz(1_000_000, SEED + 1, tmp_path, monkeypatch)
    inputs = sum(outcomes.total() for outcomes in found.values())
    with capsys.disabled():
        print(f"\nFuzz, seed {SEED + 1}: {inputs:,} inputs in {time.monotonic() - begin:.0f} s, no crash")
        for name, outcomes in found.items():
            print(f"  {name}: {', '.join(f'{key} {count:,}' for key, count in sorted(outcomes.items()))}")
    assert inputs >= 1_000_000


def fuzz(count: int, seed: int, folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Outcomes]:
    """As many inputs or a few more."""
    found = {
        "records": run_records(count * 80 // 100, seed),
        "files": run_files(count * 10 // 100, seed, folder),
        "containers": run_containers(count * 2 // 100, seed, folder / "containers"),
        "manifests": run_manifests(count * 8 // 100, seed),
        "good text": run_good_text(count // 100, seed, folder),
        "models": run_models(count // 500, seed, folder),
    }
    for outcomes in found.values():
        outcomes.check()
    assert set(found["containers"]) == {"read", "ArchiveError", "SourceError"}
    assert set(found["manifests"]) == {"read", "ManifestError"}
    assert set(found["good text"]) == set(found["models"]) == {"read", "SourceError"}
    return found
