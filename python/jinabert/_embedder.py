"""The class `Embedder`."""

from __future__ import annotations

import logging
import operator
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, NoReturn, TypedDict, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import _native, _precision
from ._errors import OptionError
from ._precision import Precision
from ._progress import Bar

if TYPE_CHECKING:
    from typing_extensions import NotRequired, Self

logger = logging.getLogger("jinabert")

NO_POOL = (
    "one Embedder is one process's: encode(texts) uses all cores, or the GPU, from there; for "
    "several processes use multiprocessing with spawn, and an Embedder in each"
)
"""Error message for the process pools of sentence-transformers, which do not exist here."""

Span = tuple[int, int]
Texts = Iterable[str] | NDArray[Any]


class Ranked(TypedDict):
    """A document ranked by `Embedder.rerank`."""

    corpus_id: int
    """Index of the document in the input."""
    score: float
    """Relevance from 0 to 1."""
    logit: float
    """The score before the sigmoid."""
    text: NotRequired[str]
    """The document, with return_documents=True."""


@dataclass(frozen=True)
class LateChunks:
    """Chunks of a text that was encoded as a whole."""

    text: str
    spans: list[Span]
    """Start and end of each chunk in characters, end exclusive."""
    embeddings: NDArray[np.float32]
    """Shape (chunks, dimensions)."""
    tokens: int
    """Number of tokens that were read."""
    truncated: int | None
    """Number of tokens of the whole text if it was truncated, else None."""

    def __len__(self) -> int:
        return len(self.spans)

    def __iter__(self) -> Iterator[tuple[str, NDArray[np.float32]]]:
        return zip(self.texts, self.embeddings, strict=True)

    @property
    def texts(self) -> list[str]:
        """Text of each chunk."""
        return [self.text[start:end] for start, end in self.spans]


