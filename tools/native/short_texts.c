/* Many short texts through the C interface, in one process:
 *
 *     short_texts MODEL DEVICE SENTENCES TEXTS AT_ONCE TURNS
 *
 * embeds TEXTS texts, the lines of SENTENCES again and again, AT_ONCE a call, in TURNS turns, each
 * with a model that is opened and freed. Says what it did and how long the calls took.
 * benches/short_texts.rs does the same through the Rust interface.
 */
#include <jinabert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { MOST = 1 << 16 };

static jinabert_error error;

static void check(jinabert_status status) {
    if (status != JINABERT_STATUS_OK) {
        fprintf(stderr, "%s: %s\n", jinabert_status_name(status), error.message);
        exit(1);
    }
}

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

static size_t read_lines(const char *path, char **lines) {
    static char line[MOST];
    size_t count = 0;
    FILE *file = fopen(path, "r");
    if (!file) return 0;
    while (count < MOST && fgets(line, sizeof line, file)) {
        line[strcspn(line, "\n")] = 0;
        lines[count] = malloc(strlen(line) + 1);
        if (!lines[count]) exit(1);
        strcpy(lines[count++], line);
    }
    fclose(file);
    return count;
}

int main(int argc, char **argv) {
    static char *lines[MOST];
    if (argc != 7 || jinabert_abi_version() != JINABERT_ABI_VERSION) return 2;
    size_t count = read_lines(argv[3], lines);
    size_t texts = strtoul(argv[4], NULL, 10), at_once = strtoul(argv[5], NULL, 10);
    size_t turns = strtoul(argv[6], NULL, 10), done = 0;
    const char **batch = malloc(at_once * sizeof *batch);
    if (!count || !at_once || !turns || !batch) return 2;
    jinabert_options options = {.size = sizeof options, .device = argv[2]};
    double seconds = 0, sum = 0;
    for (size_t turn = 0; turn < turns; turn++) {
        jinabert_embedder *embedder;
        check(jinabert_open(argv[1], &options, &embedder, &error));
        jinabert_description is = {.size = sizeof is};
        check(jinabert_describe(embedder, &is, &error));
        float *vectors = malloc(at_once * is.dimensions * sizeof *vectors);
        if (!vectors) return 1;
        double start = now();
        for (size_t end = texts / turns * (turn + 1); done < end;) {
            size_t some = end - done < at_once ? end - done : at_once;
            for (size_t i = 0; i < some; i++) batch[i] = lines[(done + i) % count];
            check(jinabert_embed(embedder, batch, NULL, some, vectors, at_once * is.dimensions, NULL,
                                 &error));
            sum += vectors[0];
            done += some;
        }
        seconds += now() - start;
        free(vectors);
        check(jinabert_free(embedder));
        if (jinabert_open_handles() != 0) return 3;
    }
    printf("%zu texts, %.6f seconds, sum %.6f\n", done, seconds, sum);
    free(batch);
    for (size_t i = 0; i < count; i++) free(lines[i]);
    return 0;
}
