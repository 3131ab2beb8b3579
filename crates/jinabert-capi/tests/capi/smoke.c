/* Every function used as it is meant, then misused on purpose: smoke MODEL RERANKER TASKS [DEVICE].
 *
 * Compiled as C11 and as C++17. MODEL has a vocabulary with `a` as id 28, [CLS] 2 and [SEP] 3.
 * TASKS has the tasks of jina-embeddings-v3.
 */
#include "kit.h"

static jinabert_error error;
static const char *device, *model, *reranker, *tasks;

/* ---- As it is meant ---- */

static void versions(void) {
    CHECK(jinabert_abi_version() == JINABERT_ABI_VERSION);
    CHECK(strchr(jinabert_version(), '.') != NULL);
    CHECK(strcmp(jinabert_status_name(JINABERT_STATUS_BAD_HANDLE), "JINABERT_STATUS_BAD_HANDLE") == 0);
    CHECK(strcmp(jinabert_status_name(-7), "unknown") == 0);
}

static void devices(void) {
    size_t count = 0;
    FINE(jinabert_device_count(&count, &error));
    CHECK(count >= 1);
    jinabert_device entry;
    for (size_t index = 0; index < count; index++) {
        memset(&entry, 0x5a, sizeof entry);
        entry.size = sizeof entry;
        FINE(jinabert_device_at(index, &entry, &error));
        CHECK(entry.size == sizeof entry && strlen(entry.name) > 0 && strlen(entry.option) > 0);
        printf("device %s: %s, %s, %s\n", entry.option, entry.name, entry.backend, entry.kind);
    }
    CHECK(strcmp(entry.option, "cpu") == 0 && entry.software);
    EXPECT(jinabert_device_at(count, &entry, &error), BAD_ARGUMENT, "`index` is");
    CHECK(error.given == count);
    entry.size = 8;
    EXPECT(jinabert_device_at(0, &entry, &error), BAD_ARGUMENT, "`device.size`: expected sizeof(jinabert_device)");
    EXPECT(jinabert_device_at(0, NULL, &error), BAD_ARGUMENT, "`device` is null");
    EXPECT(jinabert_device_count(NULL, &error), BAD_ARGUMENT, "`count` is null");
}

static void texts_and_ids(const jinabert_embedder *embedder, size_t dim) {
    const char *terminated[] = {"a", "a a a", ""};
    const char *bytes[] = {"aXX", "a a aX", NULL};
    const size_t lengths[] = {1, 5, 0};
    float *one = floats(3 * dim), *two = floats(3 * dim);
    size_t tokens[3], truncated[3];
    jinabert_call call;
    memset(&call, 0, sizeof call);
    call.size = sizeof call;
    call.tokens = tokens;
    call.truncated = truncated;
    FINE(jinabert_embed(embedder, terminated, NULL, 3, one, 3 * dim, &call, &error));
    FINE(jinabert_embed(embedder, bytes, lengths, 3, two, 3 * dim, NULL, &error));
    CHECK(furthest(one, two, 3 * dim) == 0);
    CHECK(tokens[0] == 3 && tokens[1] == 5 && tokens[2] == 2 && truncated[1] == 0);

    const uint32_t ids[] = {2, 28, 3, 2, 28, 28, 28, 3};
    const size_t offsets[] = {0, 3, 8};
    FINE(jinabert_embed_ids(embedder, ids, 8, offsets, 2, two, 2 * dim, &error));
    CHECK(furthest(one, two, 2 * dim) < 1e-6f);

    /* More room than is needed stays as it is, and no text is no work. */
    two[dim] = 77.0f;
    FINE(jinabert_embed(embedder, terminated, NULL, 1, two, dim + 1, NULL, &error));
    CHECK(two[dim] == 77.0f);
    FINE(jinabert_embed(embedder, NULL, NULL, 0, NULL, 0, NULL, &error));
    FINE(jinabert_embed_ids(embedder, NULL, 0, NULL, 0, NULL, 0, &error));
    /* Nobody need ask what is wrong. */
    CHECK(jinabert_embed(embedder, terminated, NULL, 1, two, 0, NULL, NULL) != JINABERT_STATUS_OK);
    free(one);
    free(two);
}

