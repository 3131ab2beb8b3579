/* jinabert: text embeddings of JinaBERT models on any GPU, from C and C++.
 *
 * Made by cbindgen of src/capi: edit there, not here (CONTRIBUTING.md).
 *
 * Rules that hold for every function:
 *
 * - Errors. A function returns a jinabert_status; JINABERT_STATUS_OK is 0. The last argument may
 *   lead to a jinabert_error, which then says what, where and how much; or be NULL. With an error
 *   nothing is written but that, unless the function says so. Nothing that a caller gets wrong
 *   short of a wild pointer ends the process: null and misaligned pointers, sizes that overflow,
 *   broken UTF-8, freed and invented handles are errors, and so are faults of the library itself:
 *   every function catches panics (JINABERT_STATUS_INTERNAL). What is not caught: a pointer that
 *   leads to less than its count says, memory that the host has no more of, the stack's end.
 * - Memory. What the library is given it reads during the call and does not keep; what it gives is
 *   written to memory of the caller's. Only models are the library's, by their handles. Outputs
 *   have a capacity in elements, which may be larger than what is needed. They must not overlap
 *   each other.
 * - Null. A pointer to a number of elements may be NULL where the number is 0.
 * - Threads. Every function may be called from any thread at any time, with the same handle too;
 *   there is no state per thread. What the caller lends must not be written meanwhile. After
 *   fork(), the child must not use the library.
 * - Text is UTF-8.
 * - Structs that begin with `size` are versioned: set it to sizeof, and the rest to 0.
 * - stderr. The library writes nothing by itself, apart from what a panic says; drivers may.
 */


#ifndef JINABERT_H
#define JINABERT_H

#include <stddef.h>
#include <stdint.h>

/* No index; a length that is to be found by the NUL at the end. */
#define JINABERT_NONE ((size_t)-1)


// The version of the binary interface that this header is of.  It grows when a program that was
// compiled against an older header would not work any more; new functions, statuses, options and
// fields at the end of structs with a `size` leave it as it is.
#define JINABERT_ABI_VERSION 1

// Bytes of `jinabert_error.message`, the NUL at its end included.
#define JINABERT_MESSAGE_BYTES 512

// How a call ended.  Numbers keep their meaning; later versions may add some.
typedef enum jinabert_status {
    // It did what was asked.
    JINABERT_STATUS_OK = 0,
    // An argument cannot be right: a null pointer where there must be something, a pointer out of
    // alignment, sizes that pass the address space, offsets that run backwards, a struct whose
    // `size` is not set, a number that no enum has.
    JINABERT_STATUS_BAD_ARGUMENT = 1,
    // The handle is null, was freed, or never came from this library.
    JINABERT_STATUS_BAD_HANDLE = 2,
    // An output array is too small.  Nothing was written; `needed` and `given` count elements.
    JINABERT_STATUS_CAPACITY = 3,
    // A text, path or name is not UTF-8.  `index` is the text, `given` the byte at fault.
    JINABERT_STATUS_BAD_UTF8 = 4,
    // Options contradict the model or each other.
    JINABERT_STATUS_OPTION = 5,
    // An input cannot be embedded: ids outside the vocabulary, no tokens, spans that do not suit.
    JINABERT_STATUS_INPUT = 6,
    // A text has more tokens than the limit, and is not to be truncated.  `needed` is its length
    // in tokens, `given` the limit.
    JINABERT_STATUS_TOO_LONG = 7,
    // A model file is missing or unreadable.
    JINABERT_STATUS_READ = 8,
    // Model files are damaged, contradict each other, or are not what is asked for.
    JINABERT_STATUS_MODEL = 9,
    // There is no such device, or it lacks something.
    JINABERT_STATUS_NO_GPU = 10,
    // The device failed or was lost, and trying again did not help.
    JINABERT_STATUS_DEVICE = 11,
    // The device has no room, not even for one text at a time.
    JINABERT_STATUS_MEMORY = 12,
    // What the device computed is not a number.
    JINABERT_STATUS_NOT_FINITE = 13,
    // The progress callback ended the call.  `given` texts of `needed` were done.
    JINABERT_STATUS_CANCELLED = 14,
    // A fault of the library: it panicked, and the panic was caught.  Handles stay usable.
    JINABERT_STATUS_INTERNAL = 15,
} jinabert_status;

