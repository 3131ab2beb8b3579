/* Vectors of the lines of standard input, a line each, with every digit: vectors MODEL DEVICE. */
#include "kit.h"

int main(int argc, char **argv) {
    CHECK(argc == 3);
    jinabert_error error;
    jinabert_options options = options_on(argv[2]);
    options.tune = JINABERT_TUNE_OFF;
    jinabert_embedder *embedder = open_model(argv[1], &options);
    size_t dim = dimensions_of(embedder), count = 0;
    const char *texts[256];
    static char line[1 << 16];
    while (count < 256 && fgets(line, sizeof line, stdin)) {
        size_t length = strcspn(line, "\n");
        char *copy = (char *)malloc(length + 1);
        CHECK(copy != NULL);
        memcpy(copy, line, length);
        copy[length] = 0;
        texts[count++] = copy;
    }
    float *vectors = floats(count * dim);
    FINE(jinabert_embed(embedder, texts, NULL, count, vectors, count * dim, NULL, &error));
    for (size_t row = 0; row < count; row++)
        for (size_t i = 0; i < dim; i++)
            printf("%.9g%c", (double)vectors[row * dim + i], i + 1 < dim ? ' ' : '\n');
    for (size_t row = 0; row < count; row++) free((void *)(uintptr_t)texts[row]);
    free(vectors);
    return jinabert_free(embedder);
}
