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
_CONTEXT: Mapping[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataBiases": "cr:dataBiases",
    "dataCollection": "cr:dataCollection",
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileObject": "cr:fileObject",
    "fileProperty": "cr:fileProperty",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "personalSensitiveInformation": "cr:personalSensitiveInformation",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}
_SEGMENT = {
    "document": "The document: number of its documents shard in the upper, its line in the lower 32 bits.",
    "start": "The first token of the document that stands in this segment.",
    "length": "Tokens of the segment, the separator after the document included.",
}


def describe(ledger: Ledger, manifest: Manifest, *, form: str, version: str, description: str) -> bytes:
    """The contents of the file."""
    name = f"{manifest.name}-{form}"
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
    sets = [_rows(split, [output.path for output in shards if output.path.startswith(f"{split}/")]) for split in
            ledger.counts["splits"]]  # fmt: skip
    value = {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "name": name,
        "description": description,
        "inLanguage": languages(manifest),
        "license": manifest.licence,
        "url": manifest.homepage,
        "citeAs": manifest.citation,
        "creator": {"@type": "sc:Organization", "name": "corpus-zh", "url": manifest.homepage},
        "version": version,
        "identifier": ledger.fingerprint,
        "distribution": files,
        "recordSet": [each for each in sets if each],
    }
    return (json.dumps(value, ensure_ascii=False, sort_keys=True, indent=2) + "\n").encode()


def languages(manifest: Manifest) -> list[str]:
    """Language codes of a dataset's documents."""
    return ["zh", "en"] if any(shape.form == "translation" for shape in manifest.shapes.values()) else ["zh"]


def _rows(split: str, files: list[str]) -> dict[str, Any]:
    """The record set of a split: a field of tokens and one of segments with three subfields. Its source is the first
    file, since all have the same columns.
    """
    if not files:
        return {}
    source = {"fileObject": {"@id": files[0]}}

    def field(name: str, description: str, path: str) -> dict[str, Any]:
        return {
            "@type": "cr:Field",
            "@id": f"{split}/{name}",
            "name": f"{split}/{name}",
            "description": description,
            "dataType": "sc:Integer",
            "source": {**source, "extract": {"column": path}},
        }

    below = [field(f"segments/{name}", text, "segments") for name, text in _SEGMENT.items()]
    tokens = field("input_ids", "Tokens of the row; what follows the last segment is padding.", "input_ids")
    segments = {
        "@type": "cr:Field",
        "@id": f"{split}/segments",
        "name": f"{split}/segments",
        "description": "The parts of the row that belong to one document each, from its first token on.",
        "repeated": True,
        "subField": below,
    }
    return {
        "@type": "cr:RecordSet",
        "@id": split,
        "name": split,
        "description": f"Rows of the {split} split, in {len(files)} files.",
        "field": [tokens | {"repeated": True}, segments],
    }
