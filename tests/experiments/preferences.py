"""`python -m tests.experiments.preferences`: what tuning on preferences brings and costs, as the tables of
docs/preferences.md.

In: the folder of the data, a workspace with a tokenizer and packed rows, and a pre-trained model in it, or the time to
train one. Out: tables in Markdown and a picture, with `--page` in docs/preferences.md and docs/experiment.md. Exit code
1 where a command failed.
Method: a policy is fine-tuned on reviews (SFT). A reward model learns from one half of the rankings, cut by a hash, and
every method tunes or chooses by it; the gold judge, a reward model of another seed on the other half, is asked by none.
Policies write to the beginnings of the best answers of test rankings, at temperature 1 without filters. Every run is
one of `corpus train`, which skips what is finished and resumes what is not; what a policy wrote is kept beside the
workspace. A run whose settings changed is refused by its name: delete it from `models/`, or take another workspace.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from corpus.pipeline.humanize import markdown_table
from tests.experiments import policies
from tests.experiments.preference_cost import cost
from tests.experiments.preference_runs import PICTURE, PTX, Experiment

DOCS = Path(__file__).parents[2] / "docs"
_MARKERS = ("<!-- {}: begin -->\n", "<!-- {}: end -->\n")
_PROMPTS = (
    "秦始皇，名嬴政，是中国历史上著名的君主，也是中国历史上第一个使用“皇帝”称号的君主。他出生于公元前259年，卒于",
    "我感冒了怎么办？",
    "我肚子痛了，要怎么办？",
)
"""Those of docs/experiment.sh."""
_SHOWN = 90
"""Characters of an answer in a table."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the parts that are asked for and print their tables."""
    given = _parse(arguments)
    experiment = Experiment(**{name: value for name, value in vars(given).items() if name not in {"only", "page"}})
    chosen = given.only or list(PARTS)
    print(cost(experiment, chosen), flush=True)
    if given.dry_run:
        return 0
    experiment.prepare()
    found = {name: "\n\n".join(PARTS[name](experiment)) for name in chosen}
    for text in found.values():
        print(f"\n{text}")
    if given.page:
        for name, text in found.items():
            write(page_of(name), name, text)
        if "curve" in found:
            (DOCS / PICTURE).write_bytes((experiment.picture).read_bytes())
    return 0


def curve(experiment: Experiment) -> Iterator[str]:
    """Gold reward against the square root of the KL divergence: each method, checkpoint and seed."""
    lines: dict[str, list[list[tuple[float, float]]]] = {}
    rows: list[tuple[object, ...]] = []
    for method in experiment.methods:
        for seed in experiment.every_seed:
            points = [(0.0, float(experiment.draws(seed, "gold").mean()))]
            for step, policy in experiment.checkpoints(method, seed):
                written = experiment.written(policy, seed)
                kl, gold = float(np.mean(written["kl"])), float(np.mean(written["scores"]["gold"]))
                proxy, ended = float(np.mean(written["scores"]["proxy"])), float(np.mean(written["ended"]))
                points.append((max(kl, 0.0) ** 0.5, gold))
                rows.append((method, seed, step, f"{kl:.3f}", f"{proxy:.3f}", f"{gold:.3f}", f"{ended:.2f}"))
            lines.setdefault(method, []).append(points)
    for seed in experiment.every_seed:
        scores = {name: experiment.draws(seed, name) for name in ("proxy", "gold")}
        points = []
        for many in experiment.budgets:
            kl = float(np.log(many) - (many - 1) / many)
            best = {name: float(policies.best_of(scores["proxy"], each, many).mean()) for name, each in scores.items()}
            points.append((kl**0.5, best["gold"]))
            rows.append((f"best of {many}", seed, "", f"{kl:.3f}", f"{best['proxy']:.3f}", f"{best['gold']:.3f}", ""))
        lines.setdefault("best of n", []).append(points)
    (experiment.picture).write_bytes(policies.picture(lines))
    yield (
        f"{experiment.about()} KL in nats an answer from the SFT model, of best of n its bound log n - (n - 1) / n; "
        "proxy: mean score of the reward model that tunes or chooses, gold: of the judge."
    )
    yield f"![gold reward over the root of the KL divergence]({PICTURE})"
    yield markdown_table(("method", "seed", "step", "KL", "proxy", "gold", "ended"), rows)