class Embedder:
    """A model on a device.

    Args:
        model: a directory with config.json, model.safetensors (or shards) and tokenizer.json, or
            owner/name, owner/name@revision or the URL of a model on the Hugging Face hub, opened
            from its cache or downloaded.
        device: auto (the faster of a hardware GPU and the CPU), cpu, vulkan, metal, dx12, gl, or an
            index from `jinabert devices`, as a number or a str; auto if None.
        dtype: float32, or float16 for weights and activations in half the memory, on a GPU.
        max_length: maximum text length in tokens, including special tokens and prompt; the model's
            own limit if None, as in sentence-transformers.
        truncate: truncate texts over the maximum length. sentence-transformers does so silently;
            here the logger `jinabert` warns with their number. Short for on_long="truncate".
        on_long: handling of texts over the maximum length: error (TooLongError), truncate, or
            window: windows of max_length tokens that share `overlap` tokens; the vector is the mean
            over all windows.
        normalize: default of `encode`: scale vectors to unit length.
        truncate_dim: default of `encode`: leading components to keep, before normalisation.
        any_dimensions: accept any truncate_dim, as sentence-transformers does, also for a model
            that declares those it was trained for (matryoshka_dimensions).
        prompts: prompts by name, for `prompt_name`; added to those in the model's
            config_sentence_transformers.json, and replacing those of the same name.
        default_prompt_name: name of the prompt put before a text unless `encode` names another; the
            model's own default if None.
        pooling: mean of all tokens, or cls for the first token; as declared in the model's
            modules.json if None, mean if it declares nothing.
        batch_tokens: maximum tokens per batch; if None, up to 16384 on a GPU, depending on its
            speed, and 2048 on the CPU.
        task: embed or rerank; by the model's tensors if None.
        deterministic: make vectors of a text bit-identical in every batch, not only equal up to
            rounding.
        tune: tune kernels for a GPU, once.
        fallback: use the CPU if the GPU fails repeatedly; only with device="auto" if None.
        revision: branch, tag or commit of a hub model.
        cache_dir: cache directory for hub models.

    Several threads may call an Embedder; calls take turns on the device and release the GIL while
    they compute. Unpickling an Embedder, as in another process, opens the same model there.
    """

    def __init__(
        self,
        model: str | os.PathLike[str],
        device: str | int | None = "auto",
        *,
        dtype: str = "float32",
        max_length: int | None = None,
        truncate: bool = False,
        on_long: Literal["error", "truncate", "window"] | None = None,
        overlap: int = 256,
        normalize: bool = True,
        truncate_dim: int | None = None,
        any_dimensions: bool = False,
        prompts: Mapping[str, str] | None = None,
        default_prompt_name: str | None = None,
        pooling: Literal["mean", "cls"] | None = None,
        batch_tokens: int | None = None,
        task: Literal["embed", "rerank"] | None = None,
        deterministic: bool = False,
        tune: bool = True,
        fallback: bool | None = None,
        revision: str | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
    ) -> None:
        if isinstance(model, Mapping):
            raise TypeError("files in memory are for Embedder.from_files")
        name = os.fspath(model)
        # An absolute path, valid in other processes too.
        source = os.path.abspath(name) if os.path.exists(name) else name
        options = dict(locals())
        for other in ("self", "model", "name", "source"):
            options.pop(other)
        self._open(source, options)

    @classmethod
    def from_files(
        cls, files: Mapping[str, bytes], device: str | int | None = "auto", **options: Any
    ) -> Self:
        """Opens a model from files in memory, by name: config.json, model.safetensors and
        tokenizer.json. They are not copied, and are kept as long as the Embedder. Options are those
        of `Embedder`, except revision and cache_dir."""
        self = cls.__new__(cls)
        defaults = cls.__init__.__kwdefaults__ or {}
        if unknown := sorted(set(options) - set(defaults)):
            raise TypeError(f"from_files() got an unexpected keyword argument {unknown[0]!r}")
        for name, content in files.items():
            if not isinstance(content, bytes):
                raise TypeError(f"{name}: expected bytes, got {type(content).__name__}")
        self._open(dict(files), {"device": device} | defaults | options)
        return self

    def _open(self, source: str | dict[str, bytes], options: dict[str, Any]) -> None:
        options["device"] = device_name(options["device"])
        self._source, self._options = source, dict(options)
        truncate, on_long = options.pop("truncate"), options.pop("on_long")
        if truncate and on_long not in (None, "truncate"):
            raise OptionError(f"truncate=True and on_long={on_long!r} contradict each other")
        options["on_long"] = "truncate" if truncate else on_long or "error"
        self._normalize: bool = options.pop("normalize")
        self.truncate_dim: int | None = options.pop("truncate_dim")
        prompts: dict[str, str] = dict(options.pop("prompts") or {})
        default: str | None = options.pop("default_prompt_name")
        for name, least in (("max_length", 1), ("overlap", 0), ("batch_tokens", 1)):
            options[name] = natural(name, options[name], least)
        self.truncate_dim = natural("truncate_dim", self.truncate_dim, 1)
        with Bar(logging_wanted(None), "B", unit_scale=True) as bar:
            self._model = _native.Model(source, options, bar.heard)
        facts = self._model.facts()
        self._facts = facts
        self.prompts: dict[str, str] = facts["prompts"] | prompts
        self.default_prompt_name: str | None = default or facts["default_prompt_name"]
        try:
            self._prompt(None, None)
        except OptionError:
            self._model.close()
            raise
        if self.truncate_dim is not None and not 1 <= self.truncate_dim <= facts["dim"]:
            self._model.close()
            raise OptionError(
                f"truncate_dim {self.truncate_dim}: the model has 1 to {facts['dim']}"
            )

    # ---- Properties ----

    @property
    def dim(self) -> int:
        """Number of components of a vector."""
        return self.truncate_dim or int(self._facts["dim"])

    def get_embedding_dimension(self) -> int:
        """As `dim`."""
        return self.dim

    def get_sentence_embedding_dimension(self) -> int:
        """As `dim`."""
        return self.dim

    @property
    def max_seq_length(self) -> int:
        """Maximum text length in tokens, special tokens included; may be set, up to its value when
        the model was opened. Calls in progress keep the old value."""
        return int(self._facts["max_length"])

    @max_seq_length.setter
    def max_seq_length(self, value: int) -> None:
        number = natural("max_seq_length", value, 1)
        if number is None:
            raise TypeError("max_seq_length: expected an int, got None")
        self._model.set_max_length(number)
        self._facts["max_length"] = self._options["max_length"] = number

    def get_max_seq_length(self) -> int:
        """As `max_seq_length`."""
        return self.max_seq_length

    @property
    def tokenizer(self) -> Any:
        """Not available: `tokenize` returns the token ids of texts."""
        raise AttributeError(
            "an Embedder has no tokenizer object: tokenize(texts) returns ids; for more, "
            "tokenizers.Tokenizer.from_file reads the model's tokenizer.json"
        )

    @property
    def device(self) -> str:
        """Human-readable name of the device."""
        return str(self._model.facts()["device"])

    @property
    def batch_tokens(self) -> int:
        """Maximum tokens per batch."""
        return int(self._facts["batch_tokens"])

    @property
    def task(self) -> str:
        """Task of the model: embed or rerank."""
        return str(self._facts["task"])

    @property
    def allocated_bytes(self) -> int:
        """Bytes currently allocated on the device."""
        return self._model.allocated_bytes()

    def __repr__(self) -> str:
        source = self._source if isinstance(self._source, str) else "files in memory"
        return f"<jinabert.Embedder of {source} on {self._facts['device']}>"

    @property
    def tasks(self) -> dict[str, str]:
        """Tasks of the model's LoRA adapters, for `encode(task=…)`, with the instruction before
        the texts of each; empty for most models."""
        return dict(self._facts["tasks"])

    # ---- Lifetime ----

    def close(self) -> None:
        """Releases the device after all calls in progress have ended."""
        self._model.close()

    def to(self, device: str | int | None) -> Self:
        """Returns the Embedder if it is on that device; a model cannot change its device."""
        self._on(device)
        return self

    def eval(self) -> Self:
        """Returns the Embedder: it is always in inference mode."""
        return self

    def start_multi_process_pool(self, target_devices: Any = None) -> NoReturn:
        """Not supported: `encode` uses all cores, or the GPU, from one process."""
        raise OptionError(NO_POOL)

    def stop_multi_process_pool(self, pool: Any = None) -> NoReturn:
        """Refused, as `start_multi_process_pool` is."""
        raise OptionError(NO_POOL)

    def encode_multi_process(self, *arguments: Any, **options: Any) -> NoReturn:
        """Refused, as `start_multi_process_pool` is."""
        raise OptionError(NO_POOL)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopen, (type(self), self._source, self._options)

    # ---- Encoding ----

    @overload
    def encode(
        self,
        sentences: str | Texts,
        prompt_name: str | None = ...,
        prompt: str | None = ...,
        batch_size: int = ...,
        show_progress_bar: bool | None = ...,
        output_value: Literal["sentence_embedding"] = ...,
        precision: Precision | None = ...,
        convert_to_numpy: Literal[True] = ...,
        convert_to_tensor: Literal[False] = ...,
        device: str | int | None = ...,
        normalize_embeddings: bool | None = ...,
        truncate_dim: int | None = ...,
        pool: None = ...,
        chunk_size: int | None = ...,
        *,
        ranges: ArrayLike | None = ...,
        task: str | None = ...,
    ) -> NDArray[Any]: ...

    @overload
    def encode(
        self,
        sentences: str | Texts,
        prompt_name: str | None = ...,
        prompt: str | None = ...,
        batch_size: int = ...,
        show_progress_bar: bool | None = ...,
        output_value: str | None = ...,
        precision: Precision | None = ...,
        convert_to_numpy: bool = ...,
        convert_to_tensor: bool = ...,
        device: str | int | None = ...,
        normalize_embeddings: bool | None = ...,
        truncate_dim: int | None = ...,
        pool: None = ...,
        chunk_size: int | None = ...,
        *,
        ranges: ArrayLike | None = ...,
        task: str | None = ...,
    ) -> Any: ...

    def encode(
        self,
        sentences: str | Texts,
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
        output_value: str | None = "sentence_embedding",
        precision: Precision | None = "float32",
        convert_to_numpy: bool = True,
        convert_to_tensor: bool = False,
        device: str | int | None = None,
        normalize_embeddings: bool | None = None,
        truncate_dim: int | None = None,
        pool: None = None,
        chunk_size: int | None = None,
        *,
        ranges: ArrayLike | None = None,
        task: str | None = None,
    ) -> Any:
        """Embeds texts, in order. Names, order and meaning of the arguments are those of
        sentence-transformers; differences are noted here.

        Args:
            sentences: one text, which gives a vector of shape (dimensions,), or several texts,
                which give an array of shape (texts, dimensions): a list, a NumPy or Arrow array, a
                column of pandas or polars, or another iterable of str. A 0-dimensional array is one
                text. A data frame is refused: pass one of its columns.
            prompt_name: name of the prompt in `prompts` to put before each text;
                `default_prompt_name` if None.
            prompt: prompt text to put before each text; "" for none.
            batch_size: accepted, but ignored: batches are packed by tokens, without padding
                (`batch_tokens` of the Embedder).
            show_progress_bar: needs tqdm; if None, shown if the logger `jinabert` is at INFO or
                below.
            output_value: sentence_embedding, or token_embeddings: one array of shape
                (tokens, hidden) per text, neither truncated nor normalised.
            precision: float32, float16, int8, uint8, binary or ubinary, as in
                `quantize_embeddings`; float32 if None.
            convert_to_numpy: if False, return a list of vectors.
            convert_to_tensor: return a torch tensor; torch must be installed.
            device: the Embedder's own device or None; any other is refused.
            normalize_embeddings: scale vectors to unit length; if None, as set in the Embedder,
                whose default is True. (In sentence-transformers it is False.)
            truncate_dim: leading components to keep, before normalisation.
            pool, chunk_size: refused; use one Embedder per process.
            ranges: ranges of int8 and uint8, shape (2, dimensions).
            task: one of `tasks`, of a model with LoRA adapters such as jina-embeddings-v3: its
                adapter is applied, and its instruction put before each text unless prompt_name or
                prompt is given. (sentence-transformers puts it there only with
                prompt_name=task, transformers' encode always.) The weights as they are if None.

        Raises:
            TooLongError: a text is over the limit and truncation is off.
            InputError: a text is not valid Unicode.
            OptionError: the options contradict each other or the model.
            GpuError: the device failed.
            KeyboardInterrupt: between batches.
        """
        natural("batch_size", batch_size, 1)
        if pool is not None or chunk_size is not None:
            raise OptionError(f"pool and chunk_size: {NO_POOL}")
        if device is not None:
            self._on(device)
        precision = "float32" if precision is None else precision
        before = self._prompt(prompt_name, prompt, task)
        single = is_text(sentences)
        texts = [before + text for text in listed(sentences)] if before else listed(sentences)
        if output_value == "token_embeddings":
            if precision != "float32" or ranges is not None:
                raise OptionError(f"precision {precision!r}: token embeddings are float32")
            if normalize_embeddings or truncate_dim is not None:
                raise OptionError("token embeddings are neither scaled nor cut")
            states, cut = self._model.encode_tokens(texts, task)
            self._tell_cut(*cut)
            found = [as_tensor(state) for state in states] if convert_to_tensor else states
            return found[0] if single else found
        if output_value != "sentence_embedding":
            known = "sentence_embedding and token_embeddings"
            raise OptionError(f"output_value {output_value!r}: {known} are known")
        vectors = self._vectors(
            texts, show_progress_bar, precision, normalize_embeddings, truncate_dim, ranges, task
        )
        if convert_to_tensor:
            vectors = as_tensor(vectors)
        if single:
            return vectors[0]
        return vectors if convert_to_numpy or convert_to_tensor else list(vectors)

    def encode_query(self, sentences: str | Texts, **options: Any) -> Any:
        """Like `encode`, with the task retrieval.query if the model has it, otherwise with the
        prompt named query, if there is one."""
        return self._encode_as("retrieval.query", ("query",), sentences, options)

    def encode_document(self, sentences: str | Texts, **options: Any) -> Any:
        """Like `encode`, with the task retrieval.passage if the model has it, otherwise with the
        first existing prompt of document, passage and corpus."""
        names = ("document", "passage", "corpus")
        return self._encode_as("retrieval.passage", names, sentences, options)

    def rerank(
        self,
        query: str,
        documents: Texts,
        top_k: int | None = None,
        return_documents: bool = False,
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
    ) -> list[Ranked]:
        """Ranks documents by relevance to a query, best first, with a reranker, or by MaxSim with a
        ColBERT model: the logit is then the sum over the query's tokens, the score their mean. The
        result has the format of `CrossEncoder.rank` of sentence-transformers. `batch_size` and
        `show_progress_bar` are accepted, but ignored."""
        natural("batch_size", batch_size, 1)
        if not isinstance(query, str):
            raise TypeError(f"query: expected a str, got {type(query).__name__}")
        if is_text(documents):
            raise TypeError("documents: expected a list of str, got one str")
        top_k = natural("top_k", top_k, 0)
        if self.task != "rerank":
            what = "this model has no classifier: it is no reranker"
            raise OptionError(f"{what}, or was opened with task='embed'")
        texts = listed(documents)
        found, cut = self._model.rerank(query, texts)
        self._tell_cut(*cut)
        ranked: list[Ranked] = []
        for index, score, logit in found if top_k is None else found[:top_k]:
            one = Ranked(corpus_id=index, score=score, logit=logit)
            if return_documents:
                one["text"] = texts[index]
            ranked.append(one)
        return ranked

    rank = rerank

    @overload
    def late_chunks(  # type: ignore[overload-overlap]  # a str is an iterable of str
        self,
        texts: str,
        chunk: str = ...,
        *,
        spans: Sequence[Span] | None = ...,
        normalize_embeddings: bool | None = ...,
        truncate_dim: int | None = ...,
        task: str | None = ...,
    ) -> LateChunks: ...

    @overload
    def late_chunks(
        self,
        texts: Texts,
        chunk: str = ...,
        *,
        spans: Sequence[Sequence[Span]] | None = ...,
        normalize_embeddings: bool | None = ...,
        truncate_dim: int | None = ...,
        task: str | None = ...,
    ) -> list[LateChunks]: ...

    def late_chunks(
        self,
        texts: str | Texts,
        chunk: str = "tokens:256",
        *,
        spans: Any = None,
        normalize_embeddings: bool | None = None,
        truncate_dim: int | None = None,
        task: str | None = None,
    ) -> Any:
        """Late chunking (arXiv:2409.04701): encodes each text as a whole, after the task's
        instruction or the default prompt if there is one, and returns one vector per chunk.

        Args:
            texts: one text, which gives `LateChunks`, or several texts, which give a list of them.
            chunk: chunk size: tokens:N or sentences:N; tokens:N:M for chunks that share M tokens.
            spans: chunks as (start, end) in characters instead, end exclusive; one list of such
                pairs per text if there are several texts.
        """
        single = is_text(texts)
        all_texts = listed(texts)
        cuts: Any = chunk
        if spans is not None:
            each = [spans] if single else spans
            cuts = [[(int(start), int(end)) for start, end in one] for one in each]
            if any(place < 0 for one in cuts for span in one for place in span):
                raise OptionError("spans: places of characters are counted from 0")
        asked = self._asked(normalize_embeddings, truncate_dim, task)
        before = self._prompt(None, None, task)
        found = [
            LateChunks(text, *chunks)
            for text, chunks in zip(
                all_texts, self._model.late_chunks(all_texts, cuts, asked, before), strict=True
            )
        ]
        cut = [(n, one.truncated) for n, one in enumerate(found) if one.truncated]
        self._tell_cut(len(cut), cut[0] if cut else None)
        return found[0] if single else found

    @overload
    def tokenize(self, texts: str) -> list[int]: ...  # type: ignore[overload-overlap]

    @overload
    def tokenize(self, texts: Texts) -> list[list[int]]: ...

    def tokenize(self, texts: str | Texts) -> Any:
        """Token ids of a text as the model reads them, special tokens included; a list of lists for
        several texts."""
        ids, cut = self._model.tokenize(listed(texts))
        self._tell_cut(*cut)
        return ids[0] if is_text(texts) else ids

    @staticmethod
    def similarity(embeddings1: ArrayLike, embeddings2: ArrayLike) -> NDArray[np.float32]:
        """Cosine similarity of every pair of a first and a second vector, shape (n, m)."""
        return np.asarray(unit(embeddings1) @ unit(embeddings2).T)

    @staticmethod
    def similarity_pairwise(embeddings1: ArrayLike, embeddings2: ArrayLike) -> NDArray[np.float32]:
        """Cosine similarity of vectors at the same index, shape (n,)."""
        return np.asarray((unit(embeddings1) * unit(embeddings2)).sum(axis=-1))

    # ---- Internal ----

    def _vectors(
        self,
        texts: list[str],
        show_progress_bar: bool | None,
        precision: Precision,
        normalize: bool | None,
        truncate_dim: int | None,
        ranges: ArrayLike | None,
        task: str | None,
    ) -> Any:
        _precision.check(precision)
        asked = self._asked(normalize, truncate_dim, task)
        if ranges is not None and not precision.endswith("int8"):
            raise OptionError(f"ranges are for int8 and uint8; this is {precision}")
        if ranges is None and precision.endswith("int8") and not asked["normalize"]:
            raise OptionError(f"precision {precision} of vectors that are not scaled needs ranges")
        with Bar(logging_wanted(show_progress_bar), "text") as bar:
            array, cut = self._model.encode(
                texts, asked, precision, _precision.pair(ranges), bar.heard
            )
        self._tell_cut(*cut)
        return _precision.named(array, precision)

    def _tell_cut(self, count: int, first: tuple[int, int] | None) -> None:
        if first:
            what = f"the first is input {first[0]}, {first[1]} tokens"
            logger.warning("%d texts were cut to %d tokens; %s", count, self.max_seq_length, what)

    def _asked(
        self, normalize: bool | None, truncate_dim: int | None, task: str | None = None
    ) -> dict[str, Any]:
        truncate_dim = natural("truncate_dim", truncate_dim, 1)
        return {
            "normalize": self._normalize if normalize is None else bool(normalize),
            "dimensions": self.truncate_dim if truncate_dim is None else truncate_dim,
            "task": task,
        }

    def _on(self, device: str | int | None) -> None:
        """Raises OptionError for a device other than the Embedder's."""
        opened, name = self._options["device"], device_name(device)
        if name not in (opened, self.device, self._model.facts()["kind"]):
            what = "open another: Embedder(model, device=…)"
            raise OptionError(f"device {name!r}: this Embedder was opened on {opened!r}; {what}")

    def _prompt(self, name: str | None, prompt: str | None, task: str | None = None) -> str:
        """Prompt text to put before each text: the task's instruction, unless one is chosen."""
        if task is not None and name is None and prompt is None:
            if task not in self.tasks:
                known = ", ".join(self.tasks) or "none"
                raise OptionError(f"task {task!r}: the tasks of this model are {known}")
            prompt = self.tasks[task]
        before = self._text_of(name, prompt)
        if before and not self._facts["include_prompt"]:
            what = "the model declares include_prompt false, which is not computed here"
            raise OptionError(f"prompt {before!r}: {what}; choose prompt=''")
        return before

    def _text_of(self, name: str | None, prompt: str | None) -> str:
        if prompt is not None:
            return prompt
        name = self.default_prompt_name if name is None else name
        if name is None or (name in ("query", "document") and name not in self.prompts):
            return ""  # the default of sentence-transformers for these two names
        if name not in self.prompts:
            known = ", ".join(sorted(self.prompts)) or "none"
            raise OptionError(f"prompt_name {name!r}: the prompts are {known}")
        return self.prompts[name]

    def _encode_as(
        self, task: str, names: Sequence[str], sentences: str | Texts, options: dict[str, Any]
    ) -> Any:
        if task in self.tasks:
            return self.encode(sentences, **({"task": task} | options))
        if options.get("prompt") is None and options.get("prompt_name") is None:
            # An undeclared first name means no prompt; the default prompt is only for `encode`.
            found = (name for name in names if name in self.prompts)
            options["prompt_name"] = next(found, names[0])
        return self.encode(sentences, **options)