// `jinabert_options.task`: what the model is for.
typedef enum jinabert_task {
    // One vector per text, from a model that was made for it.
    JINABERT_TASK_EMBED = 0,
    // A score for a pair of texts: for `jinabert_rerank`.
    JINABERT_TASK_RERANK = 1,
    // One vector per text from the encoder of any model.
    JINABERT_TASK_ENCODE = 2,
} jinabert_task;

// `jinabert_options.dtype`: how the device stores weights and wide activations.
typedef enum jinabert_dtype {
    // 32-bit floats.
    JINABERT_DTYPE_F32 = 0,
    // 16-bit floats, half the memory; sums stay in 32.  On a GPU.
    JINABERT_DTYPE_F16 = 1,
} jinabert_dtype;

// `jinabert_options.on_long`: what happens to a text over the limit.
typedef enum jinabert_on_long {
    // It is JINABERT_STATUS_TOO_LONG.
    JINABERT_ON_LONG_ERROR = 0,
    // Its last tokens are dropped.
    JINABERT_ON_LONG_TRUNCATE = 1,
    // It is read in windows; its vector is the mean over what all of them make of it.
    JINABERT_ON_LONG_WINDOW = 2,
} jinabert_on_long;

// `jinabert_options.pooling`: what of a text's tokens its vector is made of.
typedef enum jinabert_pooling {
    // As the model's files declare it (`modules.json`); the mean where they say nothing.
    JINABERT_POOLING_AUTO = 0,
    // The mean of all.
    JINABERT_POOLING_MEAN = 1,
    // The first token.
    JINABERT_POOLING_CLS = 2,
} jinabert_pooling;

// `jinabert_options.tune`: whether kernels are fitted to the GPU.
typedef enum jinabert_tune {
    // As an earlier search found, if there was one.
    JINABERT_TUNE_KNOWN = 0,
    // The usual kernels.
    JINABERT_TUNE_OFF = 1,
    // Search once, for up to 3 seconds, and keep the result on disk (JINABERT_CACHE says where).
    JINABERT_TUNE_SEARCH = 2,
} jinabert_tune;

// `jinabert_options.fallback`: whether the CPU takes over where a GPU failed twice.
typedef enum jinabert_fallback {
    // Where the device is "auto".
    JINABERT_FALLBACK_AUTO = 0,
    // Yes.
    JINABERT_FALLBACK_YES = 1,
    // No: calls end with JINABERT_STATUS_DEVICE.
    JINABERT_FALLBACK_NO = 2,
} jinabert_fallback;

// `jinabert_chunking.unit`: where to cut.
typedef enum jinabert_cut {
    // After every `every` tokens.
    JINABERT_CUT_TOKENS = 0,
    // After every `every` sentences, as Unicode's UAX #29 has them.
    JINABERT_CUT_SENTENCES = 1,
    // At the caller's spans.
    JINABERT_CUT_SPANS = 2,
} jinabert_cut;

// An open model.
//
// A handle is a number in the guise of a pointer: it is looked up and never followed, so that one
// that was freed, freed twice or made up is JINABERT_STATUS_BAD_HANDLE, not a crash.  (Two handles
// differ for as long as the process lives: until 2^32 have been opened in the same place, on 32
// bits 2^12, after which the place is no longer used.)
//
// Threads: a handle may be used by any number of threads at the same time.  Each call counts as a
// user, so `jinabert_free` is safe while others are under way: they end as if nothing had
// happened, and the last of them frees the model.
typedef struct jinabert_embedder jinabert_embedder;

