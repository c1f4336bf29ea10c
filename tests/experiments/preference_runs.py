"""The runs of `python -m tests.experiments.preferences`: data, models and what they write, each kept when done.

In: the settings of the command line. Out: runs in the workspace's `models/`, named by what they are of; beside the
workspace the halves of the rankings, and a file of JSON for each policy that was measured.
Invariants: a ranking is in one half, by the SHA-256 of its texts, and so is its split; the gold judge reads no ranking
of the other half, and nothing is tuned by it; what was measured is measured again where the model or a setting changed.
"""

from __future__ import annotations

import hashlib
import json
import lzma
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from corpus.pipeline.storage.row_shards import open_rows
from corpus.pipeline.workspace.layout import Workspace
from corpus.train.config import TrainConfig
from corpus.train.evaluation.metrics import spread
from corpus.train.preferences.batches import RankingItems
from corpus.train.preferences.prompts import Prompts
from corpus.train.run import stage
from tests.experiments import policies
from tests.experiments.weights import weights_digest

PTX = "PPO-ptx"
METHODS = {"PPO": "ppo", PTX: "ppo-ptx", "DPO": "dpo"}
PICTURE = "preferences-kl.png"
BATCH = 32
PROMPT_TOKENS = 8
REFERENCE_SEED = 1_000
"""Of the answers of SFT that policies are compared with: no policy answers with it."""
_PARTS, _TEST = 20, 4
"""Of so many parts of a half, one is for validation and so many for test; the rest is for training."""
_FORMS = {
    "reviews": 'form = "article"\nbody = "text"\nsplit = "split"\nid = ["id"]',
    "rankings-a": 'form = "ranking"\nranking = "ranking"\nsplit = "split"\nid = ["id"]',
    "rankings-b": 'form = "ranking"\nranking = "ranking"\nsplit = "split"\nid = ["id"]',
    "dpo_zh": (
        'form = "ranking"\nturns = "messages"\nchosen = "chosen"\nrejected = "rejected"\nsplit = "split"\nid = ["id"]'
    ),
}


@dataclass(frozen=True, slots=True)
class Runs:
    """Names of the runs that every part shares."""

    sft: str = "preferences-sft"
    proxy: str = "preferences-reward"
    gold: str = "preferences-gold"
    chapter_sft: str = "chapter-sft"
    chapter_rm: str = "chapter-reward"
    chapter_ppo: str = "chapter-ppo"
    chapter_dpo: str = "chapter-dpo"


@dataclass(frozen=True, slots=True)
class Final:
    """One answer to each prompt."""

    gold: np.ndarray
    tokens: np.ndarray
    ended: np.ndarray
    texts: Sequence[str]


@dataclass(frozen=True, slots=True)
class Reference:
    """Several answers of the SFT model to each prompt."""

    gold_pd: np.ndarray
    tokens_pd: np.ndarray


