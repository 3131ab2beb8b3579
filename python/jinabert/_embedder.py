"""The front door: `Embedder`."""

from __future__ import annotations

import logging
import operator
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, TypedDict, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import _native, _precision
from ._errors import OptionError
from ._precision import Precision
from ._progress import Bar

if TYPE_CHECKING:
    from typing_extensions import NotRequired, Self

logger = logging.getLogger("jinabert")

Span = tuple[int, int]
Texts = Iterable[str] | NDArray[Any]


class Ranked(TypedDict):
    """A document in the order of `Embedder.rerank`."""

    corpus_id: int
    """Its position in what was given."""
    score: float
    """From 0 to 1."""
    logit: float
    """What the score is the sigmoid of."""
    text: NotRequired[str]
    """The document, with return_documents=True."""


@dataclass(frozen=True)
class LateChunks:
    """The chunks of a text that was read as a whole."""

    text: str
    spans: list[Span]
    """Of each chunk, the first character and the one behind the last."""
    embeddings: NDArray[np.float32]
    """Shape (chunks, dimensions)."""
    tokens: int
    """Tokens that were read."""
    truncated: int | None
    """Tokens of the whole text, where some were dropped."""

    def __len__(self) -> int:
        return len(self.spans)

    def __iter__(self) -> Iterator[tuple[str, NDArray[np.float32]]]:
        return zip(self.texts, self.embeddings, strict=True)

    @property
    def texts(self) -> list[str]:
        """What each chunk says."""
        return [self.text[start:end] for start, end in self.spans]