// How to open a model.  Zeros are the defaults: `jinabert_options options = {sizeof options};`
//
// The struct ages by its `size`.  A later version adds fields at the end; a program that does not
// know them gives a smaller size and gets their defaults, and an older library refuses bytes that
// it does not know unless they are 0.  So both sides may be the newer one, the compiler checks
// every field's type, and there is nothing to free, which is why it is not a handle with setters.
typedef struct jinabert_options {
    // sizeof(jinabert_options)
    size_t size;
    // "auto" (a hardware GPU, otherwise the CPU), "cpu", "vulkan", "metal", "dx12", "gl", or what
    // `jinabert_device.option` says; "auto" if NULL.
    const char *device;
    // Longest text in tokens, special ones included; the model's limit if 0.
    size_t max_length;
    // Tokens that two windows of a text share; 256 if 0, none if JINABERT_NONE.
    size_t overlap;
    // Leading components to keep, before the norm; all if 0.
    size_t dimensions;
    // Tokens in one batch; the device's default if 0.
    size_t batch_tokens;
    // Milliseconds without an answer after which the device counts as hung; the library's default
    // if 0.
    size_t patience_ms;
    // Milliseconds that a GPU is kept at a time, by prediction; 100, which is the most, if 0.  An
    // application that draws on it meanwhile may want 4.
    size_t slice_ms;
    // A jinabert_task.
    uint32_t task;
    // A jinabert_dtype.
    uint32_t dtype;
    // A jinabert_on_long.
    uint32_t on_long;
    // A jinabert_pooling.
    uint32_t pooling;
    // A jinabert_tune.
    uint32_t tune;
    // Not 0: vectors are as the model gives them, not of unit length.
    uint32_t raw;
    // Not 0: a text has the same bits in every batch, not only the same to rounding.
    uint32_t deterministic;
    // A jinabert_fallback.
    uint32_t fallback;
} jinabert_options;

// What went wrong, in the caller's memory.  It need not be initialised: every function that takes
// one writes all of it, on success too.  Where a function takes one it may be NULL.
//
// Threads: an error belongs to the call that it is given to, so nothing is kept in the thread: it
// does not matter where calls run or whether a scheduler moves them between threads.
typedef struct jinabert_error {
    // What the function returned.
    enum jinabert_status status;
    // The text, list, file or span at fault, from 0; `JINABERT_NONE` if it is none of them.
    size_t index;
    // How much would be needed, where `status` says so; otherwise 0.
    size_t needed;
    // How much there is, where `status` says so; otherwise 0.
    size_t given;
    // For people: UTF-8 that names the thing, the limit and the value; ends with NUL; empty on
    // success.  A longer one is cut between two characters.
    char message[JINABERT_MESSAGE_BYTES];
} jinabert_error;

// Says that the bytes of a `jinabert_file` are no longer needed.
//
// Threads: called once for each file, by the thread that ends the last use of the model, or that
// fails to open it.  It must not unwind or longjmp.
typedef void (*jinabert_release)(void *user);

// A file of a model in memory.
typedef struct jinabert_file {
    // "config.json", "model.safetensors", "tokenizer.json", …; ends with NUL.
    const char *name;
    // What is in it.
    const uint8_t *bytes;
    // How many bytes.
    size_t length;
    // NULL: the bytes are copied before `jinabert_open_memory` returns.  Otherwise they are used
    // where they are, must not change, and `release` is called when they are no longer needed: the
    // weights are read again when a device was lost, so they are needed as long as the model is.
    // It is called for every file of a call, also if that ends with an error.
    jinabert_release release;
    // Handed to `release`.
    void *user;
} jinabert_file;