def _reopen(kind: type[Embedder], source: Any, options: dict[str, Any]) -> Embedder:
    self = kind.__new__(kind)
    self._open(source, dict(options))
    return self


def is_text(texts: Any) -> bool:
    """True for a single text: a str, or a 0-dimensional array."""
    return isinstance(texts, str) or (isinstance(texts, np.ndarray) and texts.ndim == 0)


def device_name(device: Any) -> str:
    """Device name for the native module, from a str, a number or a torch device."""
    if device is None:
        return "auto"
    if isinstance(device, str):
        return device
    if type(device).__module__.partition(".")[0] == "torch":
        return str(device)
    try:
        if not isinstance(device, bool):
            return str(operator.index(device))
    except TypeError:
        pass
    raise TypeError(f"device: expected a str or an int, got {type(device).__name__}")


def listed(texts: Any) -> list[str]:
    """Texts as a list; the native module checks the items."""
    if isinstance(texts, str):
        return [texts]
    if isinstance(texts, list):
        return texts
    if isinstance(texts, bytes | bytearray | Mapping):
        raise TypeError(f"expected a str, or several, got {type(texts).__name__}")
    if hasattr(texts, "columns") or hasattr(texts, "column_names"):
        # Data frames and tables: iterating them gives column names or dicts.
        kind = type(texts).__name__
        what = "pass one of its columns, such as frame['text']"
        raise TypeError(f"expected texts, got {kind}: {what}")
    for name in ("to_pylist", "tolist"):  # Arrow and NumPy
        if hasattr(texts, name):
            found = getattr(texts, name)()
            return found if isinstance(found, list) else [found]
    try:
        return list(texts)
    except TypeError:
        raise TypeError(f"expected a str, or several, got {type(texts).__name__}") from None


def natural(name: str, value: Any, least: int) -> int | None:
    """Checks an int of at least `least`, or None."""
    if value is None:
        return None
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name}: expected an int, got {type(value).__name__}") from None
    if number < least:
        raise OptionError(f"{name}: expected {least} or more, got {number}")
    return number


def logging_wanted(show: bool | None) -> bool:
    """Whether to show a progress bar, by the rule of sentence-transformers."""
    return logger.isEnabledFor(logging.INFO) if show is None else show


def as_tensor(array: NDArray[Any]) -> Any:
    try:
        import torch
    except ImportError as missing:
        raise ImportError("convert_to_tensor=True needs torch: pip install torch") from missing
    return torch.from_numpy(array)


def unit(embeddings: ArrayLike) -> NDArray[np.float32]:
    rows = np.atleast_2d(np.asarray(embeddings, dtype=np.float32))
    norms = np.linalg.norm(rows, axis=-1, keepdims=True)
    return np.asarray(rows / np.maximum(norms, 1e-12), dtype=np.float32)
