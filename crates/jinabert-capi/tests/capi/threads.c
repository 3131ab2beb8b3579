/* One handle in several threads, and freed while they use it: threads MODEL [DEVICE]. */
#include "kit.h"

enum { THREADS = 4, ROUNDS = 40, TEXTS = 8 };

static const char *const texts[TEXTS] = {"a",   "a a a", "the cat", "b c d e f", "",
                                         "a b", "x y z", "one two three four"};
static jinabert_embedder *embedder;
static size_t dim;
static float *expected;

/* Until the handle is freed, if it is: how many rounds were right. */
static void *use(void *counted) {
    jinabert_error error;
    size_t *rounds = (size_t *)counted;
    float *vectors = floats(TEXTS * dim);
    for (*rounds = 0; *rounds < ROUNDS; ++*rounds) {
        jinabert_status status =
            jinabert_embed(embedder, texts, NULL, TEXTS, vectors, TEXTS * dim, NULL, &error);
        if (status == JINABERT_STATUS_BAD_HANDLE) break;
        CHECK(status == JINABERT_STATUS_OK);
        CHECK(furthest(vectors, expected, TEXTS * dim) <= 1e-5f);
    }
    free(vectors);
    return NULL;
}

/* It uses the handle that it is called about and frees it: the call goes on, and its end is the
 * model's. */
static int32_t free_it(size_t done, size_t total, void *user) {
    float *vectors = floats(dim);
    jinabert_status used = jinabert_embed((jinabert_embedder *)user, texts, NULL, 1, vectors, dim, NULL, NULL);
    CHECK(done <= total);
    CHECK(used == JINABERT_STATUS_OK || used == JINABERT_STATUS_BAD_HANDLE);
    free(vectors);
    jinabert_status status = jinabert_free((jinabert_embedder *)user);
    CHECK(status == JINABERT_STATUS_OK || status == JINABERT_STATUS_BAD_HANDLE);
    return 0;
}

static void run(int freed) {
    pthread_t threads[THREADS];
    size_t rounds[THREADS], all = 0;
    for (int i = 0; i < THREADS; i++) CHECK(pthread_create(&threads[i], NULL, use, &rounds[i]) == 0);
    if (freed) {
        jinabert_error error;
        float *vectors = floats(dim);
        FINE(jinabert_embed(embedder, texts, NULL, 1, vectors, dim, NULL, &error));
        CHECK(jinabert_free(embedder) == JINABERT_STATUS_OK);
        EXPECT(jinabert_embed(embedder, texts, NULL, 1, vectors, dim, NULL, &error), BAD_HANDLE,
               "was freed");
        free(vectors);
    }
    for (int i = 0; i < THREADS; i++) {
        CHECK(pthread_join(threads[i], NULL) == 0);
        all += rounds[i];
    }
    CHECK(freed || all == (size_t)THREADS * ROUNDS);
    printf("%zu of %d rounds%s\n", all, THREADS * ROUNDS, freed ? ", then it was freed" : "");
}

/* As many threads as there are free the same handle: one of them does. */
static void *free_once(void *status) {
    *(jinabert_status *)status = jinabert_free(embedder);
    return NULL;
}

static void free_together(void) {
    pthread_t threads[THREADS];
    jinabert_status ended[THREADS];
    int done = 0;
    for (int i = 0; i < THREADS; i++)
        CHECK(pthread_create(&threads[i], NULL, free_once, &ended[i]) == 0);
    for (int i = 0; i < THREADS; i++) {
        CHECK(pthread_join(threads[i], NULL) == 0);
        CHECK(ended[i] == JINABERT_STATUS_OK || ended[i] == JINABERT_STATUS_BAD_HANDLE);
        done += ended[i] == JINABERT_STATUS_OK;
    }
    CHECK(done == 1);
}

int main(int argc, char **argv) {
    CHECK(argc >= 2);
    jinabert_error error;
    jinabert_options options = options_on(argc > 2 ? argv[2] : "cpu");
    embedder = open_model(argv[1], &options);
    dim = dimensions_of(embedder);
    expected = floats(TEXTS * dim);
    FINE(jinabert_embed(embedder, texts, NULL, TEXTS, expected, TEXTS * dim, NULL, &error));
    run(0);
    run(1);
    embedder = open_model(argv[1], &options);
    free_together();

    embedder = open_model(argv[1], &options);
    jinabert_call call;
    memset(&call, 0, sizeof call);
    call.size = sizeof call;
    call.progress = free_it;
    call.user = embedder;
    FINE(jinabert_embed(embedder, texts, NULL, TEXTS, expected, TEXTS * dim, &call, &error));
    EXPECT(jinabert_embed(embedder, texts, NULL, TEXTS, expected, TEXTS * dim, NULL, &error), BAD_HANDLE,
           "was freed");
    CHECK(jinabert_open_handles() == 0);
    free(expected);
    puts("all as it should be");
    return 0;
}