// What a model is.  `size` is set by the caller, the rest by `jinabert_describe`.
typedef struct jinabert_description {
    // sizeof(jinabert_description)
    size_t size;
    // Components of a vector: an output for `count` texts has `count * dimensions` floats.
    size_t dimensions;
    // Longest text in tokens, special ones included.
    size_t max_length;
    // Tokens of a batch, unless a single text has more.
    size_t batch_tokens;
    // Bytes that the device holds for it now.
    uint64_t allocated_bytes;
    // Not 0: there is a tokenizer, so that texts can be embedded, not only ids.
    uint32_t reads_texts;
    // Not 0: it runs on the CPU.
    uint32_t on_cpu;
    // What it runs on, for people; ends with NUL.
    char device[256];
} jinabert_description;

// A device.  `size` is set by the caller, the rest by `jinabert_device_at`.  Strings end with NUL.
typedef struct jinabert_device {
    // sizeof(jinabert_device)
    size_t size;
    // Bytes that a kernel may see in one piece; 0 for the CPU, which has no such limit.
    uint64_t max_binding_bytes;
    // Not 0: it computes on the CPU.
    uint32_t software;
    // Not 0: its shaders compute with 16-bit floats.
    uint32_t f16;
    // For `jinabert_options.device`: "cpu", or a number.  Numbers are positions in the list that
    // the last `jinabert_device_count` made; they change only with the machine's hardware and
    // drivers.
    char option[32];
    // As the driver names it.
    char name[256];
    // "vulkan", "metal", "dx12", "gl", "cpu".
    char backend[16];
    // "discrete", "integrated", "virtual", "software", "other".
    char kind[16];
    // Driver and version, where they are known.
    char driver[256];
} jinabert_device;

// Called between batches: `done` of `total` texts are embedded.  Not 0 cancels the call, which
// then is JINABERT_STATUS_CANCELLED.
//
// Threads: the one that called.  The callback may use the library, this handle too, and may free
// the handle.  It must not unwind (no C++ exceptions) or longjmp.
typedef int32_t (*jinabert_progress)(size_t done, size_t total, void *user);

// What more there is to say about one call; zeros where nothing is.  Its `size` is what that of
// `jinabert_options` is.
typedef struct jinabert_call {
    // sizeof(jinabert_call)
    size_t size;
    // Hears of the progress; NULL for nobody.
    jinabert_progress progress;
    // Handed to `progress`.
    void *user;
    // NULL, or room for a number for every text: its tokens that went into the vector, special
    // ones included.
    size_t *tokens;
    // NULL, or room for a number for every text: 0, or the tokens of the whole text where some
    // were dropped.
    size_t *truncated;
} jinabert_call;

// Bytes of a text.
typedef struct jinabert_span {
    // The first; a character begins there.
    size_t start;
    // The one behind the last.
    size_t end;
} jinabert_span;

// How to cut texts.  Its `size` is what that of `jinabert_options` is.
typedef struct jinabert_chunking {
    // sizeof(jinabert_chunking)
    size_t size;
    // How many tokens or sentences a chunk has, from 1 on; the last may have fewer.
    size_t every;
    // Spans of the texts, those of one after those of the other; in order, without overlap, each
    // with the first character of at least one token.  What lies between belongs to no chunk.
    const struct jinabert_span *spans;
    // How many there are, of all texts together.
    size_t span_count;
    // `count + 1` of them: text `n` has `spans[span_offsets[n]]` up to, without it,
    // `spans[span_offsets[n + 1]]`, at least one.
    const size_t *span_offsets;
    // A jinabert_cut.
    uint32_t unit;
    // 0.
    uint32_t reserved;
} jinabert_chunking;

// A chunk of a text.
typedef struct jinabert_chunk {
    // Which text.
    size_t text;
    // Its first byte there.
    size_t start;
    // The byte behind its last.
    size_t end;
    // Its first token, special ones counted.
    size_t first_token;
    // The token behind its last.
    size_t end_token;
} jinabert_chunk;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

// The version of the binary interface that the library was built with.  Where it is not
// JINABERT_ABI_VERSION, header and library do not belong together: call nothing else.
//
// Threads: any, at any time.
uint32_t jinabert_abi_version(void);

