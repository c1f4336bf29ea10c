"""The rights in a dataset's texts, as cards and exports state them."""

from __future__ import annotations

from typing import Any

from corpus.pipeline.manifest.parse import BUILT_IN, DATASETS
from corpus.pipeline.manifest.schema import Manifest

_HUB_LICENCES = frozenset({
    "apache-2.0", "mit", "cc0-1.0", "cc-by-2.0", "cc-by-3.0", "cc-by-4.0", "cc-by-sa-3.0", "cc-by-sa-4.0",
    "cc-by-nc-4.0", "cc-by-nc-sa-4.0", "cc-by-nd-4.0", "cc-by-nc-nd-4.0", "odc-by", "odbl", "pddl", "gpl-3.0", "gfdl",
    "bsd-3-clause", "unlicense",
})  # fmt: skip
"""Names of licences that the Hugging Face hub knows."""


def licence_of(manifest: Manifest) -> dict[str, Any]:
    """The licence in the hub's terms: that of the texts if known; a collection's does not cover them."""
    if manifest.name == BUILT_IN:
        return {"license": "mit"}
    if manifest.name not in DATASETS:
        stated = manifest.licence.strip().lower()
        if stated in _HUB_LICENCES:
            return {"license": stated}
        name = "unsettled" if stated == "not stated" else "as-stated"
        return {"license": "other", "license_name": name, "license_link": manifest.homepage}
    known = "cc-by-sa" if "CC BY-SA" in manifest.licence else "unsettled"
    return {"license": "other", "license_name": known, "license_link": manifest.homepage}


def rights_of(manifest: Manifest) -> str:
    """Source, licence and what is not settled about it, in Markdown."""
    if manifest.name == BUILT_IN:
        return "The texts were written for corpus-zh and stand under its licence."
    source = manifest.homepage or (manifest.source if "://" in manifest.source else "") or "not stated"
    source = f"Source: {source}. Licence: {manifest.licence}."
    if manifest.name not in DATASETS:
        return (
            f"{source}\n\nSource and licence are what the dataset's own manifest states; **nobody has checked them**."
        )
    if "CC BY-SA" in manifest.licence:
        return (
            f"{source}\n\nThe texts are those of Wikipedia's authors. Name the source when you pass them on, and "
            "keep the licence. Whether it reaches a model that was trained on them is **not settled**."
        )
    return (
        f"{source}\n\n"
        "**The rights in the texts are not settled.** The collection was published in 2019 under a licence of its own; "
        "its authors gathered texts of others and do not say with what right. Use beyond research needs an answer that "
        "nobody has given yet."
    )