/* A text of a task, chosen by the call and by the options. */
static void adapters(void) {
    jinabert_options options = options_on(device);
    const char *text[] = {"a tree"};
    float plain[64], query[64], again[64];
    jinabert_call call;
    memset(&call, 0, sizeof call);
    call.size = sizeof call;
    jinabert_embedder *embedder = open_model(tasks, &options);
    CHECK(dimensions_of(embedder) == 64);
    FINE(jinabert_embed(embedder, text, NULL, 1, plain, 64, NULL, &error));
    call.adapter = "retrieval.query";
    FINE(jinabert_embed(embedder, text, NULL, 1, query, 64, &call, &error));
    CHECK(memcmp(plain, query, sizeof plain) != 0);
    call.adapter = "retrieval";
    EXPECT(jinabert_embed(embedder, text, NULL, 1, query, 64, &call, &error), OPTION, "`text-matching`");
    CHECK(jinabert_free(embedder) == JINABERT_STATUS_OK);

    options.adapter = "retrieval.query";
    embedder = open_model(tasks, &options);
    FINE(jinabert_embed(embedder, text, NULL, 1, again, 64, NULL, &error));
    CHECK(memcmp(query, again, sizeof query) == 0);
    call.adapter = "";
    FINE(jinabert_embed(embedder, text, NULL, 1, again, 64, &call, &error));
    CHECK(memcmp(plain, again, sizeof plain) == 0);
    CHECK(jinabert_free(embedder) == JINABERT_STATUS_OK);

    options.adapter = NULL;
    options.dimensions = 20;
    EXPECT(jinabert_open(tasks, &options, &embedder, &error), OPTION, "16, 32, 64");
    options.any_dimensions = 1;
    embedder = open_model(tasks, &options);
    CHECK(dimensions_of(embedder) == 20 && jinabert_free(embedder) == JINABERT_STATUS_OK);
    options = options_on(device);
    options.adapter = "separation";
    EXPECT(jinabert_open(model, &options, &embedder, &error), OPTION, "no tasks");
}

static void reranking(void) {
    jinabert_options options = options_on(device);
    options.task = JINABERT_TASK_RERANK;
    jinabert_embedder *embedder = open_model(reranker, &options);
    const char *documents[] = {"a b c", "the cat", "nothing"};
    float scores[3], logits[3];
    FINE(jinabert_rerank(embedder, "a cat", JINABERT_NONE, documents, NULL, 3, scores, logits, 3, &error));
    for (int i = 0; i < 3; i++) CHECK(fabs(1 / (1 + exp(-(double)logits[i])) - scores[i]) < 1e-6);
    float again[3];
    FINE(jinabert_rerank(embedder, "a catXX", 5, documents, NULL, 3, NULL, again, 3, &error));
    CHECK(furthest(again, logits, 3) == 0);
    EXPECT(jinabert_rerank(embedder, "a", 1, documents, NULL, 3, scores, NULL, 2, &error), CAPACITY,
           "`scores` has room for 2 elements; 3 documents need 3");
    EXPECT(jinabert_rerank(embedder, "a", 1, documents, NULL, 3, NULL, NULL, 3, &error), BAD_ARGUMENT,
           "`scores` and `logits` are null");
    EXPECT(jinabert_rerank(embedder, NULL, 1, documents, NULL, 3, scores, NULL, 3, &error),
           BAD_ARGUMENT, "`query` is null");
    EXPECT(jinabert_rerank(embedder, "\xc3", 1, documents, NULL, 3, scores, NULL, 3, &error),
           BAD_UTF8, "`query` is not UTF-8 from byte 0 on");
    CHECK(jinabert_free(embedder) == JINABERT_STATUS_OK);
    EXPECT(jinabert_rerank(embedder, "a", 1, documents, NULL, 3, scores, NULL, 3, &error), BAD_HANDLE,
           "was freed");
}

static jinabert_chunking chunking_of(uint32_t unit, size_t every) {
    jinabert_chunking chunking;
    memset(&chunking, 0, sizeof chunking);
    chunking.size = sizeof chunking;
    chunking.unit = unit;
    chunking.every = every;
    return chunking;
}