// The version of the library, such as "0.1.0".
//
// Memory: the string is the library's and lasts as long as the process.
// Threads: any, at any time.
const char *jinabert_version(void);

// The name of a status, such as "JINABERT_STATUS_OK"; "unknown" for a number that is none.
//
// Memory: the string is the library's and lasts as long as the process.
// Threads: any, at any time.
const char *jinabert_status_name(int32_t status);

// Opens a model directory: config.json, model.safetensors or shards and their index,
// tokenizer.json (without it, only token ids can be embedded).  The files must not change while
// the model is open.
//
// `path`: ends with NUL; UTF-8, on Unix any bytes.
// `options`: NULL for the defaults.
// `embedder`: becomes the handle, to be freed with `jinabert_free`; NULL if there is an error.
// Threads: any, at the same time too.
// Errors: READ and MODEL for the files, NO_GPU, DEVICE and MEMORY for the device, OPTION for
// options that contradict the model, BAD_ARGUMENT for what no model could be opened with.
enum jinabert_status jinabert_open(const char *path,
                                   const struct jinabert_options *options,
                                   struct jinabert_embedder **embedder,
                                   struct jinabert_error *error);

// As `jinabert_open`, for files that the caller has in memory.
//
// `files`: `count` of them; as many names as a directory would have.
// Memory: `files` and names are not looked at after the call; for the bytes see `jinabert_file`.
// Threads: any, at the same time too.
// Errors: as `jinabert_open`; `index` is the file where one is null or is no UTF-8.
enum jinabert_status jinabert_open_memory(const struct jinabert_file *files,
                                          size_t count,
                                          const struct jinabert_options *options,
                                          struct jinabert_embedder **embedder,
                                          struct jinabert_error *error);

// Frees a model.  Calls that are under way in other threads end as if nothing had happened, and
// the last of them gives its memory back.
//
// `embedder`: no longer a handle; NULL does nothing.
// Threads: any, at the same time as other calls with the handle too.
// Errors: BAD_HANDLE if it was freed before or is none.
enum jinabert_status jinabert_free(struct jinabert_embedder *embedder);

// How many models are open in this process.
//
// Threads: any, at any time.
size_t jinabert_open_handles(void);

// Says what a model is.
//
// `description`: its `size` must be set.
// Threads: any, at the same time too; may wait until a batch under way is
// done, on the CPU, or handed over.
// Errors: BAD_HANDLE, BAD_ARGUMENT.
enum jinabert_status jinabert_describe(const struct jinabert_embedder *embedder,
                                       struct jinabert_description *description,
                                       struct jinabert_error *error);

// Looks for devices, which takes drivers up to a second; hardware comes first, the CPU last.
//
// `count`: becomes how many there are, at least 1.
// Threads: any, at the same time too.  The list that is made belongs to the process.
// Errors: BAD_ARGUMENT.
enum jinabert_status jinabert_device_count(size_t *count, struct jinabert_error *error);

// Says what a device is.
//
// `index`: from 0, below what `jinabert_device_count` said last.
// `device`: its `size` must be set.
// Threads: any, at the same time too.
// Errors: BAD_ARGUMENT, with the number of devices in `given` if `index` is too large.
enum jinabert_status jinabert_device_at(size_t index,
                                        struct jinabert_device *device,
                                        struct jinabert_error *error);

// Embeds texts, in order.
//
// `texts`: `count` pointers to UTF-8.
// `lengths`: bytes of each text, which then may hold NULs and need not end with one; NULL: every
// text ends with NUL.  An empty text is embedded too.
// `vectors`: the caller's, room for `capacity` floats; `count * dimensions` of them are written,
// row by row, when all are computed; with an error none.
// `call`: NULL, or more about this call.
// Threads: any, at the same time with one handle too; their batches take turns on the device.
// Errors: TOO_LONG for a text over the limit, unless it is to be truncated or read in windows;
// BAD_UTF8; CAPACITY; OPTION if the model has no tokenizer; DEVICE, MEMORY, NOT_FINITE if the
// device fails; CANCELLED.
enum jinabert_status jinabert_embed(const struct jinabert_embedder *embedder,
                                    const char *const *texts,
                                    const size_t *lengths,
                                    size_t count,
                                    float *vectors,
                                    size_t capacity,
                                    const struct jinabert_call *call,
                                    struct jinabert_error *error);

