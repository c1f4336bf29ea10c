"""`croissant.json`: a description of a dataset's rows for dataset search engines.

In: the ledger of the rows and the dataset's manifest. Out: JSON-LD in the vocabulary of Croissant 1.0 (MLCommons, 2024,
https://docs.mlcommons.org/croissant/docs/croissant-spec.html).
Invariant: equal ledgers give equal bytes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from corpus.pipeline.manifest import Manifest
from corpus.pipeline.workspace.ledger import Ledger

_ARROW = "application/vnd.apache.arrow.stream"
_TERMS = (
    "citeAs", "column", "dataBiases", "dataCollection", "equivalentProperty", "extract", "field", "fileObject",
    "fileProperty", "fileSet", "format", "includes", "isLiveDataset", "jsonPath", "key", "md5", "parentField", "path",
    "personalSensitiveInformation", "recordSet", "references", "regex", "repeated", "replace", "samplingRate",
    "separator", "source", "subField", "transform",
)  # fmt: skip
_CONTEXT: Mapping[str, Any] = {term: f"cr:{term}" for term in _TERMS} | {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "rai": "http://mlcommons.org/croissant/RAI/",
    "sc": "https://schema.org/",
}
_SEGMENT = {
    "document": "The document: number of its documents shard in the upper, its line in the lower 32 bits.",
    "start": "The first token of the document that stands in this segment.",
    "length": "Tokens of the segment, the separator after the document included.",
}


def describe(ledger: Ledger, manifest: Manifest, *, form: str, version: str, description: str) -> bytes:
    """The contents of the file."""
    shards = [output for output in ledger.outputs if output.path.endswith(".arrow")]
    files = [
        {
            "@type": "cr:FileObject",
            "@id": output.path,
            "name": output.path,
            "contentUrl": output.path,
            "contentSize": f"{output.bytes} B",
            "encodingFormat": _ARROW,
            "sha256": output.sha256,
        }
        for output in shards
    ]
    by_split = {
        split: [output.path for output in shards if output.path.startswith(f"{split}/")]
        for split in ledger.counts["splits"]
    }
    value = {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "name": f"{manifest.name}-{form}",
        "description": description,
        "inLanguage": languages(manifest),
        "license": manifest.licence,
        "url": manifest.homepage,
        "citeAs": manifest.citation,
        "creator": {"@type": "sc:Organization", "name": "corpus-zh", "url": manifest.homepage},
        "version": version,
        "identifier": ledger.fingerprint,
        "distribution": files,
        "recordSet": [_rows(split, paths) for split, paths in by_split.items() if paths],
    }
    return (json.dumps(value, ensure_ascii=False, sort_keys=True, indent=2) + "\n").encode()


def languages(manifest: Manifest) -> list[str]:
    """Language codes of a dataset's documents."""
    return ["zh", "en"] if any(shape.form == "translation" for shape in manifest.shapes.values()) else ["zh"]


def _rows(split: str, files: list[str]) -> dict[str, Any]:
    """The record set of a split: a field of tokens and one of segments with three subfields. Its source is the first
    file, since all have the same columns.
    """

    def field(name: str, description: str, **more: Any) -> dict[str, Any]:
        return {
            "@type": "cr:Field",
            "@id": f"{split}/{name}",
            "name": f"{split}/{name}",
            "description": description,
            **more,
        }

    def integer(name: str, description: str, column: str) -> dict[str, Any]:
        source = {"fileObject": {"@id": files[0]}, "extract": {"column": column}}
        return field(name, description, dataType="sc:Integer", source=source)

    tokens = integer("input_ids", "Tokens of the row; what follows the last segment is padding.", "input_ids")
    segments = field(
        "segments",
        "The parts of the row that belong to one document each, from its first token on.",
        repeated=True,
        subField=[integer(f"segments/{name}", text, "segments") for name, text in _SEGMENT.items()],
    )
    return {
        "@type": "cr:RecordSet",
        "@id": split,
        "name": split,
        "description": f"Rows of the {split} split, in {len(files)} files.",
        "field": [tokens | {"repeated": True}, segments],
    }