static void chunks(const jinabert_embedder *embedder, size_t dim) {
    const char *texts[] = {"a a a a a", "A. A a."};
    jinabert_chunking by = chunking_of(JINABERT_CUT_TOKENS, 2);
    size_t count = 99;
    FINE(jinabert_embed_chunks(embedder, texts, NULL, 1, &by, NULL, 0, NULL, 0, &count, &error));
    CHECK(count == 3);
    jinabert_chunk found[8];
    float *vectors = floats(8 * dim);
    EXPECT(jinabert_embed_chunks(embedder, texts, NULL, 1, &by, found, 2, vectors, 8 * dim, &count, &error),
           CAPACITY, "`chunks` has room for 2 elements; 3 chunks need 3");
    CHECK(count == 3 && error.needed == 3 && error.given == 2);
    EXPECT(jinabert_embed_chunks(embedder, texts, NULL, 1, &by, found, 8, vectors, 3 * dim - 1, &count,
                                 &error),
           CAPACITY, "`vectors` has room for");
    CHECK(error.needed == 3 * dim && error.given == 3 * dim - 1 && untouched(vectors, 8 * dim));
    FINE(jinabert_embed_chunks(embedder, texts, NULL, 1, &by, found, 8, vectors, 3 * dim, &count, &error));
    CHECK(count == 3 && found[1].text == 0 && found[1].start == 4 && found[1].end == 8);
    CHECK(untouched(vectors + 3 * dim, 5 * dim) && !untouched(vectors, 1));

    /* Spans of bytes that are the same chunks give the same vectors. */
    const jinabert_span spans[] = {{0, 4}, {4, 8}, {8, 9}, {0, 2}};
    const size_t offsets[] = {0, 3, 4};
    jinabert_chunking at = chunking_of(JINABERT_CUT_SPANS, 0);
    at.spans = spans;
    at.span_count = 4;
    at.span_offsets = offsets;
    float *same = floats(4 * dim);
    FINE(jinabert_embed_chunks(embedder, texts, NULL, 2, &at, found, 8, same, 4 * dim, &count, &error));
    CHECK(count == 4 && found[3].text == 1 && found[3].start == 0 && found[3].end == 2);
    CHECK(furthest(vectors, same, 3 * dim) < 1e-6f);

    by = chunking_of(JINABERT_CUT_SENTENCES, 1);
    FINE(jinabert_embed_chunks(embedder, texts, NULL, 2, &by, found, 8, NULL, 0, &count, &error));
    CHECK(count == 3 && found[2].text == 1 && found[2].start == 3);

    by = chunking_of(JINABERT_CUT_TOKENS, 3);
    by.overlap = 1;
    FINE(jinabert_embed_chunks(embedder, texts, NULL, 1, &by, found, 8, NULL, 0, &count, &error));
    CHECK(count == 2 && found[0].end == 6 && found[1].start == 4 && found[1].end == 9);
    by.overlap = 3;
    EXPECT(jinabert_embed_chunks(embedder, texts, NULL, 1, &by, NULL, 0, NULL, 0, &count, &error),
           BAD_ARGUMENT, "expected a `chunking.overlap` under `chunking.every`, 3, got 3");
    by.size = offsetof(jinabert_chunking, overlap); /* a program of the time before there was one */
    FINE(jinabert_embed_chunks(embedder, texts, NULL, 1, &by, NULL, 0, NULL, 0, &count, &error));
    CHECK(count == 2);

    const jinabert_span wrong[] = {{0, 100}};
    const size_t one[] = {0, 1};
    at.spans = wrong;
    at.span_count = 1;
    at.span_offsets = one;
    EXPECT(jinabert_embed_chunks(embedder, texts, NULL, 1, &at, NULL, 0, NULL, 0, &count, &error), INPUT,
           "passes the end of the text, 9 bytes");
    CHECK(error.index == 0 && count == 0);
    const size_t back[] = {1, 0};
    at.span_offsets = back;
    EXPECT(jinabert_embed_chunks(embedder, texts, NULL, 1, &at, NULL, 0, NULL, 0, &count, &error),
           BAD_ARGUMENT, "`chunking.span_offsets[0]`: 1..0 is no part of 1 elements");
    at.span_offsets = NULL;
    EXPECT(jinabert_embed_chunks(embedder, texts, NULL, 1, &at, NULL, 0, NULL, 0, &count, &error),
           BAD_ARGUMENT, "`chunking.span_offsets` is null");
    by = chunking_of(9, 1);
    EXPECT(jinabert_embed_chunks(embedder, texts, NULL, 1, &by, NULL, 0, NULL, 0, &count, &error),
           BAD_ARGUMENT, "`chunking.unit` is 9");
    by = chunking_of(JINABERT_CUT_TOKENS, 0);
    EXPECT(jinabert_embed_chunks(embedder, texts, NULL, 1, &by, NULL, 0, NULL, 0, &count, &error),
           BAD_ARGUMENT, "`chunking.every` is 0");
    EXPECT(jinabert_embed_chunks(embedder, texts, NULL, 1, NULL, NULL, 0, NULL, 0, &count, &error),
           BAD_ARGUMENT, "`chunking` is null");
    by.every = 1;
    EXPECT(jinabert_embed_chunks(embedder, texts, NULL, 1, &by, NULL, 0, NULL, 0, NULL, &error),
           BAD_ARGUMENT, "`chunk_count` is null");
    EXPECT(jinabert_embed_chunks(embedder, texts, NULL, 1, &by, NULL, 5, NULL, 0, &count, &error),
           BAD_ARGUMENT, "`chunks` is null, with 5 elements");
    free(vectors);
    free(same);
}