// Embeds lists of token ids as they are given, special tokens included by the caller, in order.
//
// `ids`: `id_count` of them, the lists one after the other.
// `offsets`: `count + 1` of them: list `n` is `ids[offsets[n]]` up to, without it,
// `ids[offsets[n + 1]]`.  They never decrease, and the last is not above `id_count`.
// `vectors`: as for `jinabert_embed`.
// Threads: as `jinabert_embed`.
// Errors: INPUT for an empty list and an id outside the vocabulary, TOO_LONG (ids are never
// truncated; the limit does not hold for windows), BAD_ARGUMENT for the offsets, CAPACITY,
// DEVICE, MEMORY, NOT_FINITE.
enum jinabert_status jinabert_embed_ids(const struct jinabert_embedder *embedder,
                                        const uint32_t *ids,
                                        size_t id_count,
                                        const size_t *offsets,
                                        size_t count,
                                        float *vectors,
                                        size_t capacity,
                                        struct jinabert_error *error);

// Scores each document for a query, in the order given; of a model opened with
// JINABERT_TASK_RERANK.
//
// `query`: UTF-8 of `query_length` bytes, or up to its NUL if that is JINABERT_NONE.
// `documents`, `lengths`: as `texts` of `jinabert_embed`.
// `scores`: the caller's, room for `capacity` floats, from 0 to 1: the sigmoid of the classifier's
// logit; NULL if only logits are wanted.
// `logits`: the same before the sigmoid, room for `capacity` floats as well; NULL if only scores
// are wanted.
// Threads: as `jinabert_embed`.
// Errors: TOO_LONG for a pair over the limit, unless it is to be truncated; `index` is the
// document; OPTION if the model was not opened for it; MODEL if it gives more than one score;
// otherwise as `jinabert_embed`.
enum jinabert_status jinabert_rerank(const struct jinabert_embedder *embedder,
                                     const char *query,
                                     size_t query_length,
                                     const char *const *documents,
                                     const size_t *lengths,
                                     size_t count,
                                     float *scores,
                                     float *logits,
                                     size_t capacity,
                                     struct jinabert_error *error);

// Embeds the chunks of texts, each text read as a whole ("late chunking", arXiv:2409.04701).
//
// How many chunks there are is known only when the texts are tokenised.  So call it twice: first
// with `vectors` NULL and `vector_capacity` 0, which computes nothing and says how many there are,
// then with room for them; or once, with room that will do.
//
// `texts`, `lengths`, `count`: as for `jinabert_embed`.
// `chunking`: its `size` must be set.
// `chunks`: the caller's, room for `chunk_capacity` of them: where each lies, those of one text
// after those of the other; NULL if nobody wants to know.
// `vectors`: the caller's, room for `vector_capacity` floats; a vector for each chunk, row by row.
// `chunk_count`: becomes the number of chunks, also with CAPACITY; with any other error 0.
// Threads: as `jinabert_embed`.
// Errors: INPUT for spans that do not suit their text (`index` is the text), BAD_ARGUMENT for
// offsets; CAPACITY, after which nothing but `chunk_count` is written; otherwise as
// `jinabert_embed`.
enum jinabert_status jinabert_embed_chunks(const struct jinabert_embedder *embedder,
                                           const char *const *texts,
                                           const size_t *lengths,
                                           size_t count,
                                           const struct jinabert_chunking *chunking,
                                           struct jinabert_chunk *chunks,
                                           size_t chunk_capacity,
                                           float *vectors,
                                           size_t vector_capacity,
                                           size_t *chunk_count,
                                           struct jinabert_error *error);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* JINABERT_H */
