/* Two sentences, one cosine, from C.
 *
 *     packaging/install-capi PREFIX
 *     export PKG_CONFIG_PATH=PREFIX/lib/pkgconfig LD_LIBRARY_PATH=PREFIX/lib
 *     cc examples/embed.c $(pkg-config --cflags --libs jinabert) -o embed
 *     ./embed models/jinabert-mini-en
 */
#include <jinabert.h>
#include <stdio.h>
#include <stdlib.h>

static jinabert_error error;

static void check(jinabert_status status) {
    if (status != JINABERT_STATUS_OK) {
        fprintf(stderr, "%s: %s\n", jinabert_status_name(status), error.message);
        exit(1);
    }
}

int main(int argc, char **argv) {
    if (argc < 2 || jinabert_abi_version() != JINABERT_ABI_VERSION) {
        fprintf(stderr, "usage: embed MODEL [DEVICE]\n");
        return 2;
    }
    jinabert_options options = {.size = sizeof options, .device = argc > 2 ? argv[2] : NULL};
    jinabert_embedder *embedder;
    check(jinabert_open(argv[1], &options, &embedder, &error));
    jinabert_description is = {.size = sizeof is};
    check(jinabert_describe(embedder, &is, &error));

    const char *texts[] = {"A blue cat", "A cat that is blue"};
    float *vectors = calloc(2 * is.dimensions, sizeof *vectors);
    if (!vectors) return 1;
    check(jinabert_embed(embedder, texts, NULL, 2, vectors, 2 * is.dimensions, NULL, &error));

    double cosine = 0;
    for (size_t i = 0; i < is.dimensions; i++)
        cosine += (double)vectors[i] * vectors[is.dimensions + i];
    printf("%zu components on %s\ncosine %.3f\n", is.dimensions, is.device, cosine);
    free(vectors);
    return jinabert_free(embedder);
}