/* ---- Progress ---- */

struct watched {
    size_t calls, stop_at, last;
};

static int32_t watch(size_t done, size_t total, void *user) {
    struct watched *watched = (struct watched *)user;
    CHECK(done <= total && done >= watched->last);
    watched->last = done;
    return ++watched->calls == watched->stop_at;
}

static void progress(size_t dim) {
    jinabert_options options = options_on(device);
    options.batch_tokens = 64;
    jinabert_embedder *embedder = open_model(model, &options);
    const char *texts[200];
    for (size_t i = 0; i < 200; i++) texts[i] = "a a a";
    float *vectors = floats(200 * dim);
    struct watched watched = {0, 0, 0};
    jinabert_call call;
    memset(&call, 0, sizeof call);
    call.size = sizeof call;
    call.progress = watch;
    call.user = &watched;
    FINE(jinabert_embed(embedder, texts, NULL, 200, vectors, 200 * dim, &call, &error));
    CHECK(watched.calls > 2 && watched.last == 200);
    struct watched cut = {0, 2, 0};
    call.user = &cut;
    for (size_t i = 0; i < 200 * dim; i++) vectors[i] = 77.0f;
    EXPECT(jinabert_embed(embedder, texts, NULL, 200, vectors, 200 * dim, &call, &error), CANCELLED,
           "cancelled after");
    CHECK(cut.calls == 2 && error.needed == 200 && error.given < 200 && untouched(vectors, 200 * dim));
    /* The handle is as good as before. */
    call.progress = NULL;
    FINE(jinabert_embed(embedder, texts, NULL, 200, vectors, 200 * dim, &call, &error));
    call.size = 1;
    EXPECT(jinabert_embed(embedder, texts, NULL, 200, vectors, 200 * dim, &call, &error), BAD_ARGUMENT,
           "`call.size`: expected sizeof(jinabert_call)");
    CHECK(jinabert_free(embedder) == JINABERT_STATUS_OK);
    free(vectors);
}

/* ---- A model in memory ---- */

static uint8_t *read_file(const char *name, size_t *length) {
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", model, name);
    FILE *file = fopen(path, "rb");
    CHECK(file != NULL && fseek(file, 0, SEEK_END) == 0);
    *length = (size_t)ftell(file);
    rewind(file);
    uint8_t *bytes = (uint8_t *)malloc(*length);
    CHECK(bytes != NULL && fread(bytes, 1, *length, file) == *length);
    fclose(file);
    return bytes;
}

static int released;

static void release(void *user) {
    free(user);
    released++;
}

