#!/usr/bin/env python3
"""Embeds a data set of Parquet files with Ray, resumably, and writes Parquet; into Milvus if asked.

    pip install 'ray[data]' pyarrow, and jinabert's wheel (docs/python.md)
    python examples/ray_embed.py texts/ vectors/ --workers 4
    python examples/ray_embed.py texts/ vectors/ --workers 8 --address auto  # a cluster that runs
    python examples/ray_embed.py texts/ vectors/ --milvus http://localhost:19530 --collection docs

The input has a column of ids and one of texts (`--id`, `--text`); ids are integers or strings and
occur once; nothing changes while it is read. What is to be done is cut into parts before it begins:
row groups of the input, or pieces of them of `--rows` rows. A part becomes one file of the output,
named after what it is made of, and written under another name first: so it is there whole, or not
at all. Actors of Ray Data take parts; one that dies is replaced, and its part is done again. A run
that was ended goes on where it was, for parts whose file is there are left out. So nothing is lost
and nothing is there twice, whoever is killed when. Into Milvus, parts go by primary key (upsert),
as they come; a mark beside a part's file says into which collection it was inserted. Empty marks
(`*.milvus`) are made for one server and collection each; where a collection was dropped, remove
them.

Each worker has one model, on the device that `--device` means on its machine, and `--threads`
threads; on a cluster, input, output and the model's directory are places that all machines share.
`--workers 0` does the same in this process, without Ray.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

try:
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq
except ImportError as missing:
    sys.exit(f"ray_embed.py: {missing}: pip install numpy pyarrow")

# The file that says what the parts of an output are.
PLAN = "plan.json"

# How often a part is done again whose worker died: it may be what kills them.
RETRIES = 5

# Rows of one request to Milvus.
UPSERT = 1000


class Failure(Exception):
    """What is printed instead of a traceback."""


# ---- What is to be done ----


def inputs(source: Path) -> list[Path]:
    """The files of a data set, in the order of their names."""
    files = sorted(source.rglob("*.parquet")) if source.is_dir() else [source]
    if not files:
        raise Failure(f"`{source}`: no *.parquet in it")
    return files


def root(source: Path) -> Path:
    """Where the names of its files begin."""
    return source if source.is_dir() else source.parent


def plan(source: Path, rows: int, id_column: str, text_column: str) -> list[dict[str, Any]]:
    """Parts: of which file, which row group, from which row on, how many, under which name."""
    parts = []
    for file in inputs(source):
        try:
            metadata = pq.read_metadata(file)
        except (OSError, pa.ArrowInvalid) as error:
            raise Failure(f"`{file}`: {error}") from None
        names = metadata.schema.to_arrow_schema().names
        for column in (id_column, text_column):
            if column not in names:
                raise Failure(f"`{file}`: no column `{column}`, but {', '.join(names)}")
        # Files of one name in several directories are different parts.
        within = str(file.relative_to(root(source)))
        stem = f"{file.stem}-{hashlib.sha256(within.encode()).hexdigest()[:8]}"
        at = file.stat()
        # One that was written anew is another.
        made = {"bytes": at.st_size, "changed": at.st_mtime_ns}
        for group in range(metadata.num_row_groups):
            count = metadata.row_group(group).num_rows
            for first in range(0, count, rows):
                name = f"{stem}-{group:05}-{first:09}.parquet"
                length = min(rows, count - first)
                part = {"file": within, "group": group, "first": first, "rows": length}
                parts.append(part | {"name": name} | made)
    return parts


def weights(model: str) -> dict[str, list[int]]:
    """What tells the files of a model in a directory from those of another."""
    files = sorted(Path(model).glob("*.json")) + sorted(Path(model).glob("*.safetensors"))
    return {file.name: [file.stat().st_size, file.stat().st_mtime_ns] for file in files}


def agree(output: Path, parts: list[dict[str, Any]], settings: dict[str, Any]) -> None:
    """Notes what the parts are made of; refuses to go on with others."""
    output.mkdir(parents=True, exist_ok=True)
    said = json.dumps({"settings": settings, "parts": parts}, indent=1)
    note = output / PLAN
    if note.exists():
        if note.read_text() != said:
            raise Failure(
                f"`{note}` was made of another input, model or options, or of these before they "
                "changed: give another output directory, or empty this one"
            )
        return
    if any(output.glob("*.parquet")):
        raise Failure(f"`{output}` has Parquet files, but no {PLAN}: give another directory")
    replace(note, said.encode())


def replace(path: Path, content: bytes) -> None:
    """Writes a file that is whole when it is there."""
    draft = path.with_name(f".{path.name}.{os.uname().nodename}.{os.getpid()}")
    draft.write_bytes(content)
    os.replace(draft, path)


# ---- Doing it ----


class Worker:
    """Has a model; makes files of parts. An actor of Ray's, or used as it is."""

    def __init__(self, options: dict[str, Any]) -> None:
        import jinabert

        self.options = options
        jinabert.set_num_threads(options["threads"])
        self.embedder = jinabert.Embedder(
            options["model"],
            device=options["device"],
            truncate=options["truncate"],
            revision=options["revision"],
        )

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Parts of a plan, one row each; what became of them."""
        outcomes = [self.outcome(json.loads(part)) for part in batch["part"]]
        return {"outcome": np.array([json.dumps(outcome) for outcome in outcomes])}

    def outcome(self, part: dict[str, Any]) -> dict[str, Any]:
        """What became of a part; what cannot be embedded is told by file and row."""
        try:
            return self.make(part)
        except (ValueError, OSError, RuntimeError) as error:  # jinabert's are RuntimeErrors
            row = part["first"] + getattr(error, "index", 0)
            where = f"`{part['file']}`, row group {part['group']}, row {row}"
            return {"failure": f"{where}: {error}"}

    def make(self, part: dict[str, Any]) -> dict[str, Any]:
        begun = time.time()
        columns = [self.options["id"], self.options["text"]]
        with pq.ParquetFile(Path(self.options["root"]) / part["file"]) as file:
            table = file.read_row_group(part["group"], columns=columns)
        table = table.slice(part["first"], part["rows"])
        ids, texts = (table.column(name).combine_chunks() for name in columns)
        if texts.null_count:
            raise ValueError(f"{texts.null_count} texts from there on are null")
        vectors = self.embedder.encode(texts, precision=self.options["precision"])
        width = vectors.shape[1]
        flat = pa.array(vectors.reshape(-1))
        made = pa.table(
            {columns[0]: ids, "embedding": pa.FixedSizeListArray.from_arrays(flat, width)},
            metadata={"jinabert": json.dumps({"pid": os.getpid(), "model": self.options["model"]})},
        )
        sink = pa.BufferOutputStream()
        pq.write_table(made, sink)
        replace(Path(self.options["output"]) / part["name"], sink.getvalue().to_pybytes())
        done = {"name": part["name"], "rows": part["rows"], "pid": os.getpid()}
        return done | {"begun": begun, "ended": time.time()}


def with_ray(
    parts: list[dict[str, Any]], options: dict[str, Any], arguments: argparse.Namespace
) -> Iterator[dict[str, Any]]:
    """Parts as they are done, by actors of Ray Data."""
    try:
        import ray
    except ImportError as missing:
        raise Failure(f"{missing}: pip install 'ray[data]', or --workers 0") from None

    threads = options["threads"]
    if arguments.address:
        ray.init(address=arguments.address, log_to_driver=False)
    else:
        # More workers than cores are the caller's choice.
        cores = max(os.cpu_count() or 1, arguments.workers * threads + 1)
        ray.init(
            num_cpus=cores,
            include_dashboard=False,
            log_to_driver=False,
            object_store_memory=256 << 20,  # plans and outcomes pass through it, no vectors
        )
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.wait_for_min_actors_s = 600  # models may have to be fetched
    items = [{"part": json.dumps(part)} for part in parts]
    # A block for each part: that is what an actor takes, and does again if another was killed.
    data = ray.data.from_items(items, override_num_blocks=len(items)).map_batches(
        Worker,
        fn_constructor_args=(options,),
        batch_size=1,
        compute=ray.data.ActorPoolStrategy(size=arguments.workers),
        num_cpus=threads,
        max_restarts=-1,
        max_task_retries=RETRIES,
    )
    try:
        for row in data.iter_rows():
            yield json.loads(row["outcome"])
    except ray.exceptions.RayTaskError as error:
        raise Failure(f"{error.cause}") from None
    except ray.exceptions.RayError as error:
        lines = str(error).strip().splitlines()
        what = lines[0] if lines else type(error).__name__
        raise Failure(f"workers died {RETRIES + 1} times with the same part: {what}") from None
    finally:
        ray.shutdown()


def embed(arguments: argparse.Namespace) -> None:
    output, model = arguments.output, arguments.model
    threads = arguments.threads or max(1, (os.cpu_count() or 1) // max(1, arguments.workers))
    options = {
        "model": os.path.abspath(model) if os.path.exists(model) else model,
        "device": arguments.device,
        "precision": arguments.precision,
        "truncate": arguments.truncate,
        "revision": arguments.revision,
        "root": str(root(arguments.input).resolve()),
        "id": arguments.id,
        "text": arguments.text,
        "output": str(output.resolve()),
        "threads": threads,
    }
    parts = plan(arguments.input, arguments.rows, arguments.id, arguments.text)
    named = ("model", "revision", "precision", "truncate", "id", "text")
    settings: dict[str, Any] = {name: options[name] for name in named}
    settings["weights"] = weights(options["model"])
    agree(output, parts, settings)
    missing = [part for part in parts if not (output / part["name"]).exists()]
    there = len(parts) - len(missing)
    if there:
        say(f"{there} of {len(parts)} parts are there")
    milvus = Milvus(arguments) if arguments.milvus else None
    if milvus:
        for part in parts:
            file = output / part["name"]
            if file.exists() and milvus.lacks(file):
                milvus.insert(file)
    if arguments.workers == 0:
        done: Iterable[dict[str, Any]] = in_turn(missing, options)
    else:
        done = with_ray(missing, options, arguments) if missing else []
    outcomes = []
    for outcome in done:
        if "failure" in outcome:
            raise Failure(outcome["failure"])
        outcomes.append(outcome)
        if milvus:
            milvus.insert(output / outcome["name"])
        if arguments.verbose:
            say(f"{outcome['name']}: {outcome['rows']} texts, process {outcome['pid']}")
    for draft in output.glob(".*.parquet.*"):
        draft.unlink(missing_ok=True)  # of workers that were killed; no one writes any more
    report(outcomes, arguments.json)


def in_turn(parts: list[dict[str, Any]], options: dict[str, Any]) -> Iterator[dict[str, Any]]:
    if parts:
        worker = Worker(options)
        yield from map(worker.outcome, parts)


def report(outcomes: list[dict[str, Any]], as_json: bool) -> None:
    """Texts a second, from the first part's beginning to the last one's end."""
    texts = sum(outcome["rows"] for outcome in outcomes)
    begun = min((outcome["begun"] for outcome in outcomes), default=0.0)
    ended = max((outcome["ended"] for outcome in outcomes), default=0.0)
    seconds = ended - begun
    found = {
        "parts": len(outcomes),
        "texts": texts,
        "seconds": round(seconds, 2),
        "texts_per_second": round(texts / seconds, 1) if seconds else 0.0,
        "processes": len({outcome["pid"] for outcome in outcomes}),
    }
    if as_json:
        print(json.dumps(found))
    else:
        rate = f"{found['texts_per_second']:.0f} texts/s, {found['processes']} processes"
        say(f"{len(outcomes)} parts, {texts} texts in {seconds:.1f} s: {rate}")


# ---- Milvus ----


class Milvus:
    """A collection of ids and vectors; a server's, or Milvus Lite's in a file."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        try:
            from pymilvus import MilvusClient
        except ImportError as missing:
            raise Failure(f"{missing}: pip install 'pymilvus[milvus_lite]'") from None
        if arguments.precision != "float32":
            raise Failure("--milvus is for vectors of float32")
        self.client = MilvusClient(arguments.milvus)
        self.collection, self.id = arguments.collection, arguments.id
        place = arguments.milvus if "://" in arguments.milvus else os.path.abspath(arguments.milvus)
        self.place = hashlib.sha256(f"{place} {self.collection}".encode()).hexdigest()[:8]

    def mark(self, file: Path) -> Path:
        return file.with_suffix(f".{self.place}.milvus")

    def lacks(self, file: Path) -> bool:
        """A part made anew after its mark is to be inserted again."""
        made = self.mark(file)
        return not made.exists() or made.stat().st_mtime_ns < file.stat().st_mtime_ns

    def insert(self, file: Path) -> None:
        """Once or twice makes no difference: rows with the same id replace each other."""
        table = pq.read_table(file)
        vectors = table.column("embedding").combine_chunks()
        width = vectors.type.list_size
        self.make(width, table.schema.field(self.id).type)
        ids = table.column(self.id).to_pylist()
        rows = np.asarray(vectors.values).reshape(-1, width)
        for first in range(0, len(ids), UPSERT):
            pairs = zip(ids[first : first + UPSERT], rows[first : first + UPSERT], strict=True)
            self.client.upsert(
                self.collection, [{self.id: one, "embedding": row.tolist()} for one, row in pairs]
            )
        self.mark(file).touch()

    def make(self, width: int, kind: pa.DataType) -> None:
        if self.client.has_collection(self.collection):
            return
        from pymilvus import DataType

        schema = self.client.create_schema(auto_id=False)
        if pa.types.is_integer(kind):
            schema.add_field(self.id, DataType.INT64, is_primary=True)
        else:
            schema.add_field(self.id, DataType.VARCHAR, is_primary=True, max_length=512)
        schema.add_field("embedding", DataType.FLOAT_VECTOR, dim=width)
        index = self.client.prepare_index_params()
        index.add_index("embedding", index_type="AUTOINDEX", metric_type="IP")
        self.client.create_collection(self.collection, schema=schema, index_params=index)


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("input", type=Path, help="a Parquet file, or a directory of them")
    parser.add_argument("output", type=Path, help="a directory")
    parser.add_argument("--model", default="jinaai/jina-embeddings-v2-small-en")
    parser.add_argument("--revision", help="of a model of the hub: a commit does not move")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--truncate", action="store_true", help="cut texts over the model's limit")
    parser.add_argument("--id", default="id", help="column of ids")
    parser.add_argument("--text", default="text", help="column of texts")
    parser.add_argument("--rows", type=int, default=10_000, help="most rows of a part")
    parser.add_argument("--workers", type=int, default=2, help="0: this process, without Ray")
    parser.add_argument("--threads", type=int, default=0, help="of a worker; 0: its share of cores")
    parser.add_argument("--address", help="a Ray cluster that runs: auto, or host:port")
    parser.add_argument("--milvus", metavar="URI", help="a server, or a file of Milvus Lite")
    parser.add_argument("--collection", default="texts")
    parser.add_argument("--json", action="store_true", help="the outcome as a line of JSON")
    parser.add_argument("--verbose", action="store_true", help="a line for each part")
    arguments = parser.parse_args()
    if arguments.rows < 1 or arguments.workers < 0 or arguments.threads < 0:
        parser.error("--rows is 1 or more, --workers and --threads are 0 or more")
    try:
        embed(arguments)
    except Failure as failure:
        sys.exit(f"ray_embed.py: {failure}")


if __name__ == "__main__":
    main()
