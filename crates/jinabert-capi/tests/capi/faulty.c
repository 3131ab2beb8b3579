/* What the sanitizer and valgrind must find: faulty MODEL leak|overrun. */
#include "kit.h"

int main(int argc, char **argv) {
    CHECK(argc == 3);
    jinabert_error error;
    jinabert_options options = options_on("cpu");
    jinabert_embedder *embedder = open_model(argv[1], &options);
    size_t dim = dimensions_of(embedder);
    const char *texts[] = {"a", "b"};
    float *vectors = floats(dim);
    int overrun = strcmp(argv[2], "overrun") == 0;
    /* Room for one, but two are promised. */
    FINE(jinabert_embed(embedder, texts, NULL, overrun ? 2 : 1, vectors, 2 * dim, NULL, &error));
    CHECK(jinabert_free(embedder) == JINABERT_STATUS_OK);
    if (overrun) free(vectors);
    vectors = NULL;
    return 0;
}