static void memory(const jinabert_embedder *opened, size_t dim) {
    static const char *const names[] = {"config.json", "model.safetensors", "tokenizer.json"};
    const char *texts[] = {"a a", "b"};
    float *expected = floats(2 * dim), *vectors = floats(2 * dim);
    FINE(jinabert_embed(opened, texts, NULL, 2, expected, 2 * dim, NULL, &error));
    jinabert_options options = options_on(device);
    for (int lend = 0; lend < 2; lend++) {
        jinabert_file files[3];
        memset(files, 0, sizeof files);
        for (int i = 0; i < 3; i++) {
            uint8_t *bytes = read_file(names[i], &files[i].length);
            files[i].name = names[i];
            files[i].bytes = bytes;
            files[i].release = lend ? release : NULL;
            files[i].user = bytes;
        }
        jinabert_embedder *embedder;
        FINE(jinabert_open_memory(files, 3, &options, &embedder, &error));
        if (!lend)
            for (int i = 0; i < 3; i++) free(files[i].user);
        FINE(jinabert_embed(embedder, texts, NULL, 2, vectors, 2 * dim, NULL, &error));
        CHECK(furthest(vectors, expected, 2 * dim) == 0);
        CHECK(jinabert_free(embedder) == JINABERT_STATUS_OK);
    }
    CHECK(released == 3);

    /* Whatever is wrong, what was lent comes back. */
    jinabert_file files[3];
    memset(files, 0, sizeof files);
    for (int i = 0; i < 3; i++) {
        files[i].name = names[i];
        files[i].bytes = (const uint8_t *)"{}";
        files[i].length = 2;
        files[i].release = release;
        files[i].user = malloc(1);
    }
    jinabert_embedder *none = (jinabert_embedder *)(uintptr_t)1;
    EXPECT(jinabert_open_memory(files, 3, &options, &none, &error), MODEL, "config.json");
    CHECK(none == NULL && released == 6);
    files[0].user = malloc(1);
    files[0].name = NULL;
    EXPECT(jinabert_open_memory(files, 1, &options, &none, &error), BAD_ARGUMENT, "`files[0].name` is null");
    CHECK(error.index == 0 && released == 7);
    files[1].user = malloc(1);
    files[1].bytes = NULL;
    EXPECT(jinabert_open_memory(files + 1, 1, &options, &none, &error), BAD_ARGUMENT,
           "`files[0].bytes` is null");
    CHECK(released == 8);
    EXPECT(jinabert_open_memory(NULL, 2, &options, &none, &error), BAD_ARGUMENT, "`files` is null");
    EXPECT(jinabert_open_memory(NULL, 0, &options, &none, &error), READ, "config.json");
    free(expected);
    free(vectors);
}

/* ---- Misuse ---- */

static void bad_opens(void) {
    jinabert_embedder *none = (jinabert_embedder *)(uintptr_t)1;
    EXPECT(jinabert_open(NULL, NULL, &none, &error), BAD_ARGUMENT, "`path` is null");
    CHECK(none == NULL);
    EXPECT(jinabert_open(model, NULL, NULL, &error), BAD_ARGUMENT, "`embedder` is null");
    EXPECT(jinabert_open("", NULL, &none, &error), BAD_ARGUMENT, "`path` is empty: expected the directory");
    EXPECT(jinabert_open("/nowhere", NULL, &none, &error), READ, "/nowhere");
    jinabert_options options = options_on("cuda");
    EXPECT(jinabert_open(model, &options, &none, &error), BAD_ARGUMENT, "`options.device` is `cuda`");
    options = options_on(device);
    options.size = 0;
    EXPECT(jinabert_open(model, &options, &none, &error), BAD_ARGUMENT, "`options.size`: expected sizeof(jinabert_options)");
    options = options_on(device);
    options.dimensions = 100000;
    EXPECT(jinabert_open(model, &options, &none, &error), OPTION, "`options.dimensions` 100000");
    options = options_on(device);
    options.max_length = 1;
    EXPECT(jinabert_open(model, &options, &none, &error), OPTION, "`options.max_length` 1 leaves no room");
    options.on_long = JINABERT_ON_LONG_WINDOW;
    options.max_length = options.overlap = 20;
    EXPECT(jinabert_open(model, &options, &none, &error), OPTION, "`options.overlap` 20 leaves no room");
    options = options_on(device);
    options.on_long = 77;
    EXPECT(jinabert_open(model, &options, &none, &error), BAD_ARGUMENT, "`options.on_long` is 77");
    options = options_on(device);
    options.task = JINABERT_TASK_RERANK;
    EXPECT(jinabert_open(model, &options, &none, &error), MODEL, "not for rerank");
    options = options_on("4095");
    EXPECT(jinabert_open(model, &options, &none, &error), NO_GPU, "4095");
    CHECK(none == NULL);
}