def wins(experiment: Experiment) -> Iterator[str]:
    """Final policies against SFT under gold, and what they write."""
    other = experiment.reference()
    rows = []
    for method in ("SFT", *experiment.methods, f"best of {experiment.headline}"):
        per_seed = [experiment.final(method, seed) for seed in experiment.every_seed]
        won = np.mean([policies.wins(each.gold, other.gold_pd) for each in per_seed], axis=0)
        matched = [policies.matched_wins(each.gold, each.tokens, other.gold_pd, other.tokens_pd) for each in per_seed]
        alike = np.mean([each[0] for each in matched], axis=0)
        rows.append(
            (
                method, f"{float(np.mean([each.gold.mean() for each in per_seed])):.3f}", *_share(won), *_share(alike),
                f"{np.mean([each[1] for each in matched]):.1f}",
                f"{np.mean([each.tokens.mean() for each in per_seed]):.1f}",
                f"{100 * np.mean([each.ended.mean() for each in per_seed]):.0f} %",
                f"{np.mean([policies.distinct_2(each.texts) for each in per_seed]):.3f}",
            )
        )  # fmt: skip
    yield (
        f"An answer to each of {experiment.prompts} prompts against {experiment.draws_of_reference} answers of the "
        "SFT model to the same prompt under the gold judge, ties counted half; matched: against that of them which is "
        "nearest in length. Intervals: 95 %, bootstrap over prompts of the mean over seeds. distinct-2: of characters."
    )
    heads = ("policy", "gold", "wins", "95 %", "wins, matched", "95 %", "tokens apart", "tokens", "ended", "distinct-2")
    yield markdown_table(heads, rows)


def tax(experiment: Experiment) -> Iterator[str]:
    """What tuning costs on pre-training text and grammar."""
    models = [("pre-trained", [experiment.base]), ("SFT", [experiment.runs.sft])]
    models += [
        (method, [experiment.run_of(method, seed) for seed in experiment.every_seed]) for method in experiment.methods
    ]
    names = [*experiment.text, "zhoblimp"]
    rows = []
    for label, runs in models:
        found = [experiment.tax(run) for run in runs]
        rows.append((label, *(_mean([each[name] for each in found]) for name in names)))
    yield (
        "Bits per character of validation documents (lower is better), and ZhoBLiMP, % (higher is better), of at most "
        f"{experiment.documents} documents and {experiment.limit} pairs; mean and standard deviation over seeds. "
        f"`{PTX}` has the pre-training term with the coefficient {experiment.ptx_coef}, `PPO` has none:"
    )
    yield markdown_table(("model", *(f"{name}, bits" for name in experiment.text), "ZhoBLiMP, %"), rows)


def dpo_zh(experiment: Experiment) -> Iterator[str]:
    """Preferences of questions, with the defaults of each objective: nothing is chosen by them."""
    rows = []
    for label, run in (("reward model", experiment.runs.chapter_rm), ("DPO", experiment.runs.chapter_dpo)):
        counts = experiment.ledger(experiment.trained(run))["counts"]
        own, floors = counts["test"]["dpo_zh"], counts["floors"]["test"]["dpo_zh"]
        rows.append((label, _percent(own, "accuracy"), _percent(own, "accuracy_not_longer"), own["pairs"]))
    rows += [
        (floor, _percent(each, "accuracy"), _percent(each, "accuracy_not_longer"), own["pairs"])
        for floor, each in floors.items()
    ]
    yield "dpo_zh, test pairs, from the model tuned on questions; learning rates, warm-up and epochs by default:"
    yield markdown_table(("", "accuracy", "better answer not longer", "pairs"), rows)