class Experiment:
    """Settings, and what follows from them."""

    runs = Runs()

    def __init__(self, **settings: Any) -> None:
        self.given = settings
        self.data, self.place = Path(settings["data"]).resolve(), Path(settings["workspace"]).resolve()
        self.workspace = Workspace(self.place)
        self.cells = self.place.with_name(f"{self.place.name}-preferences")
        self.text: list[str] = settings["text"] or ["wiki2019zh", "baike2018qa"]
        self.base: str = settings["model"] or "preferences-base"
        self.chat: str = settings["chat"]
        self.prompts, self.limit, self.documents = (settings[name] for name in ("prompts", "limit", "documents"))
        self.ptx_coef: float = settings["ptx_coef"]
        self.draws_of_reference = min(settings["draws"], 16)
        self.every_seed = range(1, settings["seeds"] + 1)
        self.methods = tuple(METHODS)
        self.budgets = [many for many in (1, 2, 4, 8, 16, 32, 64) if many <= settings["draws"]]
        self.headline = max(many for many in self.budgets if many <= 16)
        self.picture = self.cells / PICTURE
        self._trained: set[str] = set()

    def about(self) -> str:
        """What was run, for the head of a table."""
        given = self.given
        size = sum(path.stat().st_size for path in (self.place / "models" / self.base).glob("*.safetensors")) / 4e6
        return (
            f"`{self.base}` ({size:.1f} M parameters); SFT of {given['sft_steps']:,} steps on reviews; PPO and DPO of "
            f"{given['steps']:,} steps of {BATCH} prompts or rankings; {self.prompts} test prompts, "
            f"{given['draws']} answers of SFT to each."
        )

    # --- commands -----------------------------------------------------------------------------------------------------

    def corpus(self, *words: object) -> str:
        """Run a command in the workspace and give its output."""
        typed = [sys.executable, "-m", "corpus.pipeline.cli", *map(str, words), "--workspace", str(self.place)]
        threads = {"OMP_NUM_THREADS": str(self.given["threads"])}
        done = subprocess.run(typed, capture_output=True, text=True, check=False, env=os.environ | threads)
        if done.returncode:
            raise RuntimeError(f"{' '.join(typed)}\n{done.stderr}")
        return done.stdout

    def train(self, run: str, *words: object, seed: int = 1) -> Path:
        """The folder of a run; a finished one is skipped by `corpus train`."""
        folder = self.place / "models" / run
        if run not in self._trained:
            started = time.monotonic()
            self.corpus("train", "--run", run, "--seed", seed, "--threads", self.given["threads"], *words)
            print(f"{run}: {time.monotonic() - started:.0f} s", flush=True)
            self._trained.add(run)
        return folder

    def ledger(self, folder: Path) -> dict[str, Any]:
        """The ledger of a finished run."""
        return dict(json.loads((folder / "ledger.json").read_bytes()))

    # --- data ---------------------------------------------------------------------------------------------------------

    def prepare(self) -> None:
        """Bring the data into the workspace: reviews as rows, halves of the rankings, and preferences of questions."""
        self.cells.mkdir(parents=True, exist_ok=True)
        self._halve()
        sources = {
            "reviews": self.data / "chnsenticorp.jsonl.xz", "dpo_zh": self.data / "dpo_zh.jsonl.xz",
            "rankings-a": self.cells / "rankings-a.jsonl", "rankings-b": self.cells / "rankings-b.jsonl",
        }  # fmt: skip
        manifests = []
        for name, source in sources.items():
            path = self.cells / f"{name}.toml"
            text = f'name = "{name}"\nsource = "{source}"\nmin_length = 2\n[document]\n{_FORMS[name]}\n'
            if not path.exists() or path.read_text(encoding="utf-8") != text:
                path.write_text(text, encoding="utf-8")
            manifests += ["--manifest", path]
        self.corpus("ingest", "--no-dedup", *manifests)
        length = self.length
        self.corpus("pack", "--dataset", "reviews", "--seq-length", length)
        names = [word for name in _FORMS if name != "reviews" for word in ("--dataset", name)]
        self.corpus("pack", "--form", "ranking", *names, "--seq-length", length)
        if not self.given["model"]:
            named = [word for name in self.text for word in ("--dataset", name)]
            self.train(
                self.base,
                "--model",
                self.given["preset"],
                *named,
                "--batch-size",
                BATCH,
                "--max-steps",
                self.given["pretrain_steps"],
            )

    @cached_property
    def length(self) -> int:
        """Tokens of a row of the pre-training data, which the base model reads."""
        return int(self.ledger(self.workspace.packed(self.text[0]))["config"]["seq_length"])

    def _halve(self) -> None:
        """Cut the rankings into halves, and each into splits, by their hash; a test split of the file's own stays."""
        halves: dict[str, list[str]] = {"rankings-a": [], "rankings-b": []}
        with lzma.open(self.data / "sentiment_rankings.jsonl.xz", "rt", encoding="utf-8") as lines:
            for line in lines:
                values = json.loads(line)
                number = int(hashlib.sha256("\n".join(values["ranking"]).encode()).hexdigest(), 16)
                place = number // 2 % _PARTS
                split = {0: "validation"}.get(place, "test" if place < 1 + _TEST else "train")
                row = values | {"split": split if values["split"] == "train" else values["split"]}
                halves["rankings-b" if number % 2 else "rankings-a"].append(json.dumps(row, ensure_ascii=False))
        for name, rows in halves.items():
            path, text = self.cells / f"{name}.jsonl", "".join(f"{row}\n" for row in rows)
            if not path.exists() or path.read_text(encoding="utf-8") != text:
                path.write_text(text, encoding="utf-8")

    @cached_property
    def _asked(self) -> list[np.ndarray]:
        """The beginnings of the best answers of test rankings of both halves, as PPO takes them of training ones."""
        import corpus.train.model.load as models

        tokenizer = models.open_tokenizer(self.trained(self.runs.sft))
        tests = [open_rows(self.workspace.rankings(name))["test"] for name in ("rankings-a", "rankings-b")]
        every = Prompts(RankingItems(tests), separator=tokenizer.eos_token_id, begin=PROMPT_TOKENS)
        chosen = spread(len(every), self.prompts)
        return every.__getitems__(chosen)

    # --- runs ---------------------------------------------------------------------------------------------------------

    def trained(self, run: str) -> Path:
        """The folder of a shared run, trained now if it is not."""
        runs, given = self.runs, self.given
        if run in self._trained:
            return self.place / "models" / run
        steps = ["--max-steps", given["sft_steps"], "--batch-size", BATCH]
        if run in {runs.sft, runs.chapter_sft}:
            base: list[object] = ["--init", self.place / "models" / self.base, *steps]
            if run == runs.sft:
                return self.train(run, *base, "--dataset", "reviews")
            self.corpus("pack", "--form", "chat", "--dataset", self.chat, "--seq-length", self.length)
            return self.train(run, *base, "--objective", "sft", "--dataset", self.chat)
        if run in {runs.proxy, runs.gold}:
            name, seed = ("rankings-a", 1) if run == runs.proxy else ("rankings-b", 2)
            own: list[object] = ["--objective", "reward", "--init", self.trained(runs.sft), "--dataset", name]
            many = (
                ("--max-steps", given["reward_steps"])
                if given["reward_steps"]
                else ("--epochs", given["reward_epochs"])
            )
            return self.train(run, *own, *many, seed=seed)
        start: list[object] = ["--init", self.trained(runs.chapter_sft), "--dataset", "dpo_zh"]
        if run == runs.chapter_ppo:
            start += ["--reward", self.trained(runs.chapter_rm), "--kl-coef", given["kl_coef"]]
            return self.train(run, "--objective", "ppo", *start, "--max-steps", given["steps"])
        return self.train(run, "--objective", "reward" if run == runs.chapter_rm else "dpo", *start)

    def tuned(self, method: str, seed: int) -> Path:
        """The folder of a run of PPO or DPO, with all its checkpoints, which no flag of `corpus train` keeps."""
        run, given = f"preferences-{METHODS[method]}-{seed}", self.given
        if run in self._trained:
            return self.place / "models" / run
        is_ppo = method != "DPO"
        own: dict[str, Any] = {"objective": "dpo"}
        if is_ppo:
            own = {
                "objective": "ppo", "reward": self.trained(self.runs.proxy), "kl_coef": given["kl_coef"],
                "max_new_tokens": given["tokens"], "prompt_tokens": PROMPT_TOKENS,
            }  # fmt: skip
        if method == PTX:
            own |= {"ptx_datasets": tuple(self.text), "ptx_coef": self.ptx_coef}
        config = TrainConfig(
            run=run, seed=seed, init=self.trained(self.runs.sft), datasets=("rankings-a",), batch_size=BATCH,
            max_steps=given["steps"], save_steps=self._spacing, save_total_limit=given["checkpoints"] + 1,
            learning_rate=given["ppo_rate" if is_ppo else "dpo_rate"], threads=given["threads"], **own,
        )  # fmt: skip
        started = time.monotonic()
        with self.workspace.writing("train"):
            stage.run(config, self.workspace)
        print(f"{run}: {time.monotonic() - started:.0f} s", flush=True)
        self._trained.add(run)
        return self.place / "models" / run

    @property
    def _spacing(self) -> int:
        return max(1, int(self.given["steps"]) // int(self.given["checkpoints"]))

    def checkpoints(self, method: str, seed: int) -> Iterator[tuple[int, Path]]:
        """Steps and folders along a run, the finished model last."""
        folder, steps = self.tuned(method, seed), self.given["steps"]
        for step in range(self._spacing, steps, self._spacing):
            if (folder / f"checkpoint-{step}").is_dir():
                yield step, folder / f"checkpoint-{step}"
        yield steps, folder

    # --- what policies write ------------------------------------------------------------------------------------------

    def written(self, policy: Path, seed: int, draws: int = 1) -> policies.Written:
        """What a policy writes to the test prompts, kept in a file."""
        judges = {"proxy": self.trained(self.runs.proxy), "gold": self.trained(self.runs.gold)}
        reference, tokens = self.trained(self.runs.sft), self.given["tokens"]
        models = [weights_digest(folder) for folder in (policy, reference, *judges.values())]
        settings = {"models": models, "seed": seed, "draws": draws, "tokens": tokens, "prompts": self.prompts}
        path = self.kept(policy, seed, draws)
        if path.exists() and (kept := json.loads(path.read_bytes()))["settings"] == settings:
            return dict(kept["written"])  # type: ignore[return-value]  # as it was written
        started = time.monotonic()
        found = policies.measure(policy, reference, judges, self._asked, seed=seed, draws=draws, tokens=tokens)
        path.write_text(json.dumps({"settings": settings, "written": found}, ensure_ascii=False), encoding="utf-8")
        print(f"{path.stem}: {len(found['texts']):,} answers, {time.monotonic() - started:.0f} s", flush=True)
        return found

    def kept(self, policy: Path, seed: int, draws: int) -> Path:
        """The file of what a policy wrote."""
        name = "-".join(policy.relative_to(self.place / "models").parts)
        return self.cells / f"{name}-{seed}-{draws}.json"

    def draws(self, seed: int, judge: str) -> np.ndarray:
        """[prompts, draws] scores of the SFT model's answers."""
        written = self.written(self.trained(self.runs.sft), seed, self.given["draws"])
        return np.array(written["scores"][judge]).reshape(-1, self.given["draws"])

    def final(self, method: str, seed: int) -> Final:
        """One answer of a final policy to each prompt; of best of n that which the proxy chooses of the first n."""
        if method in METHODS:
            written, draws, chosen = self.written(self.tuned(method, seed), seed), 1, np.zeros(0, np.int64)
        else:
            draws = self.given["draws"]
            written = self.written(self.trained(self.runs.sft), seed, draws)
            many = self.headline if method.startswith("best") else 1
            chosen = self.draws(seed, "proxy")[:, :many].argmax(axis=1)
        rows = np.arange(len(self._asked)) * draws + (chosen if len(chosen) else 0)
        gold, tokens, ended = (
            np.array(each)[rows] for each in (written["scores"]["gold"], written["tokens"], written["ended"])
        )
        return Final(gold, tokens, ended, [written["texts"][row] for row in rows])

    def reference(self) -> Reference:
        """Answers of the SFT model that no policy shares a seed with."""
        draws = self.draws_of_reference
        written = self.written(self.trained(self.runs.sft), REFERENCE_SEED, draws)
        gold, tokens = (np.array(each).reshape(-1, draws) for each in (written["scores"]["gold"], written["tokens"]))
        return Reference(gold, tokens)

    # --- what tuning costs --------------------------------------------------------------------------------------------

    def run_of(self, method: str, seed: int) -> str:
        """The name of a final policy's run."""
        return self.tuned(method, seed).name

    def tax(self, run: str) -> dict[str, float]:
        """Bits per character by dataset, and accuracy on ZhoBLiMP in percent."""
        folder = self.place / "models" / run if run == self.base else self._known(run)
        settings = {
            "model": weights_digest(folder),
            "documents": self.documents,
            "limit": self.limit,
            "text": self.text,
        }
        path = self.cells / f"tax-{run}.json"
        if path.exists() and (kept := json.loads(path.read_bytes()))["settings"] == settings:
            return dict(kept["found"])
        named = [word for name in self.text for word in ("--dataset", name)]
        texts = json.loads(self.corpus("evaluate", "--model", folder, *named, "--documents", self.documents, "--json"))
        found = {each["dataset"]: each["bits_per_character"] for each in texts["datasets"]}
        own = ("--benchmark", "zhoblimp", "--data", self.data / "zhoblimp.jsonl.xz", "--limit", self.limit)
        output = self.cells / "benchmarks" / run
        asked = json.loads(self.corpus("evaluate", "--model", folder, *own, "--output", output, "--json"))
        found["zhoblimp"] = 100 * asked["benchmarks"][0]["shots"]["0"]["accuracy"]["mean"]
        path.write_text(json.dumps({"settings": settings, "found": found}), encoding="utf-8")
        print(f"{path.stem}: {found}", flush=True)
        return found

    def _known(self, run: str) -> Path:
        return self.trained(run) if run == self.runs.sft else self.place / "models" / run

    # --- the chapter's prompts ----------------------------------------------------------------------------------------

    def chapter_runs(self) -> dict[str, str]:
        """Each step of the chapter and its run."""
        runs = self.runs
        named = {"SFT": runs.chapter_sft, "PPO": runs.chapter_ppo, "DPO": runs.chapter_dpo}
        return {"pre-trained": self.base} | {step: self.trained(run).name for step, run in named.items()}

    def asked(self, run: str, prompts: Sequence[str], *, chat: bool) -> list[str]:
        """What a run writes to prompts."""
        path = self.cells / "prompts.txt"
        path.write_text("".join(f"{prompt}\n" for prompt in prompts), encoding="utf-8")
        words = ["--seed", 1, "--temperature", 0.8, "--top-k", 30, "--max-new-tokens", 120]
        done = self.corpus("sample", "--model", run, "--prompts", path, *(["--chat"] if chat else []), *words)
        return [json.loads(line)["text"] for line in done.splitlines()]