static void bad_embeds(const jinabert_embedder *embedder, size_t dim) {
    const char *texts[] = {"a", "a \xff", NULL};
    float *vectors = floats(3 * dim);
    EXPECT(jinabert_embed(embedder, NULL, NULL, 2, vectors, 3 * dim, NULL, &error), BAD_ARGUMENT,
           "`texts` is null, with 2 elements");
    EXPECT(jinabert_embed(embedder, texts, NULL, 1, NULL, 3 * dim, NULL, &error), BAD_ARGUMENT,
           "`vectors` is null");
    EXPECT(jinabert_embed(embedder, texts, NULL, 1, NULL, 0, NULL, &error), CAPACITY, "room for 0");
    EXPECT(jinabert_embed(embedder, texts, NULL, 1, vectors, dim - 1, NULL, &error), CAPACITY,
           "`vectors` has room for");
    CHECK(error.needed == dim && error.given == dim - 1);
    EXPECT(jinabert_embed(embedder, texts, NULL, 2, vectors, 3 * dim, NULL, &error), BAD_UTF8,
           "`texts[1]` is not UTF-8 from byte 2 on: 0xff");
    CHECK(error.index == 1 && error.given == 2);
    const char *hole[] = {"a", NULL};
    EXPECT(jinabert_embed(embedder, hole, NULL, 2, vectors, 3 * dim, NULL, &error), BAD_ARGUMENT,
           "`texts[1]` is null");
    const size_t lengths[] = {1, 5}, huge[] = {1, JINABERT_NONE / 2 + 2};
    EXPECT(jinabert_embed(embedder, hole, lengths, 2, vectors, 3 * dim, NULL, &error), BAD_ARGUMENT,
           "`texts[1]` is null, with 5 elements");
    EXPECT(jinabert_embed(embedder, texts, huge, 2, vectors, 3 * dim, NULL, &error), BAD_ARGUMENT,
           "more than there are addresses");
    /* Counts that overflow when they are multiplied, or pass what an object may have. */
    EXPECT(jinabert_embed(embedder, texts, NULL, JINABERT_NONE, vectors, 3 * dim, NULL, &error),
           BAD_ARGUMENT, "more than can be counted");
    EXPECT(jinabert_embed(embedder, texts, NULL, JINABERT_NONE / dim, vectors, 3 * dim, NULL, &error),
           CAPACITY, "`vectors` has room for");
    EXPECT(jinabert_embed(embedder, texts, NULL, 1, vectors, JINABERT_NONE, NULL, &error), BAD_ARGUMENT,
           "more than there are addresses");
    EXPECT(jinabert_embed(embedder, texts, NULL, 1, (float *)((char *)vectors + 1), dim, NULL, &error),
           BAD_ARGUMENT, "`vectors` is not a multiple of 4 bytes");
    char *long_text = (char *)malloc(100001);
    CHECK(long_text != NULL);
    for (size_t i = 0; i < 100000; i++) long_text[i] = i % 2 ? ' ' : 'a';
    long_text[100000] = 0;
    const char *longs[] = {"a", long_text};
    EXPECT(jinabert_embed(embedder, longs, NULL, 2, vectors, 3 * dim, NULL, &error), TOO_LONG, "input 1: ");
    CHECK(error.index == 1 && error.needed > error.given && error.given > 0);
    free(long_text);

    const uint32_t ids[] = {2, 28, 3, 4000000000u};
    const size_t fine[] = {0, 3}, outside[] = {0, 5}, back[] = {0, 3, 2}, empty[] = {0, 0};
    const size_t last[] = {3, 4};
    EXPECT(jinabert_embed_ids(embedder, ids, 3, outside, 1, vectors, dim, &error), BAD_ARGUMENT,
           "`offsets[0]`: 0..5 is no part of 3 elements");
    EXPECT(jinabert_embed_ids(embedder, ids, 3, back, 2, vectors, 2 * dim, &error), BAD_ARGUMENT,
           "`offsets[1]`: 3..2 is no part");
    EXPECT(jinabert_embed_ids(embedder, ids, 3, empty, 1, vectors, dim, &error), INPUT, "no tokens");
    EXPECT(jinabert_embed_ids(embedder, ids, 4, last, 1, vectors, dim, &error), INPUT, "id 4000000000");
    EXPECT(jinabert_embed_ids(embedder, NULL, 3, fine, 1, vectors, dim, &error), BAD_ARGUMENT,
           "`ids` is null");
    EXPECT(jinabert_embed_ids(embedder, ids, 3, NULL, 1, vectors, dim, &error), BAD_ARGUMENT,
           "`offsets` is null");
    EXPECT(jinabert_embed_ids(embedder, ids, 3, fine, 1, vectors, dim - 1, &error), CAPACITY, "`vectors`");
    EXPECT(jinabert_rerank(embedder, "a", 1, texts, NULL, 1, vectors, NULL, 1, &error), OPTION,
           "open it with `options.task` JINABERT_TASK_RERANK");
    CHECK(untouched(vectors, 3 * dim));
    jinabert_description is;
    is.size = 3;
    EXPECT(jinabert_describe(embedder, &is, &error), BAD_ARGUMENT, "`description.size`: expected sizeof(jinabert_description)");
    EXPECT(jinabert_describe(embedder, NULL, &error), BAD_ARGUMENT, "`description` is null");
    free(vectors);
}

