"""`corpus manifest init` and `check`: the manifest of a dataset of one's own."""

from __future__ import annotations

import os
from pathlib import Path

import click

from corpus.pipeline.errors import ManifestError
from corpus.pipeline.terminal import console


@click.group()
def manifest() -> None:
    """Describe a dataset of your own.

    The manifest that `init` writes is given to `corpus ingest --manifest`.

    \b
    Examples:
      corpus manifest init my-texts/
      corpus manifest init hf://datasets/OWNER/NAME --output mine.toml
      corpus manifest check mine.toml
    """


@manifest.command()
@click.argument("source")
@click.option("--name", metavar="NAME", help="Name of the dataset.  [default: from the source]")
@click.option(
    "--output", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE", help="[default: NAME.toml, here]"
)
@click.option("--force", is_flag=True, help="Replace a file that is there.")
def init(source: str, name: str | None, output: Path | None, force: bool) -> None:
    """Look at SOURCE and write a commented manifest.

    SOURCE is a file, a folder, an archive, a URL or hf://datasets/OWNER/NAME. Its files are JSON Lines, JSON arrays,
    Parquet, CSV, TSV, text or Markdown, plain or in zip, tar, gz, xz or zst. Fields, form, splits and the shortest
    document are guessed from a sample; three documents are shown as they will come out.

    \b
    Examples:
      corpus manifest init my-texts/
      corpus manifest init alpaca.json --name alpaca
      corpus manifest init https://example.org/dump.jsonl.zst --output dump.toml
    """
    from corpus.pipeline.draft import guess, sample, write
    from corpus.pipeline.manifest import parse

    found = sample.take(source, progress=console.Console())
    kind = found.kinds[0]
    guessed = guess.guess(kind)
    name = name or write.name_of(source)
    path = output or Path(f"{name}.toml")
    if path.exists() and not force:
        raise click.UsageError(f"{path} is there already; give another --output, or --force")
    place = found.place if "://" in found.place else os.path.relpath(found.place, path.absolute().parent)
    text = write.toml(found, kind, guessed, name, place)
    try:
        described = parse(text, where=str(path), own=True)
    except ManifestError as error:
        raise click.UsageError(f"--name {name}: {error.message}") from error
    for number, document in enumerate(write.documents(kind, described), 1):
        console.write(f"--- document {number}")
        console.write(document if len(document) <= _SHOWN else f"{document[:_SHOWN]} ...")
    path.write_text(text, encoding="utf-8")
    fields = ", ".join(f"{role} = {field}" for role, field in guessed.roles.items())
    console.write(f"\n{path}: form {guessed.form} ({fields}), {write.files_text(kind)}")
    if skipped := write.not_taken(found, kind):
        console.write(f"not taken: {skipped}; a manifest describes records of one form, so these need one of their own")
    if guessed.not_a_split:
        console.write(f"no official split: {guessed.not_a_split}")
    console.write(f"Read it, write the licence into it, then: corpus ingest --manifest {path}")


_SHOWN = 600
"""Characters of a document that are shown."""


@manifest.command()
@click.argument("file", type=click.Path(path_type=Path))
def check(file: Path) -> None:
    """Say what is wrong in a manifest, by line and key.

    \b
    Example:
      corpus manifest check mine.toml
    """
    from corpus.pipeline.documents.stage import check_rules
    from corpus.pipeline.manifest import parse_file

    found = parse_file(file)
    check_rules(found, str(file), file.read_text(encoding="utf-8"))
    (shape,) = found.shapes.values()
    kinds = len(found.members)
    console.write(f"{file}: dataset {found.name}, form {shape.form}, {kinds} kind{'s' if kinds > 1 else ''} of files")
    if found.source and "://" not in found.source and not (file.parent / Path(found.source).expanduser()).exists():
        console.write(f"Its source {found.source} is not there; a relative path is relative to the manifest.")
    if not found.source and not found.mirrors:
        console.write("It names no source: give the files with `corpus ingest --source`.")
    if found.licence == "not stated":
        console.write("It states no licence: exports and cards will say so.")