def chapter(experiment: Experiment) -> Iterator[str]:
    """The three prompts of docs/experiment.sh through each step of the chapter."""
    steps = experiment.chapter_runs()
    texts = {name: experiment.asked(run, _PROMPTS, chat=name != "pre-trained") for name, run in steps.items()}
    rows = [(_cut(prompt), *(_cut(texts[name][number]) for name in steps)) for number, prompt in enumerate(_PROMPTS)]
    yield (
        f"`{experiment.base}`, tuned on the questions of {experiment.chat}, then on the preferences of dpo_zh; seed 1, "
        f"temperature 0.8, top-k 30, at most 120 tokens; blank lines are shown as ⏎, and long answers are cut here."
    )
    yield markdown_table(("prompt", *steps), rows)


PARTS = {"curve": curve, "wins": wins, "tax": tax, "dpo_zh": dpo_zh, "chapter": chapter}


def _share(values: np.ndarray) -> tuple[str, str]:
    low, high = policies.bootstrap(values)
    return f"{100 * values.mean():.1f} %", f"{100 * low:.1f}-{100 * high:.1f}"


def _mean(values: Sequence[float]) -> str:
    deviation = f" ± {np.std(values, ddof=1):.3f}" if len(values) > 1 else ""
    return f"{np.mean(values):.3f}{deviation}"


def _percent(found: dict[str, float], name: str) -> str:
    return f"{100 * found[name]:.1f} %" if name in found else "-"


def _cut(text: str) -> str:
    line = "⏎ ".join(" ".join(part.split()) for part in text.strip().splitlines() if part.strip()).replace("|", "\\|")
    return line if len(line) <= _SHOWN else f"{line[:_SHOWN]}…"


def page_of(name: str) -> Path:
    """The page that has a part's place."""
    return DOCS / ("experiment.md" if name == "chapter" else "preferences.md")


def write(page: Path, name: str, text: str) -> None:
    """Put the text between the markers of a page."""
    whole = page.read_text(encoding="utf-8")
    begin, end = (whole.index(marker.format(name)) for marker in _MARKERS)
    begin += len(_MARKERS[0].format(name))
    page.write_text(f"{whole[:begin]}{text}\n{whole[end:]}", encoding="utf-8")


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.experiments.preferences", description=__doc__)
    add = parser.add_argument
    add(
        "--data",
        type=Path,
        required=True,
        help="folder of chnsenticorp, sentiment_rankings, dpo_zh, zhoblimp .jsonl.xz",
    )
    add("--workspace", type=Path, required=True, help="with a tokenizer, and with packed rows of --text")
    add("--model", default="", help="pre-trained run of the workspace; one is trained when left out")
    add("--preset", default="tiny", help="size of a model that is pre-trained here")
    add("--pretrain-steps", type=int, default=2000)
    add("--text", action="append", help="pre-training datasets  [default: wiki2019zh, baike2018qa]")
    add("--chat", default="baike2018qa", help="dataset whose questions the chapter's model is tuned on")
    add("--seeds", type=int, default=3, help="of PPO, DPO and best of n")
    add("--steps", type=int, default=64, help="of 32 prompts or rankings, of each PPO and DPO run")
    add("--sft-steps", type=int, default=300)
    add("--reward-epochs", type=float, default=2.0)
    add("--reward-steps", type=int, help="in place of --reward-epochs")
    add("--ppo-rate", type=float, help="learning rate  [default: that of corpus train]")
    add("--dpo-rate", type=float, help="learning rate  [default: that of corpus train]")
    add("--kl-coef", type=float, default=0.02)
    add("--ptx-coef", type=float, default=27.8)
    add("--checkpoints", type=int, default=5, help="points of a curve")
    add("--prompts", type=int, default=256, help="test prompts that policies are measured on")
    add("--draws", type=int, default=32, help="answers to each, of which best of n chooses")
    add("--tokens", type=int, default=64, help="most tokens of an answer")
    add("--limit", type=int, default=1000, help="most pairs of ZhoBLiMP")
    add("--documents", type=int, default=500, help="most validation documents of a dataset")
    add("--threads", type=int, default=1)
    add("--only", action="append", choices=tuple(PARTS))
    add("--page", action="store_true", help="write the tables into docs/preferences.md and docs/experiment.md")
    add("--dry-run", action="store_true", help="print the cost alone")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