static void bad_handles(size_t dim) {
    jinabert_options options = options_on(device);
    jinabert_embedder *embedder = open_model(model, &options);
    const char *texts[] = {"a"};
    float *vectors = floats(dim);
    CHECK(jinabert_free(embedder) == JINABERT_STATUS_OK);
    CHECK(jinabert_free(embedder) == JINABERT_STATUS_BAD_HANDLE);
    CHECK(jinabert_free(NULL) == JINABERT_STATUS_OK);
    EXPECT(jinabert_embed(embedder, texts, NULL, 1, vectors, dim, NULL, &error), BAD_HANDLE, "was freed");
    jinabert_description is;
    is.size = sizeof is;
    EXPECT(jinabert_describe(embedder, &is, &error), BAD_HANDLE, "was freed");
    /* Its place is taken by another, which the old handle does not reach. */
    jinabert_embedder *other = open_model(model, &options);
    CHECK(other != embedder);
    EXPECT(jinabert_embed(embedder, texts, NULL, 1, vectors, dim, NULL, &error), BAD_HANDLE, "was freed");
    CHECK(jinabert_free(embedder) == JINABERT_STATUS_BAD_HANDLE);
    CHECK(jinabert_free(other) == JINABERT_STATUS_OK);
    EXPECT(jinabert_embed(NULL, texts, NULL, 1, vectors, dim, NULL, &error), BAD_HANDLE, "is null");
    jinabert_embedder *invented[] = {(jinabert_embedder *)vectors, (jinabert_embedder *)(uintptr_t)1,
                                     (jinabert_embedder *)UINTPTR_MAX};
    for (size_t i = 0; i < 3; i++) {
        EXPECT(jinabert_embed(invented[i], texts, NULL, 1, vectors, dim, NULL, &error), BAD_HANDLE,
               "is no handle");
        CHECK(jinabert_free(invented[i]) == JINABERT_STATUS_BAD_HANDLE);
    }
    CHECK(untouched(vectors, dim));
    free(vectors);
}

int main(int argc, char **argv) {
    CHECK(argc >= 4);
    model = argv[1];
    reranker = argv[2];
    tasks = argv[3];
    device = argc > 4 ? argv[4] : "cpu";
    versions();
    devices();
    CHECK(jinabert_open_handles() == 0);
    jinabert_options options = options_on(device);
    jinabert_embedder *embedder = open_model(model, &options);
    size_t dim = dimensions_of(embedder);
    CHECK(jinabert_open_handles() == 1 && dim > 1);
    texts_and_ids(embedder, dim);
    chunks(embedder, dim);
    memory(embedder, dim);
    bad_embeds(embedder, dim);
    bad_handles(dim);
    bad_opens();
    reranking();
    adapters();
    progress(dim);
    CHECK(jinabert_free(embedder) == JINABERT_STATUS_OK);
    CHECK(jinabert_open_handles() == 0);
    puts("all as it should be");
    return 0;
}