class Embedder:
    """A model on a device.

    Args:
        model: a directory with config.json, model.safetensors (or shards) and tokenizer.json, or
            owner/name of a model at the Hugging Face hub, from its cache or fetched.
        device: auto (a hardware GPU, otherwise the CPU), cpu, vulkan, metal, dx12, gl, or an index
            from `jinabert devices`.
        dtype: float32, or float16 for weights and activations in half the memory, on a GPU.
        max_length: longest text in tokens, special ones included; the model's own limit if None.
        truncate: whether a longer text is cut, as sentence-transformers does silently; here a
            warning of the logger `jinabert` says how many were. Short for on_long="truncate".
        on_long: error (TooLongError), truncate, or window: it is read in windows of max_length
            tokens that share `overlap`, and its vector is the mean over all.
        normalize: whether vectors have length 1 unless `encode` says otherwise.
        truncate_dim: leading components to keep, before the norm, unless `encode` says otherwise.
        prompts: texts that go before others, by name, for `prompt_name`.
        default_prompt_name: which of them goes before a text unless `encode` names another.
        pooling: mean of all tokens, or cls, the first one; what the model's modules.json declares
            if None, and the mean where it says nothing.
        batch_tokens: tokens of a batch; 16384 on a GPU and 2048 on the CPU if None.
        task: embed or rerank; what the model's tensors say if None.
        deterministic: whether a text has the same bits in every batch, not only to rounding.
        tune: whether kernels are fitted to a GPU, once.
        fallback: whether the CPU takes over where the GPU fails twice; only with device="auto" if
            None.
        revision: branch, tag or commit of a model at the hub.
        cache_dir: where the hub's models are kept.

    Calls may come from several threads, and take turns on the device; none holds the GIL while it
    computes. Pickling one, as for another process, opens the same model there.
    """

    def __init__(
        self,
        model: str | os.PathLike[str],
        device: str = "auto",
        *,
        dtype: str = "float32",
        max_length: int | None = None,
        truncate: bool = False,
        on_long: Literal["error", "truncate", "window"] | None = None,
        overlap: int = 256,
        normalize: bool = True,
        truncate_dim: int | None = None,
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
        # The same for a process elsewhere.
        source = os.path.abspath(name) if os.path.exists(name) else name
        options = dict(locals())
        for other in ("self", "model", "name", "source"):
            options.pop(other)
        self._open(source, options)

    @classmethod
    def from_files(cls, files: Mapping[str, bytes], device: str = "auto", **options: Any) -> Self:
        """A model whose files are in memory, by name: config.json, model.safetensors and
        tokenizer.json. They are not copied, and stay as long as the Embedder does. Options are
        those of `Embedder`, but for revision and cache_dir."""
        self = cls.__new__(cls)
        defaults = cls.__init__.__kwdefaults__ or {}
        if unknown := sorted(set(options) - set(defaults)):
            raise TypeError(f"from_files() got an unexpected keyword argument {unknown[0]!r}")
        for name, content in files.items():
            if not isinstance(content, bytes):
                raise TypeError(f"{name}: bytes are meant, not {type(content).__name__}")
        self._open(dict(files), {"device": device} | defaults | options)
        return self

    def _open(self, source: str | dict[str, bytes], options: dict[str, Any]) -> None:
        self._source, self._options = source, dict(options)
        truncate, on_long = options.pop("truncate"), options.pop("on_long")
        if truncate and on_long not in (None, "truncate"):
            raise OptionError(f"truncate=True and on_long={on_long!r} contradict each other")
        options["on_long"] = "truncate" if truncate else on_long or "error"
        self._normalize: bool = options.pop("normalize")
        self.truncate_dim: int | None = options.pop("truncate_dim")
        self.prompts: dict[str, str] = dict(options.pop("prompts") or {})
        self.default_prompt_name: str | None = options.pop("default_prompt_name")
        self._prompt(None, None)
        for name, least in (("max_length", 1), ("overlap", 0), ("batch_tokens", 1)):
            options[name] = natural(name, options[name], least)
        self.truncate_dim = natural("truncate_dim", self.truncate_dim, 1)
        with Bar(logging_wanted(None), "B", unit_scale=True) as bar:
            self._model = _native.Model(source, options, bar.heard)
        facts = self._model.facts()
        self._facts = facts
        if self.truncate_dim is not None and not 1 <= self.truncate_dim <= facts["dim"]:
            self._model.close()
            raise OptionError(
                f"truncate_dim {self.truncate_dim}: the model has 1 to {facts['dim']}"
            )

    # ---- What it is ----

    @property
    def dim(self) -> int:
        """Components of a vector."""
        return self.truncate_dim or int(self._facts["dim"])

    def get_embedding_dimension(self) -> int:
        """As `dim`."""
        return self.dim

    def get_sentence_embedding_dimension(self) -> int:
        """As `dim`."""
        return self.dim

    @property
    def max_seq_length(self) -> int:
        """Longest text in tokens, special ones included."""
        return int(self._facts["max_length"])

    @property
    def device(self) -> str:
        """What it runs on, for people."""
        return str(self._model.facts()["device"])

    @property
    def batch_tokens(self) -> int:
        """Tokens of a batch."""
        return int(self._facts["batch_tokens"])

    @property
    def task(self) -> str:
        """embed or rerank."""
        return str(self._facts["task"])

    @property
    def allocated_bytes(self) -> int:
        """Bytes that the device holds for it now."""
        return self._model.allocated_bytes()

    def __repr__(self) -> str:
        source = self._source if isinstance(self._source, str) else "files in memory"
        return f"<jinabert.Embedder of {source} on {self._facts['device']}>"

    # ---- Its life ----

    def close(self) -> None:
        """Lets go of the device, once the calls that are under way have ended."""
        self._model.close()

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

    # ---- What it does ----

    @overload
    def encode(
        self,
        sentences: str | Texts,
        prompt_name: str | None = ...,
        prompt: str | None = ...,
        batch_size: int = ...,
        show_progress_bar: bool | None = ...,
        output_value: Literal["sentence_embedding"] = ...,
        precision: Precision = ...,
        convert_to_numpy: Literal[True] = ...,
        convert_to_tensor: Literal[False] = ...,
        device: str | None = ...,
        normalize_embeddings: bool | None = ...,
        truncate_dim: int | None = ...,
        pool: None = ...,
        chunk_size: int | None = ...,
        *,
        ranges: ArrayLike | None = ...,
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
        precision: Precision = ...,
        convert_to_numpy: bool = ...,
        convert_to_tensor: bool = ...,
        device: str | None = ...,
        normalize_embeddings: bool | None = ...,
        truncate_dim: int | None = ...,
        pool: None = ...,
        chunk_size: int | None = ...,
        *,
        ranges: ArrayLike | None = ...,
    ) -> Any: ...

    def encode(
        self,
        sentences: str | Texts,
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
        output_value: str | None = "sentence_embedding",
        precision: Precision = "float32",
        convert_to_numpy: bool = True,
        convert_to_tensor: bool = False,
        device: str | None = None,
        normalize_embeddings: bool | None = None,
        truncate_dim: int | None = None,
        pool: None = None,
        chunk_size: int | None = None,
        *,
        ranges: ArrayLike | None = None,
    ) -> Any:
        """Vectors of texts, in order; names, order and meaning of the arguments are those of
        sentence-transformers but for what is said here.

        Args:
            sentences: a text, which gives one vector, shape (dimensions,), or texts, which give
                shape (texts, dimensions): a list, an array of NumPy's or Arrow's, or what else
                yields str.
            prompt_name: which of `prompts` goes before each text.
            prompt: a text that goes before each.
            batch_size: accepted, and without effect: batches are packed by tokens, without padding
                (`batch_tokens` of the Embedder).
            show_progress_bar: needs tqdm; if None, where the logger `jinabert` is at INFO or below.
            output_value: sentence_embedding, or token_embeddings: for each text an array, shape
                (tokens, hidden), neither cut nor scaled.
            precision: float32, float16, int8, uint8, binary or ubinary; `quantize_embeddings` says
                how.
            convert_to_numpy: if False, a list of vectors.
            convert_to_tensor: a tensor of torch's, which must be installed.
            device: it is chosen when the Embedder is opened; another one here is refused.
            normalize_embeddings: whether vectors have length 1; if None, as the Embedder was
                opened, which is True by default. (In sentence-transformers it is False.)
            truncate_dim: leading components to keep, before the norm.
            pool, chunk_size: refused; other processes have an Embedder of their own.
            ranges: of int8 and uint8, shape (2, dimensions).

        Raises:
            TooLongError: a text is over the limit, unless it is to be cut.
            InputError: a text is not Unicode.
            OptionError: the options contradict each other or the model.
            GpuError: the device failed.
            KeyboardInterrupt: between batches.
        """
        natural("batch_size", batch_size, 1)
        if pool is not None or chunk_size is not None:
            raise OptionError("pool and chunk_size: one Embedder is one process's")
        opened = self._options["device"]
        if device is not None and device not in (opened, self.device, self._model.facts()["kind"]):
            raise OptionError(f"device {device!r}: this Embedder was opened on {opened!r}")
        before = self._prompt(prompt_name, prompt)
        single = isinstance(sentences, str)
        texts = [before + text for text in listed(sentences)] if before else listed(sentences)
        if output_value == "token_embeddings":
            if precision != "float32" or ranges is not None:
                raise OptionError(f"precision {precision!r}: token embeddings are float32")
            if normalize_embeddings or truncate_dim is not None:
                raise OptionError("token embeddings are neither scaled nor cut")
            states, cut = self._model.encode_tokens(texts)
            self._tell_cut(*cut)
            found = [as_tensor(state) for state in states] if convert_to_tensor else states
            return found[0] if single else found
        if output_value != "sentence_embedding":
            known = "sentence_embedding and token_embeddings"
            raise OptionError(f"output_value {output_value!r}: {known} are known")
        vectors = self._vectors(
            texts, show_progress_bar, precision, normalize_embeddings, truncate_dim, ranges
        )
        if convert_to_tensor:
            vectors = as_tensor(vectors)
        if single:
            return vectors[0]
        return vectors if convert_to_numpy or convert_to_tensor else list(vectors)

    def encode_query(self, sentences: str | Texts, **options: Any) -> Any:
        """As `encode`, with the prompt named query, if there is one."""
        return self._encode_as(("query",), sentences, options)

    def encode_document(self, sentences: str | Texts, **options: Any) -> Any:
        """As `encode`, with the prompt named document, passage or corpus, the first there is."""
        return self._encode_as(("document", "passage", "corpus"), sentences, options)

    def rerank(
        self,
        query: str,
        documents: Texts,
        top_k: int | None = None,
        return_documents: bool = False,
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
    ) -> list[Ranked]:
        """Documents by how well they answer a query, the best first, as `CrossEncoder.rank` of
        sentence-transformers returns them; of a reranker. `batch_size` and `show_progress_bar` are
        accepted, without effect."""
        natural("batch_size", batch_size, 1)
        if not isinstance(query, str):
            raise TypeError(f"query: a str is meant, not {type(query).__name__}")
        if isinstance(documents, str):
            raise TypeError("documents: a list of str is meant, not one str")
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
    ) -> list[LateChunks]: ...

    def late_chunks(
        self,
        texts: str | Texts,
        chunk: str = "tokens:256",
        *,
        spans: Any = None,
        normalize_embeddings: bool | None = None,
        truncate_dim: int | None = None,
    ) -> Any:
        """A vector for every chunk of a text that is read as a whole: late chunking,
        arXiv:2409.04701.

        Args:
            texts: a text, which gives `LateChunks`, or texts, which give a list of them.
            chunk: tokens:N or sentences:N.
            spans: where to cut instead: for each chunk its first character and the one behind its
                last; a list of such lists for several texts.
        """
        single = isinstance(texts, str)
        all_texts = listed(texts)
        cuts: Any = chunk
        if spans is not None:
            each = [spans] if single else spans
            cuts = [[(int(start), int(end)) for start, end in one] for one in each]
            if any(place < 0 for one in cuts for span in one for place in span):
                raise OptionError("spans: places of characters are counted from 0")
        asked = self._asked(normalize_embeddings, truncate_dim)
        found = [
            LateChunks(text, *chunks)
            for text, chunks in zip(
                all_texts, self._model.late_chunks(all_texts, cuts, asked), strict=True
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
        """The ids of a text's tokens as the model reads them, special ones included; a list of them
        for texts."""
        ids, cut = self._model.tokenize(listed(texts))
        self._tell_cut(*cut)
        return ids[0] if isinstance(texts, str) else ids

    @staticmethod
    def similarity(embeddings1: ArrayLike, embeddings2: ArrayLike) -> NDArray[np.float32]:
        """The cosine of each of the first with each of the second, shape (n, m)."""
        return np.asarray(unit(embeddings1) @ unit(embeddings2).T)

    @staticmethod
    def similarity_pairwise(embeddings1: ArrayLike, embeddings2: ArrayLike) -> NDArray[np.float32]:
        """The cosine of each of the first with its counterpart, shape (n,)."""
        return np.asarray((unit(embeddings1) * unit(embeddings2)).sum(axis=-1))

    # ---- Behind it ----

    def _vectors(
        self,
        texts: list[str],
        show_progress_bar: bool | None,
        precision: Precision,
        normalize: bool | None,
        truncate_dim: int | None,
        ranges: ArrayLike | None,
    ) -> Any:
        _precision.check(precision)
        asked = self._asked(normalize, truncate_dim)
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

    def _asked(self, normalize: bool | None, truncate_dim: int | None) -> dict[str, Any]:
        truncate_dim = natural("truncate_dim", truncate_dim, 1)
        return {
            "normalize": self._normalize if normalize is None else bool(normalize),
            "dimensions": self.truncate_dim if truncate_dim is None else truncate_dim,
        }

    def _prompt(self, name: str | None, prompt: str | None) -> str:
        """What goes before each text."""
        if prompt is not None:
            return prompt
        name = self.default_prompt_name if name is None else name
        if name is None or (name in ("query", "document") and name not in self.prompts):
            return ""  # as sentence-transformers has them unless a model says otherwise
        if name not in self.prompts:
            known = ", ".join(sorted(self.prompts)) or "none"
            raise OptionError(f"prompt_name {name!r}: the prompts are {known}")
        return self.prompts[name]

    def _encode_as(
        self, names: Sequence[str], sentences: str | Texts, options: dict[str, Any]
    ) -> Any:
        if options.get("prompt") is None and options.get("prompt_name") is None:
            options["prompt_name"] = next((name for name in names if name in self.prompts), None)
        return self.encode(sentences, **options)


def _reopen(kind: type[Embedder], source: Any, options: dict[str, Any]) -> Embedder:
    self = kind.__new__(kind)
    self._open(source, dict(options))
    return self


def listed(texts: Any) -> list[str]:
    """Texts as a list: what is in it, the compiled part looks at."""
    if isinstance(texts, str):
        return [texts]
    if isinstance(texts, list):
        return texts
    if isinstance(texts, bytes | bytearray | Mapping):
        raise TypeError(f"a str, or several, are meant, not {type(texts).__name__}")
    for name in ("to_pylist", "tolist"):  # Arrow's, and NumPy's
        if hasattr(texts, name):
            found = getattr(texts, name)()
            return found if isinstance(found, list) else [found]
    try:
        return list(texts)
    except TypeError:
        raise TypeError(f"a str, or several, are meant, not {type(texts).__name__}") from None


def natural(name: str, value: Any, least: int) -> int | None:
    """A whole number, or None."""
    if value is None:
        return None
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name}: an int is meant, not {type(value).__name__}") from None
    if number < least:
        raise OptionError(f"{name} {number}: {least} or more is meant")
    return number


def logging_wanted(show: bool | None) -> bool:
    """Whether a bar is to be shown: as sentence-transformers decides."""
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
